"""Sketch throughput as a share of the device's measured matrix rate, on shapes of an 8B Llama or narrower ones.

For each shape: the products of one half step of kind A and of one round of kind B are timed on random activations, and
divided by the FLOP that the least work needs (symmetric results counted half). ``matrixRate`` is the rate of a plain
square product in the same precision: bfloat16 with float32 accumulation on CUDA, float32 elsewhere. Forward and
backward passes are the model's own and not counted. On CUDA it is written for an H100 and has not been run there yet:
``--scale 1`` are the 8B shapes; a CPU wants ``--scale 8``.

    python benchmarks/sketch_rate.py --scale 8 --json
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime

import torch

from yaqa_runner.pipeline.provenance import describe_device
from yaqa_runner.sketch.contraction import multiply
from yaqa_runner.sketch.iteration import FactorPlace, IterationA, IterationB

# Llama 3 8B: attention queries and outputs, keys and values, gate and up, down.
SHAPES = {"q_proj": (4096, 4096), "k_proj": (1024, 4096), "gate_proj": (14_336, 4096), "down_proj": (4096, 14_336)}


def seconds_of(work: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Median wall-clock seconds, the device waited for."""
    times = []
    for number in range(repeats + 1):
        if device.type == "cuda":
            torch.cuda.synchronize()
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        if number > 0:
            times.append(time.perf_counter() - started)
    return statistics.median(times)


def least_flop(kind: str, rows: int, columns: int, sequences: int, tokens: int) -> float:
    """FLOP of one half step on the output side (A), of one round from the identity in the cheaper order (B)."""
    if kind == "a":
        return sequences * tokens * (columns**2 + rows**2)
    direct = 2 * tokens * rows * columns + rows * columns * (rows + columns)
    gram = 2 * tokens**2 * (rows + columns) + tokens * (rows**2 + columns**2)
    return sequences * min(direct, gram)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=int, default=8, help="divides every width")
    parser.add_argument("--tokens", type=int, default=512, help="of a sequence")
    parser.add_argument("--sequences", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", action="store_true", help="end with one JSON line")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    place = FactorPlace(device, "bfloat16" if device.type == "cuda" else "float32")
    generator = torch.Generator(device).manual_seed(0)
    size = 8192 if device.type == "cuda" else 1024
    square = torch.randn(size, size, generator=generator, device=device)
    rate = 2 * size**3 / seconds_of(lambda: multiply(square, square, place.precision), arguments.repeats, device)
    print(f"matrix rate: {rate / 1e12:.3f} TFLOP/s in {place.precision}")
    rows: list[dict[str, object]] = []
    for name, shape in SHAPES.items():
        height, width = (side // arguments.scale for side in shape)
        x = torch.randn(arguments.sequences, arguments.tokens, width, generator=generator, device=device)
        g = torch.randn(arguments.sequences, arguments.tokens, height, generator=generator, device=device)
        for kind, iteration, step in (
            ("a", IterationA(height, width, place), 1),
            ("b", IterationB(height, width, place), 0),
        ):
            iteration.begin(step)
            seconds = seconds_of(lambda i=iteration, a=x, b=g: i.add(a, b), arguments.repeats, device)  # type: ignore[misc]
            share = least_flop(kind, height, width, arguments.sequences, arguments.tokens) / seconds / rate
            print(f"{name:>10} {kind} {height:>6} x {width:<6} {seconds:8.4f} s  {100 * share:5.1f} %", flush=True)
            rows.append({"layer": name, "kind": kind, "shape": [height, width], "seconds": seconds, "share": share})
    if arguments.json:
        result = {"rows": rows, "matrixRate": rate, "precision": place.precision}
        about = {"device": describe_device(device).to_wire(), "date": datetime.now(UTC).date().isoformat()}
        print(json.dumps({**result, **about}))


if __name__ == "__main__":
    main()
