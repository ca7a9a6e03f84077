"""Table of KL by quantizer, bits and grid, with the weights replaced in memory.

A research script: it answers whether the ordering round-to-nearest > one-sided > two-sided > refined > tuned holds on
a model, at equal grids and calibration. Published figures come from finished files instead. Without ``--model`` it is
the demo model on its prose texts, 4 and 3 bits symmetric and 2 bits asymmetric, in groups of 32; a folder with
``calibration.txt`` and ``report.txt`` beside the model needs no texts either. 4 bits in groups of 32 are compared with
the gguf package's and onnxruntime's own quantizers too. ``--peers`` adds calibrated ones on the same tokens, each in
an environment that is made for it. ``bytes`` counts the quantized linears, scales included.

    npm run bench:kl -- --json
    npm run bench:kl -- --model smollm2 --grids s4g64 s3g64 a2g32 --sequences 256 --report-sequences 16 --json
    python benchmarks/kl_table.py --model MODEL --calibration TEXT --report TEXT --grids q4_k s4g128

The name of a model of ``real_models.py`` makes that one, with texts of four kinds to calibrate on and two to report on.
The budget of calibration tokens is ``--sequences`` times ``--length``; an eighth of it chooses the dampings.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from peers import CALIBRATED_PEERS, PEERS, calibrated_peer
from real_models import REAL_MODELS, real_model
from transformers.pytorch_utils import Conv1D

from yaqa_runner.calibration.overlap import HeldOut
from yaqa_runner.calibration.text import calibration_from_text, evaluation_from_text
from yaqa_runner.grids.asymmetric import AsymmetricGrid
from yaqa_runner.grids.gguf import GGUF_GRID_NAMES, gguf_grid
from yaqa_runner.grids.grid import FixedGrid, Grid
from yaqa_runner.grids.symmetric import SymmetricGrid
from yaqa_runner.model.load import SourceModel, load_source_model
from yaqa_runner.model.snapshot import fingerprint_files, inspect_snapshot
from yaqa_runner.monitor import Monitor
from yaqa_runner.pipeline.provenance import describe_device
from yaqa_runner.pipeline.round_recipes import RESCALE_ITERATIONS
from yaqa_runner.rounding.adaptive import round_nearest
from yaqa_runner.rounding.layers import RoundingTask, round_layers
from yaqa_runner.rounding.linalg.factor import PreparedFactor
from yaqa_runner.rounding.tune import LEARNING_RATE, TuningTask, tune_scales, tuning_plan
from yaqa_runner.sketches.compute import SketchInputs, compute_sketch
from yaqa_runner.sketches.memory import plan_memory
from yaqa_runner.sketches.regularize import RegularizedLayer, regularize, regularized_moment
from yaqa_runner.sketches.settings import SketchSettings
from yaqa_runner.sketches.store import Sketch, SketchUnreadable, open_sketch

QUANTIZERS = ("rtn", "gptq", "gptq+refine", "two-sided", "two-sided+refine", "two-sided+refine+rescale")
DEMO = Path(__file__).resolve().parents[2] / "demo"


def parse_grid(text: str) -> Grid:
    """``s4g32`` is symmetric, 4 bits, group 32; ``a3g64`` asymmetric; any GGUF type by its name."""
    if text in GGUF_GRID_NAMES:
        return gguf_grid(text)
    bits, group = text[1:].split("g")
    family = {"s": SymmetricGrid, "a": AsymmetricGrid}[text[0]]
    return family(int(bits), int(group))


@torch.no_grad()
def log_probabilities(source: SourceModel, tokens: torch.Tensor, batch: int = 8) -> torch.Tensor:
    """Float32 ``[sequences, length, vocabulary]``."""
    parts = [source.model(input_ids=part).logits.float().log_softmax(-1) for part in tokens.split(batch)]
    return torch.cat(parts)


@torch.no_grad()
def kl_by_sequence(source: SourceModel, tokens: torch.Tensor, reference: torch.Tensor, batch: int = 8) -> torch.Tensor:
    """Mean KL(original ‖ quantized) in nats a token of every sequence, ``[sequences]``."""
    means = []
    for part, original in zip(tokens.split(batch), reference.split(batch), strict=True):
        quantized = source.model(input_ids=part).logits.float().log_softmax(-1)
        means.append((original.exp() * (original - quantized)).sum(-1).mean(-1))
    return torch.cat(means)


def round_model(
    source: SourceModel,
    layers: dict[str, RegularizedLayer],
    moments: dict[str, PreparedFactor],
    grids: dict[str, FixedGrid],
    quantizer: str,
    sweeps: int,
) -> dict[str, tuple[torch.Tensor, FixedGrid]]:
    """Codes and grid of every linear under ``quantizer``."""
    weights = {linear.name: linear.weight() for linear in source.linears}
    if quantizer == "rtn":
        return {name: (round_nearest(weight, grids[name]), grids[name]) for name, weight in weights.items()}
    two_sided = quantizer.startswith("two-sided")
    tasks = (
        RoundingTask(
            name,
            weight,
            grids[name],
            layers[name].input if two_sided else moments[name],
            layers[name].output if two_sided else None,
            sweeps if "+refine" in quantizer else 0,
            RESCALE_ITERATIONS if "+rescale" in quantizer else 0,
        )
        for name, weight in weights.items()
    )
    return {layer.key: (layer.codes, layer.grid) for layer in round_layers(tasks)}


def open_kept(directory: Path, key: str) -> Sketch | None:
    """The sketch that an earlier run kept, if it is the same one."""
    try:
        return open_sketch(directory, key)
    except SketchUnreadable:
        return None


def tune_model(
    source: SourceModel,
    rounded: dict[str, tuple[torch.Tensor, FixedGrid]],
    tokens: torch.Tensor,
    steps: int,
    batch: int,
    learning_rate: float,
) -> dict[str, tuple[torch.Tensor, FixedGrid]]:
    """The same codes with tuned scales."""
    tasks = [
        TuningTask(f"{linear.name}.weight", *rounded[linear.name], isinstance(linear.module, Conv1D))
        for linear in source.linears
    ]
    tuned = tune_scales(source.model, tasks, tokens, steps=steps, batch=batch, learning_rate=learning_rate).grids
    return {name: (codes, tuned[f"{name}.weight"]) for name, (codes, _) in rounded.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=DEMO / "model", help=f"a folder, or {', '.join(REAL_MODELS)}")
    parser.add_argument("--calibration", type=Path, nargs="+")
    parser.add_argument("--report", type=Path, nargs="+")
    parser.add_argument("--grids", nargs="+", default=["s4g32", "s3g32", "a2g32"])
    parser.add_argument("--quantizers", nargs="+", default=list(QUANTIZERS), choices=QUANTIZERS)
    parser.add_argument("--sequences", type=int, default=128)
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
    parser.add_argument("--peers", nargs="*", default=[], choices=CALIBRATED_PEERS)
    parser.add_argument("--keep", type=Path, help="folder that keeps the sketch for the next run")
    parser.add_argument("--json", action="store_true", help="end with one JSON line")
    arguments = parser.parse_args()
    text = DEMO / "text"
    if not arguments.model.is_dir() and str(arguments.model) in REAL_MODELS:
        arguments.model = real_model(str(arguments.model))
    calibration_texts = arguments.calibration or sorted(arguments.model.glob("calibration*.txt"))
    report_texts = arguments.report or sorted(arguments.model.glob("report*.txt"))
    calibration_texts = calibration_texts or [text / "calibration-prose.txt"]
    report_texts = report_texts or [text / "report-prose.txt"]

    snapshot = inspect_snapshot(arguments.model)
    source = load_source_model(snapshot, torch.device("cpu"))

    def warn(code: str, message: str) -> None:
        print(f"{code}: {message}", file=sys.stderr)

    held_out = HeldOut()
    reports: dict[str, torch.Tensor] = {}
    for path in report_texts:
        reports[path.stem] = evaluation_from_text(
            path, source.tokenizer, arguments.report_sequences, arguments.length, held_out, warn
        ).tokens
        held_out.add(reports[path.stem].numpy())
    calibration = calibration_from_text(
        calibration_texts, source.tokenizer, arguments.sequences, arguments.length, 0, held_out, warn
    )
    started = time.perf_counter()
    with contextlib.ExitStack() as stack:
        folder = arguments.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        settings = SketchSettings(arguments.sketch, arguments.iterations, 0, arguments.label_samples)
        inputs = SketchInputs(source, fingerprint_files(snapshot), calibration, settings)
        key = inputs.key
        sketch = open_kept(folder / key[:16], key) or compute_sketch(
            inputs,
            directory=folder / key[:16],
            plan=plan_memory(
                source.linears, len(calibration.tokens), arguments.length, settings, 8 << 30, source.device
            ),
            monitor=Monitor(warn=warn),
        )
        layers = {
            linear.name: regularize(sketch.factors(linear.name), arguments.sigma_input, arguments.sigma_output)
            for linear in source.linears
        }
        moments = {
            linear.name: regularized_moment(sketch.factors(linear.name), arguments.sigma_input)
            for linear in source.linears
        }
    print(f"sketch {arguments.sketch}: {time.perf_counter() - started:.1f} s", file=sys.stderr)
    references = {name: log_probabilities(source, report) for name, report in reports.items()}
    originals = {linear.name: linear.module.weight for linear in source.linears}
    rows: list[dict[str, object]] = []
    weights_in_all = sum(linear.rows * linear.columns for linear in source.linears)

    def measure(grid: str, quantizer: str, bits: float, stored: float, decoded: dict[str, torch.Tensor]) -> None:
        for linear in source.linears:
            weight = decoded[linear.name].T if isinstance(linear.module, Conv1D) else decoded[linear.name]
            linear.module.weight = torch.nn.Parameter(weight.contiguous(), requires_grad=False)
        found = {name: kl_by_sequence(source, report, references[name]) for name, report in reports.items()}
        for linear in source.linears:
            linear.module.weight = originals[linear.name]
        for name, kl in found.items():
            mean, error = float(kl.mean()), float(kl.std() / len(kl) ** 0.5)
            rows.append(
                {
                    "model": model_name,
                    "bits": bits,
                    "grid": grid,
                    "quantizer": quantizer,
                    "report": name,
                    "klNats": mean,
                    "standardError": error,
                    "bytes": round(weights_in_all * stored / 8),
                    "seconds": time.perf_counter() - started,
                }
            )
            seconds = time.perf_counter() - started
            print(f"{grid:>8} {quantizer:<30} {name:<18} {mean:.5f} ± {error:.5f}   {seconds:6.2f} s", flush=True)

    model_name = "demo" if arguments.model.resolve() == DEMO / "model" else arguments.model.name
    empty = {"model": model_name, "bits": None, "klNats": None, "standardError": None, "bytes": None}
    planned_steps, batch = tuning_plan(len(calibration.tokens), calibration.tokens.shape[1])
    steps = planned_steps if arguments.tune is None else arguments.tune
    for text_of_grid in arguments.grids:
        grid = parse_grid(text_of_grid)
        grids = {
            linear.name: grid.fit(linear.weight(), layers[linear.name].input.diagonal) for linear in source.linears
        }
        fitted = next(iter(grids.values()))
        bits = math.log2(fitted.maximum - fitted.minimum + 1)
        rounded: dict[str, tuple[torch.Tensor, FixedGrid]] = {}
        for quantizer in arguments.quantizers:
            started = time.perf_counter()
            rounded = round_model(source, layers, moments, grids, quantizer, arguments.sweeps)
            decoded = {name: own.decode(codes) for name, (codes, own) in rounded.items()}
            measure(text_of_grid, quantizer, bits, grid.bits_per_weight, decoded)
        if steps > 0:
            started = time.perf_counter()
            tuned = tune_model(source, rounded, calibration.tokens, steps, batch, arguments.learning_rate)
            decoded = {name: own.decode(codes) for name, (codes, own) in tuned.items()}
            measure(text_of_grid, f"{arguments.quantizers[-1]}+tune", bits, grid.bits_per_weight, decoded)
        if text_of_grid in ("s4g32", "q4_0"):
            for peer, (quantize, stored) in PEERS.items():
                started = time.perf_counter()
                decoded = {linear.name: quantize(linear.weight()) for linear in source.linears}
                measure(text_of_grid, peer, bits, stored, decoded)
        for peer in arguments.peers if text_of_grid[0] in "sa" else []:
            started = time.perf_counter()
            try:
                handed = calibrated_peer(
                    peer,
                    arguments.model.resolve(),
                    calibration.tokens,
                    round(bits),
                    fitted.group,
                    text_of_grid.startswith("s"),
                )
                decoded = {linear.name: handed[linear.path] for linear in source.linears}
            except (RuntimeError, KeyError, subprocess.CalledProcessError) as error:
                reason = f"{peer} did not quantize this model here: {error}"
                rows.append(empty | {"bits": bits, "grid": text_of_grid, "quantizer": peer, "reason": reason})
                print(f"{text_of_grid:>8} {reason}", flush=True)
                continue
            measure(text_of_grid, peer, bits, grid.bits_per_weight, decoded)
    if arguments.json:
        missing = [
            empty | {"quantizer": name, "reason": f"not asked for: --peers {name}"}
            for name in CALIBRATED_PEERS
            if name not in arguments.peers
        ]
        device = describe_device(source.device)
        settings_used = {
            "calibrationSequences": len(calibration.tokens),
            "reportSequences": {name: len(report) for name, report in reports.items()},
            "calibrationTokens": calibration.count,
            "length": arguments.length,
            "sketch": arguments.sketch,
            "iterations": arguments.iterations,
            "labelSamples": arguments.label_samples,
            "tuneSteps": steps,
        }
        print(json.dumps({"rows": [*rows, *missing], "settings": settings_used, "device": device.to_wire()}))


if __name__ == "__main__":
    main()
