"""Sketch throughput as a share of the device's measured matrix rate, on shapes of an 8B Llama or narrower ones.

For each shape: the products of one half step of kind A and of one round of kind B are timed on random activations, and
divided by the FLOP that the least work needs (symmetric results counted half). ``matrixRate`` is the rate of a plain
square product in the same precision: bfloat16 with float32 accumulation on CUDA, float32 elsewhere. With ``--blocks``
a whole sketch of kind A is taken of a Llama of that many such blocks with random weights, forward and backward passes
and labels included; its FLOP are those of the passes' matrix products and of the sketch's. Evidence and files, which
do not grow with the tokens, are timed apart where it streams (many tokens).
``--scale 1`` are the 8B shapes; a CPU wants ``--scale 8``.

    python benchmarks/sketch_rate.py --scale 8 --blocks 2 --json
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch
from device_seconds import seconds_of
from transformers import LlamaConfig, LlamaForCausalLM

from yaqa_runner.calibration.tokens import TokenSet
from yaqa_runner.model.linears import discover_linears
from yaqa_runner.model.load import SourceModel
from yaqa_runner.monitor import Monitor
from yaqa_runner.pipeline.provenance import describe_device
from yaqa_runner.sketches.capture import visit_gradients
from yaqa_runner.sketches.compute import SketchInputs, compute_sketch, shared_input_representatives
from yaqa_runner.sketches.contraction import multiply, rounded
from yaqa_runner.sketches.iteration import FactorPlace, IterationA, IterationB
from yaqa_runner.sketches.memory import MemoryPlan, memory_budget, plan_memory
from yaqa_runner.sketches.settings import SketchSettings

# Llama 3 8B: attention queries and outputs, keys and values, gate and up, down.
SHAPES = {"q_proj": (4096, 4096), "k_proj": (1024, 4096), "gate_proj": (14_336, 4096), "down_proj": (4096, 14_336)}


def least_flop(kind: str, rows: int, columns: int, sequences: int, tokens: int) -> float:
    """FLOP of one half step on the output side (A), of one round from the identity in the cheaper order (B)."""
    if kind == "a":
        return sequences * tokens * (columns**2 + rows**2)
    direct = 2 * tokens * rows * columns + rows * columns * (rows + columns)
    gram = 2 * tokens**2 * (rows + columns) + tokens * (rows**2 + columns**2)
    return sequences * min(direct, gram)


@dataclass(frozen=True)
class WholeSketch:
    """A sketch of kind A from the first token to the last file; ``seconds`` until its factors are there."""

    plan: MemoryPlan
    seconds: float
    file_seconds: float
    flop: float


def whole_sketch(
    device: torch.device, scale: int, blocks: int, sequences: int, length: int, iterations: int
) -> WholeSketch:
    """Take it of a Llama of ``blocks`` blocks with random weights."""
    config = LlamaConfig(
        vocab_size=128_256 // scale,
        hidden_size=4096 // scale,
        intermediate_size=14_336 // scale,
        num_hidden_layers=blocks,
        num_attention_heads=32 // scale,
        num_key_value_heads=max(1, 8 // scale),
        max_position_embeddings=8192,
    )
    torch.manual_seed(0)
    with device:
        model = LlamaForCausalLM(config).to(torch.bfloat16 if device.type == "cuda" else torch.float32).eval()
    model.requires_grad_(False)
    linears, unquantized = discover_linears(model)
    source = SourceModel(model, None, linears, unquantized, device, config.vocab_size, None)
    tokens = torch.randint(0, config.vocab_size, (sequences, length))
    settings = SketchSettings("a", iterations, 0)
    budget = memory_budget(device, None, source.parameter_bytes)
    plan = plan_memory(linears, sequences, length, settings, budget, device)
    # Kernels are chosen, and memory is reserved, in the first pass of a batch.
    visit_gradients(model, linears, tokens[: plan.batch], 0, 0, 1, lambda layer, x, g: None, plan.recompute)
    finished = 0.0

    def progress(done: float, total: float) -> None:
        nonlocal finished
        if finished == 0.0 and done >= 0.999 * total:
            if device.type == "cuda":
                torch.cuda.synchronize()
            finished = time.perf_counter()

    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        compute_sketch(
            SketchInputs(source, "0" * 64, TokenSet(tokens), settings),
            directory=Path(folder) / "sketch",
            plan=plan,
            monitor=Monitor(progress, warn=lambda code, message: print(f"{code}: {message}", flush=True)),
        )
        ended = time.perf_counter()
    count = sequences * length
    weights = sum(layer.rows * layer.columns for layer in linears) + config.vocab_size * config.hidden_size
    without_gradients = len(plan.windows) if plan.mode == "streaming" else 0
    passes = 2 * plan.passes - without_gradients
    # Queries, keys and values have one second moment, as have gate and up.
    representatives = set(shared_input_representatives(source, tokens[:1]).values())
    moments = sum(layer.columns**2 for layer in linears if layer.name in representatives)
    steps = (iterations - 1) * sum(layer.columns**2 + layer.rows**2 for layer in linears)
    flop = count * (2.0 * passes * weights + moments + steps)
    return WholeSketch(plan, finished - started, ended - finished, flop)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=int, default=8, help="divides every width")
    parser.add_argument("--tokens", type=int, default=512, help="of a sequence")
    parser.add_argument("--sequences", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--blocks", type=int, default=0, help="take a whole sketch of so many blocks too")
    parser.add_argument("--whole-sequences", type=int, default=16, help="of the whole sketch")
    parser.add_argument("--iterations", type=int, default=4, help="of the whole sketch")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", action="store_true", help="end with one JSON line")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    place = FactorPlace(device, "bfloat16" if device.type == "cuda" else "float32")
    generator = torch.Generator(device).manual_seed(0)
    size = 8192 if device.type == "cuda" else 1024
    square = rounded(torch.randn(size, size, generator=generator, device=device), place.precision)
    rate = 2 * size**3 / seconds_of(lambda: multiply(square, square, place.precision), arguments.repeats, device)
    print(f"matrix rate: {rate / 1e12:.3f} TFLOP/s in {place.precision}")
    rows: list[dict[str, object]] = []
    for name, shape in SHAPES.items():
        height, width = (side // arguments.scale for side in shape)
        # As a model computing in this precision hands them out.
        x, g = (
            rounded(
                torch.randn(arguments.sequences, arguments.tokens, side, generator=generator, device=device),
                place.precision,
            )
            for side in (width, height)
        )
        for kind, iteration, step in (
            ("a", IterationA(height, width, place), 1),
            ("b", IterationB(height, width, place), 0),
        ):
            iteration.begin(step)
            seconds = seconds_of(lambda i=iteration, a=x, b=g: i.add(a, b), arguments.repeats, device)  # type: ignore[misc]
            share = least_flop(kind, height, width, arguments.sequences, arguments.tokens) / seconds / rate
            print(f"{name:>10} {kind} {height:>6} x {width:<6} {seconds:8.4f} s  {100 * share:5.1f} %", flush=True)
            rows.append({"layer": name, "kind": kind, "shape": [height, width], "seconds": seconds, "share": share})
    whole = None
    if arguments.blocks > 0:
        del square, x, g, iteration
        sketch = whole_sketch(
            device,
            arguments.scale,
            arguments.blocks,
            arguments.whole_sequences,
            arguments.tokens,
            arguments.iterations,
        )
        count = arguments.whole_sequences * arguments.tokens
        whole = {
            "blocks": arguments.blocks,
            "sequences": arguments.whole_sequences,
            "length": arguments.tokens,
            "iterations": arguments.iterations,
            "plan": sketch.plan.describe(),
            "seconds": sketch.seconds,
            "fileSeconds": sketch.file_seconds,
            "tokensPerSecond": count / sketch.seconds,
            "share": sketch.flop / sketch.seconds / rate,
        }
        print(
            f"whole sketch: {sketch.seconds:.2f} s, {count / sketch.seconds:.0f} tokens/s,"
            f" {100 * sketch.flop / sketch.seconds / rate:.1f} %; evidence and files {sketch.file_seconds:.1f} s"
        )
        print(sketch.plan.describe())
    if arguments.json:
        result = {"rows": rows, "whole": whole, "matrixRate": rate, "precision": place.precision}
        about = {"device": describe_device(device).to_wire(), "date": datetime.now(UTC).date().isoformat()}
        print(json.dumps({**result, **about}))


if __name__ == "__main__":
    main()
