"""Table of KL by quantizer, bits and grid, with the weights replaced in memory.

A research script: it answers whether the ordering round-to-nearest > one-sided > two-sided > refined > tuned holds on
a model, at equal grids and calibration. Published figures come from finished files instead.

    python benchmarks/kl_table.py --model ../demo/model --calibration ../demo/text/calibration-prose.txt \
        --report ../demo/text/report-prose.txt
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import time
from pathlib import Path

import torch
from transformers.pytorch_utils import Conv1D

from yaqa_runner.calibration.overlap import HeldOut
from yaqa_runner.calibration.text import calibration_from_text, evaluation_from_text
from yaqa_runner.grids.asymmetric import AsymmetricGrid
from yaqa_runner.grids.gguf import GGUF_GRID_NAMES, gguf_grid
from yaqa_runner.grids.grid import FixedGrid, Grid
from yaqa_runner.grids.symmetric import SymmetricGrid
from yaqa_runner.model.load import SourceModel, load_source_model
from yaqa_runner.model.snapshot import fingerprint_files, inspect_snapshot
from yaqa_runner.rounding.adaptive import round_nearest
from yaqa_runner.rounding.layers import RoundingTask, round_layers
from yaqa_runner.rounding.tune import LEARNING_RATE, TuningTask, tune_scales
from yaqa_runner.sketch.compute import compute_sketch
from yaqa_runner.sketch.regularize import RegularizedLayer, regularize
from yaqa_runner.sketch.settings import SketchSettings, sketch_key
from yaqa_runner.sketch.store import Sketch, SketchUnreadable, open_sketch

QUANTIZERS = ("rtn", "gptq", "gptq+refine", "two-sided", "two-sided+refine")


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
    source: SourceModel, layers: dict[str, RegularizedLayer], grids: dict[str, FixedGrid], quantizer: str, sweeps: int
) -> dict[str, torch.Tensor]:
    """Codes of every linear under ``quantizer``."""
    weights = {linear.name: linear.weight() for linear in source.linears}
    if quantizer == "rtn":
        return {name: round_nearest(weight, grids[name]) for name, weight in weights.items()}
    two_sided = quantizer.startswith("two-sided")
    tasks = (
        RoundingTask(
            name,
            weight,
            grids[name],
            layers[name].input if two_sided else layers[name].moment,
            layers[name].output if two_sided else None,
            sweeps if quantizer.endswith("+refine") else 0,
        )
        for name, weight in weights.items()
    )
    return {layer.name: layer.codes for layer in round_layers(tasks)}


def open_kept(directory: Path, key: str) -> Sketch | None:
    """The sketch that an earlier run kept, if it is the same one."""
    try:
        return open_sketch(directory, key)
    except SketchUnreadable:
        return None


def tune_model(
    source: SourceModel,
    grids: dict[str, FixedGrid],
    codes: dict[str, torch.Tensor],
    tokens: torch.Tensor,
    steps: int,
    learning_rate: float,
) -> dict[str, FixedGrid]:
    """Grids with tuned scales."""
    tasks = [
        TuningTask(f"{linear.name}.weight", codes[linear.name], grids[linear.name], isinstance(linear.module, Conv1D))
        for linear in source.linears
    ]
    tuned = tune_scales(source.model, tasks, tokens, steps=steps, learning_rate=learning_rate).grids
    return {name.removesuffix(".weight"): grid for name, grid in tuned.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--calibration", type=Path, nargs="+", required=True)
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("--grids", nargs="+", default=["s4g32", "s3g32", "a4g32", "a3g32"])
    parser.add_argument("--quantizers", nargs="+", default=list(QUANTIZERS), choices=QUANTIZERS)
    parser.add_argument("--sequences", type=int, default=128)
    parser.add_argument("--report-sequences", type=int, default=48)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--sketch", choices=["a", "b"], default="a")
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--sigma-input", type=float, default=0.01)
    parser.add_argument("--sigma-output", type=float, default=0.1)
    parser.add_argument("--sweeps", type=int, default=3)
    parser.add_argument("--tune", type=int, default=0, metavar="STEPS", help="tune the refined result's scales too")
    parser.add_argument("--learning-rate", type=float, default=LEARNING_RATE)
    parser.add_argument("--keep", type=Path, help="folder that keeps the sketch for the next run")
    parser.add_argument("--json", action="store_true", help="end with one JSON line")
    arguments = parser.parse_args()

    snapshot = inspect_snapshot(arguments.model)
    source = load_source_model(snapshot, torch.device("cpu"))

    def warn(code: str, message: str) -> None:
        print(f"{code}: {message}", file=sys.stderr)

    held_out = HeldOut()
    report = evaluation_from_text(
        arguments.report, source.tokenizer, arguments.report_sequences, arguments.length, held_out, warn
    ).tokens
    held_out.add(report.numpy())
    calibration = calibration_from_text(
        arguments.calibration, source.tokenizer, arguments.sequences, arguments.length, 0, held_out, warn
    )
    started = time.perf_counter()
    with contextlib.ExitStack() as stack:
        folder = arguments.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        settings = SketchSettings(arguments.sketch, arguments.iterations, 0)
        key = sketch_key(fingerprint_files(snapshot), calibration.sha256, settings)
        sketch = open_kept(folder / key[:16], key) or compute_sketch(
            source,
            fingerprint_files(snapshot),
            calibration,
            settings,
            folder / key[:16],
            8 << 30,
            lambda done, total: None,
            lambda: None,
            warn,
        )
        layers = {
            linear.name: regularize(sketch.factors(linear.name), arguments.sigma_input, arguments.sigma_output)
            for linear in source.linears
        }
    print(f"sketch {arguments.sketch}: {time.perf_counter() - started:.1f} s", file=sys.stderr)
    reference = log_probabilities(source, report)
    originals = {linear.name: linear.module.weight for linear in source.linears}
    rows = []
    for text in arguments.grids:
        grid = parse_grid(text)
        grids = {
            linear.name: grid.fit(linear.weight(), layers[linear.name].input.diagonal) for linear in source.linears
        }
        names = [*arguments.quantizers, *(["two-sided+refine+tune"] if arguments.tune else [])]
        for quantizer in names:
            started = time.perf_counter()
            codes = round_model(source, layers, grids, quantizer.removesuffix("+tune"), arguments.sweeps)
            if quantizer.endswith("+tune"):
                grids = tune_model(source, grids, codes, calibration.tokens, arguments.tune, arguments.learning_rate)
            seconds = time.perf_counter() - started
            for linear in source.linears:
                decoded = grids[linear.name].decode(codes[linear.name])
                if isinstance(linear.module, Conv1D):
                    decoded = decoded.T
                linear.module.weight = torch.nn.Parameter(decoded.contiguous(), requires_grad=False)
            kl = kl_by_sequence(source, report, reference)
            for linear in source.linears:
                linear.module.weight = originals[linear.name]
            mean, error = float(kl.mean()), float(kl.std() / len(kl) ** 0.5)
            rows.append(
                {
                    "model": arguments.model.name,
                    "grid": text,
                    "bitsPerWeight": grid.bits_per_weight,
                    "quantizer": quantizer,
                    "klNats": mean,
                    "standardError": error,
                    "seconds": seconds,
                }
            )
            print(f"{text:>8} {quantizer:<22} {mean:.5f} ± {error:.5f}   {seconds:6.2f} s", flush=True)
    if arguments.json:
        print(json.dumps({"rows": rows}))


if __name__ == "__main__":
    main()
