"""Table of KL by quantizer, bits and grid, with the weights replaced in memory.

A research script: it answers whether the ordering round-to-nearest > one-sided > two-sided > refined > tuned holds on
a model, at equal grids and calibration. Published figures come from finished files instead. Without ``--model`` it is
the demo model on its prose texts, 4 and 3 bits symmetric and 2 bits asymmetric, in groups of 32; a folder with
``calibration.txt`` and ``report.txt`` beside the model needs no texts either. 4 bits in groups of 32 are compared with
the gguf package's and onnxruntime's own quantizers too. ``--peers`` adds calibrated ones on the same tokens, each in
an environment that is made for it. A GGUF type is held against llama.cpp's own quantizer of that type with an
importance matrix of the same tokens. ``bytes`` counts the quantized linears, scales included.

    npm run bench:kl -- --json
    npm run bench:kl -- --model smollm2 --grids s4g64 s3g64 a2g32 --sequences 256 --report-sequences 16 --json
    npm run bench:kl -- --grids iq4_xs q4_k q3_k q2_k --quantizers two-sided+refine+rescale --json
    python benchmarks/kl_table.py --model MODEL --calibration TEXT --report TEXT --grids q4_k s4g128

The name of a model of ``real_models.py`` makes that one, with texts of four kinds to calibrate on and two to report on.
The budget of calibration tokens is ``--sequences`` times ``--length``; an eighth of it, 16 sequences at most, chooses
the dampings. With ``--keep``, sketch, codes and rows are kept in a folder, and a run that is cut off goes on.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from kl_stages import KeptRows, Rounded, Row, kept_rounding, mapped
from llama_cpp_quantizer import LlamaCppMissing, imatrix_quantized
from peers import CALIBRATED_PEERS, PEERS, calibrated_peer
from real_models import REAL_MODELS, real_model
from transformers.pytorch_utils import Conv1D

from yaqa_runner.calibration.overlap import HeldOut
from yaqa_runner.calibration.text import calibration_from_text, evaluation_from_text
from yaqa_runner.calibration.tokens import TokenSet
from yaqa_runner.formats.compressed_tensors.float_forms import FLOAT_FORMS
from yaqa_runner.formats.mlx.container import FLOAT_MODES
from yaqa_runner.grids.asymmetric import AsymmetricGrid
from yaqa_runner.grids.gguf import GGUF_GRID_NAMES, gguf_grid
from yaqa_runner.grids.grid import Grid
from yaqa_runner.grids.symmetric import SymmetricGrid
from yaqa_runner.machine.precision import cpu_multiplies_bfloat16
from yaqa_runner.model.linears import LinearLayer
from yaqa_runner.model.load import SourceModel, load_source_model
from yaqa_runner.model.snapshot import fingerprint_files, inspect_snapshot
from yaqa_runner.monitor import Monitor
from yaqa_runner.pipeline.provenance import describe_device
from yaqa_runner.pipeline.round_recipes import RESCALE_ITERATIONS
from yaqa_runner.rounding.adaptive import round_nearest
from yaqa_runner.rounding.layers import RoundingTask, round_layers
from yaqa_runner.rounding.linalg.factor import PreparedFactor
from yaqa_runner.rounding.tune import LEARNING_RATE, TuningSteps, TuningTask, tune_scales, tuning_plan
from yaqa_runner.sketches.compute import SketchInputs, compute_sketch
from yaqa_runner.sketches.memory import plan_memory
from yaqa_runner.sketches.regularize import RegularizedLayer, regularize, regularized_moment
from yaqa_runner.sketches.settings import SketchSettings
from yaqa_runner.sketches.store import Sketch, SketchUnreadable, open_sketch

QUANTIZERS = (
    "rtn",
    "gptq-own-grid",
    "gptq",
    "gptq+refine",
    "two-sided",
    "two-sided+refine",
    "two-sided+refine+rescale",
)
SKETCH_BYTES = 3 << 30
DEMO = Path(__file__).resolve().parents[2] / "demo"


def parse_grid(text: str) -> Grid:
    """``s4g32``: symmetric, 4 bits, group 32; ``a3g64``: asymmetric; GGUF types, ``nvfp4`` and its like by name."""
    if text in GGUF_GRID_NAMES:
        return gguf_grid(text)
    if text in FLOAT_FORMS:
        return FLOAT_FORMS[text].grid()
    if text.removeprefix("mlx:") in FLOAT_MODES:
        return FLOAT_MODES[text.removeprefix("mlx:")]
    bits, group = text[1:].split("g")
    family = {"s": SymmetricGrid, "a": AsymmetricGrid}[text[0]]
    return family(int(bits), int(group))


@torch.no_grad()
def kept_log_probabilities(source: SourceModel, tokens: torch.Tensor, path: Path, batch: int = 4) -> torch.Tensor:
    """The original's, float32 ``[sequences, length, vocabulary]``, in the file ``path``."""
    vocabulary = source.model(input_ids=tokens[:1, :1]).logits.shape[-1]
    return mapped(
        path,
        (*tokens.shape, vocabulary),
        lambda: [source.model(input_ids=part).logits.float().log_softmax(-1) for part in tokens.split(batch)],
    )


@torch.no_grad()
def kl_by_sequence(source: SourceModel, tokens: torch.Tensor, reference: torch.Tensor, batch: int = 4) -> torch.Tensor:
    """Mean KL(original ‖ quantized) in nats a token of every sequence, ``[sequences]``."""
    means = []
    for part, original in zip(tokens.split(batch), reference.split(batch), strict=True):
        quantized = source.model(input_ids=part).logits.float().log_softmax(-1)
        means.append((original.exp() * (original - quantized)).sum(-1).mean(-1))
    return torch.cat(means)


@dataclass(frozen=True)
class Bench:
    """What every row of the table rests on.

    Attributes:
        source: The original model.
        sketch: Its factors.
        arguments: Of the command line.
        folder: Where roundings are kept.
    """

    source: SourceModel
    sketch: Sketch
    arguments: argparse.Namespace
    folder: Path

    def regularized(self, name: str) -> RegularizedLayer:
        """The pair of factors of the linear ``name``."""
        return regularize(self.sketch.factors(name), self.arguments.sigma_input, self.arguments.sigma_output)

    def moment(self, name: str) -> PreparedFactor:
        """What one-sided rounding takes."""
        return regularized_moment(self.sketch.factors(name), self.arguments.sigma_input)


def round_model(bench: Bench, grid: Grid, quantizer: str) -> Rounded:
    """Codes and grid of every linear under ``quantizer``.

    All share the grid that is fitted under the sketch's diagonal, but ``gptq-own-grid``: as others do it, under that of
    ``E[x xᵀ]``.
    """

    def task(linear: LinearLayer) -> RoundingTask[str]:
        weight, pair = linear.weight(), bench.regularized(linear.name)
        metric, output = pair.input, pair.output
        if quantizer.startswith("gptq"):
            metric, output = bench.moment(linear.name), None
        own = quantizer.startswith("gptq-own-grid")
        return RoundingTask(
            linear.name,
            weight,
            grid.fit(weight, metric.diagonal if own else pair.input.diagonal),
            metric,
            output,
            bench.arguments.sweeps if "+refine" in quantizer else 0,
            RESCALE_ITERATIONS if "+rescale" in quantizer else 0,
        )

    tasks = (task(linear) for linear in bench.source.linears)
    if quantizer == "rtn":
        return {task.key: (round_nearest(task.weight, task.grid), task.grid) for task in tasks}
    return {layer.key: (layer.codes, layer.grid) for layer in round_layers(tasks)}


def open_kept(directory: Path, key: str) -> Sketch | None:
    """The sketch that an earlier run kept, if it is the same one."""
    try:
        return open_sketch(directory, key)
    except SketchUnreadable:
        return None


def tune_model(bench: Bench, rounded: Rounded, tokens: torch.Tensor, steps: int, batch: int) -> Rounded:
    """The same codes with tuned scales."""
    tasks = [
        TuningTask(f"{linear.name}.weight", *rounded[linear.name], isinstance(linear.module, Conv1D))
        for linear in bench.source.linears
    ]
    tuned = tune_scales(
        bench.source.model,
        tasks,
        tokens,
        TuningSteps(steps, batch, bench.arguments.learning_rate),
        precision=bench.arguments.precision,
        monitor=Monitor(progress=tell_steps()),
    ).grids
    return {name: (codes, tuned[f"{name}.weight"]) for name, (codes, _) in rounded.items()}


def tell_steps() -> Callable[[float, float], None]:
    """Says at every tenth of the way how far it is, and when."""
    told = -1

    def progress(done: float, total: float) -> None:
        nonlocal told
        if int(10 * done / total) > told:
            told = int(10 * done / total)
            print(f"{time.strftime('%H:%M:%S')} {done:g} of {total:g}", file=sys.stderr, flush=True)

    return progress


def argument_parser(description: str) -> argparse.ArgumentParser:
    """Of what a table rests on."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=DEMO / "model", help=f"a folder, or {', '.join(REAL_MODELS)}")
    parser.add_argument("--calibration", type=Path, nargs="+")
    parser.add_argument("--report", type=Path, nargs="+")
    parser.add_argument("--grids", nargs="*", default=["s4g32", "s3g32", "a2g32"])
    parser.add_argument("--quantizers", nargs="+", default=list(QUANTIZERS), choices=QUANTIZERS)
    parser.add_argument("--sequences", type=int, default=128)
    parser.add_argument("--sketch-sequences", type=int, help="the first so many for the sketch; without it, all")
    parser.add_argument("--report-sequences", type=int, default=48)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--sketch", choices=["a", "b"], default="a")
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--label-samples", type=int, default=4)
    parser.add_argument("--sigma-input", type=float, help="of every linear; without it, chosen on held-out tokens")
    parser.add_argument("--sigma-output", type=float, help="likewise")
    parser.add_argument("--sweeps", type=int, default=3)
    parser.add_argument("--tune", type=int, metavar="STEPS", help="steps of scale tuning; 0 for none")
    parser.add_argument("--learning-rate", type=float, default=LEARNING_RATE)
    parser.add_argument(
        "--precision", choices=["float32", "bfloat16"], help="of sketch and tuning; bfloat16 where fast"
    )
    parser.add_argument("--peers", nargs="*", default=[], choices=CALIBRATED_PEERS)
    parser.add_argument("--keep", type=Path, help="folder that keeps sketch, roundings and rows for the next run")
    parser.add_argument("--json", action="store_true", help="end with one JSON line")
    return parser


def complete_arguments(arguments: argparse.Namespace) -> argparse.Namespace:
    """The same with a named model made and its texts found."""
    text = DEMO / "text"
    real = not arguments.model.is_dir() and str(arguments.model) in REAL_MODELS
    if real:
        arguments.model = real_model(str(arguments.model))
    calibration = arguments.calibration or sorted(arguments.model.glob("calibration*.txt"))
    report = arguments.report or sorted(arguments.model.glob("report*.txt"))
    arguments.calibration = calibration or [text / "calibration-prose.txt"]
    arguments.report = report or [text / "report-prose.txt"]
    # The demo's KL is so small that the rounding of its activations would show in what tuning sees.
    narrow = real and cpu_multiplies_bfloat16()
    arguments.precision = arguments.precision or ("bfloat16" if narrow else "float32")
    return arguments


@dataclass(frozen=True)
class Texts:
    """Tokens to calibrate on, and ``[sequences, length]`` to report on by the text's name."""

    calibration: TokenSet
    reports: dict[str, torch.Tensor]


def read_texts(source: SourceModel, arguments: argparse.Namespace) -> Texts:
    """No window of a report text is in another text."""
    held_out = HeldOut()
    reports: dict[str, torch.Tensor] = {}
    for path in arguments.report:
        reports[path.stem] = evaluation_from_text(
            path, source.tokenizer, arguments.report_sequences, arguments.length, held_out, warn
        ).tokens
        held_out.add(reports[path.stem].numpy())
    calibration = calibration_from_text(
        arguments.calibration, source.tokenizer, arguments.sequences, arguments.length, 0, held_out, warn
    )
    return Texts(calibration, reports)


def warn(code: str, message: str) -> None:
    """A warning of the runner's own."""
    print(f"{code}: {message}", file=sys.stderr)


def obtain_sketch(source: SourceModel, fingerprint: str, texts: Texts, arguments: argparse.Namespace) -> Sketch:
    """The sketch that is kept, or a new one."""
    settings = SketchSettings(arguments.sketch, arguments.iterations, 0, arguments.label_samples)
    tokens = TokenSet(texts.calibration.tokens[: arguments.sketch_sequences])
    inputs = SketchInputs(source, fingerprint, tokens, settings)
    plan = plan_memory(source.linears, tokens.sequences, arguments.length, settings, SKETCH_BYTES, source.device)
    # Kept apart by precision, which the key does not know.
    folder = arguments.keep / f"{inputs.key[:16]}-{arguments.precision}"
    started = time.perf_counter()
    sketch = open_kept(folder, inputs.key) or compute_sketch(
        inputs,
        directory=folder,
        plan=plan,
        monitor=Monitor(warn=warn, progress=tell_steps()),
        precision=arguments.precision,
    )
    print(f"sketch {arguments.sketch}: {time.perf_counter() - started:.1f} s; {plan.describe()}", file=sys.stderr)
    return sketch


def quantized(
    bench: Bench, texts: Texts, grid_name: str, steps: int, batch: int
) -> Iterator[tuple[str, Callable[[], Rounded]]]:
    """Name and maker of every result that is rounded here on one grid, each kept where it was made once."""
    grid, arguments = parse_grid(grid_name), bench.arguments
    settings = f"{arguments.sigma_input} {arguments.sigma_output} {arguments.sweeps}"
    for quantizer in arguments.quantizers:
        yield (
            quantizer,
            lambda quantizer=quantizer: kept_rounding(
                bench.folder / grid_name / f"{quantizer} {settings}.safetensors",
                lambda: round_model(bench, grid, quantizer),
            ),
        )
    if steps == 0:
        return
    start = arguments.quantizers[-1]
    path = bench.folder / grid_name / f"{start} {settings}.safetensors"
    tuning = f"{start}+tune {settings} {steps} {batch} {arguments.learning_rate}"
    yield (
        f"{start}+tune",
        lambda: kept_rounding(
            bench.folder / grid_name / f"{tuning}.safetensors",
            lambda: tune_model(
                bench,
                kept_rounding(path, lambda: round_model(bench, grid, start)),
                texts.calibration.tokens,
                steps,
                batch,
            ),
        ),
    )


class Table:
    """Measures the model with other weights in place of its own, and keeps the rows."""

    def __init__(self, bench: Bench, texts: Texts, model_name: str) -> None:
        self.bench, self.texts, self.model_name = bench, texts, model_name
        self.kept = KeptRows(bench.folder / "rows.jsonl")
        self.rows: list[Row] = []
        self.originals = {linear.name: linear.module.weight for linear in bench.source.linears}
        self.weights = sum(linear.rows * linear.columns for linear in bench.source.linears)
        self.digests = {
            name: hashlib.sha256(report.numpy().tobytes()).hexdigest()[:16] for name, report in texts.reports.items()
        }
        self.references = {
            name: kept_log_probabilities(
                bench.source, report, bench.arguments.keep / f"original-{model_name}-{self.digests[name]}.f32"
            )
            for name, report in texts.reports.items()
        }

    def add(
        self,
        grid: str,
        quantizer: str,
        of: str,
        decode: Callable[[], dict[str, torch.Tensor]],
        bits: float,
        stored: float,
    ) -> None:
        """Rows of all report texts for the weights that ``decode`` gives, unless they are kept."""
        found: dict[str, Row] = {}

        def measured() -> dict[str, Row]:
            if not found:
                found.update(self._measured(grid, quantizer, decode, bits, stored))
            return found

        for name in self.texts.reports:
            row = self.kept.row(f"{of} {name} {self.digests[name]}", lambda name=name: measured()[name])
            self.rows.append(row)
            print(
                f"{time.strftime('%H:%M:%S')} {grid:>8} {quantizer:<30} {name:<18} {row['klNats']:.5f} ± "
                f"{row['standardError']:.5f}   {row['seconds']:6.1f} s",
                flush=True,
            )

    def _measured(
        self, grid: str, quantizer: str, decode: Callable[[], dict[str, torch.Tensor]], bits: float, stored: float
    ) -> dict[str, Row]:
        started = time.perf_counter()
        decoded = decode()
        seconds = time.perf_counter() - started
        linears = self.bench.source.linears
        for linear in linears:
            weight = decoded[linear.name].T if isinstance(linear.module, Conv1D) else decoded[linear.name]
            linear.module.weight = torch.nn.Parameter(weight.contiguous(), requires_grad=False)
        found: dict[str, Row] = {}
        for name, report in self.texts.reports.items():
            kl = kl_by_sequence(self.bench.source, report, self.references[name])
            found[name] = {
                "model": self.model_name,
                "bits": bits,
                "grid": grid,
                "quantizer": quantizer,
                "report": name,
                "klNats": float(kl.mean()),
                "standardError": float(kl.std() / len(kl) ** 0.5),
                "bytes": round(self.weights * stored / 8),
                "seconds": round(seconds, 2),
            }
        for linear in linears:
            linear.module.weight = self.originals[linear.name]
        return found


def peer_weights(bench: Bench, texts: Texts, peer: str, grid: str) -> dict[str, torch.Tensor]:
    """What a calibrated peer makes of the model on the same tokens."""
    bits, group = grid[1:].split("g")
    handed = calibrated_peer(
        peer,
        bench.arguments.model.resolve(),
        texts.calibration.tokens,
        int(bits),
        int(group),
        grid.startswith("s"),
    )
    return {linear.name: handed[linear.path] for linear in bench.source.linears}


def fill(table: Table, grid_name: str, steps: int, batch: int) -> None:
    """All rows of one grid."""
    bench, texts, grid = table.bench, table.texts, parse_grid(grid_name)
    linear = bench.source.linears[0]
    fitted = grid.fit(linear.weight(), None)
    # Grids of floating-point numbers have two zeros, of which one is used; of a codebook's codes not all go together.
    whole = math.ceil(math.log2(fitted.maximum - fitted.minimum + 1))
    bits = whole if fitted.codebook is None else math.floor(grid.bits_per_weight)
    settings = f"{bench.arguments.sigma_input} {bench.arguments.sigma_output} {bench.arguments.sweeps}"
    for quantizer, make in quantized(bench, texts, grid_name, steps, batch):

        def decode(make: Callable[[], Rounded] = make) -> dict[str, torch.Tensor]:
            return {name: own.decode(codes) for name, (codes, own) in make().items()}

        tuned = f" {steps} {batch} {bench.arguments.learning_rate}" if quantizer.endswith("+tune") else ""
        table.add(
            grid_name, quantizer, f"{grid_name} {quantizer} {settings}{tuned}", decode, bits, grid.bits_per_weight
        )
    if grid_name in GGUF_GRID_NAMES:

        def with_imatrix() -> dict[str, torch.Tensor]:
            return {
                linear.name: imatrix_quantized(
                    linear.weight(), bench.sketch.factors(linear.name).second_moment.diagonal(), grid_name
                )
                for linear in bench.source.linears
            }

        try:
            table.add(grid_name, "imatrix", f"{grid_name} imatrix", with_imatrix, bits, grid.bits_per_weight)
        except LlamaCppMissing as error:
            table.rows.append(missing_row(table.model_name, "imatrix", str(error)) | {"bits": bits, "grid": grid_name})
            print(f"{grid_name:>8} {error}", flush=True)
    if grid_name in ("s4g32", "q4_0"):
        for peer, (quantize, stored) in PEERS.items():

            def nearest(quantize: Callable[[torch.Tensor], torch.Tensor] = quantize) -> dict[str, torch.Tensor]:
                return {linear.name: quantize(linear.weight()) for linear in bench.source.linears}

            table.add(grid_name, peer, f"{grid_name} {peer}", nearest, bits, stored)
    for peer in bench.arguments.peers if grid_name[0] in "sa" else []:
        try:
            table.add(
                grid_name,
                peer,
                f"{grid_name} {peer}",
                lambda peer=peer: peer_weights(bench, texts, peer, grid_name),
                bits,
                grid.bits_per_weight,
            )
        except (RuntimeError, KeyError, subprocess.CalledProcessError) as error:
            reason = f"{peer} did not quantize this model here: {error}"
            table.rows.append(missing_row(table.model_name, peer, reason) | {"bits": bits, "grid": grid_name})
            print(f"{grid_name:>8} {reason}", flush=True)


def missing_row(model: str, quantizer: str, reason: str) -> Row:
    """Why there is no figure."""
    nothing = {"bits": None, "klNats": None, "standardError": None, "bytes": None}
    return {"model": model, "quantizer": quantizer, "reason": reason, **nothing}


def main() -> None:
    arguments = complete_arguments(argument_parser(__doc__ or "").parse_args())
    snapshot = inspect_snapshot(arguments.model)
    source = load_source_model(snapshot, torch.device("cpu"))
    texts = read_texts(source, arguments)
    with contextlib.ExitStack() as stack:
        arguments.keep = arguments.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        sketch = obtain_sketch(source, fingerprint_files(snapshot), texts, arguments)
        bench = Bench(source, sketch, arguments, sketch.directory.with_name(f"{sketch.directory.name}-rounded"))
        model_name = "demo" if arguments.model.resolve() == DEMO / "model" else arguments.model.name
        table = Table(bench, texts, model_name)
        planned_steps, batch = tuning_plan(len(texts.calibration.tokens), texts.calibration.tokens.shape[1])
        steps = planned_steps if arguments.tune is None else arguments.tune
        for grid_name in arguments.grids:
            fill(table, grid_name, steps, batch)
    if arguments.json:
        missing = [
            missing_row(model_name, name, f"not asked for: --peers {name}")
            for name in CALIBRATED_PEERS
            if name not in arguments.peers
        ]
        settings_used = {
            "calibrationSequences": len(texts.calibration.tokens),
            "reportSequences": {name: len(report) for name, report in texts.reports.items()},
            "calibrationTokens": texts.calibration.count,
            "sketchSequences": min(len(texts.calibration.tokens), arguments.sketch_sequences or sys.maxsize),
            "length": arguments.length,
            "sketch": arguments.sketch,
            "iterations": arguments.iterations,
            "labelSamples": arguments.label_samples,
            "tuneSteps": steps,
            "precision": arguments.precision,
        }
        device = describe_device(source.device)
        print(json.dumps({"rows": [*table.rows, *missing], "settings": settings_used, "device": device.to_wire()}))


if __name__ == "__main__":
    main()
