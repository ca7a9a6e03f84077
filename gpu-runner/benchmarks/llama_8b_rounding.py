"""Rounds every linear of an 8B Llama, random weights under correlated factors, and says how long that takes.

The clock runs over what a job does with each of the 224 linears: regularising and factoring (float64) its three
factors, the scale search, one-sided rounding, two-sided rounding with refinement and fitted scales, and the codes'
way back to the host. Random weights serve for speed. ``stages`` are medians of one linear of each shape, alone on the
device. ``--scale`` divides every width, for a look on a CPU.

    python benchmarks/llama_8b_rounding.py --json
    python benchmarks/llama_8b_rounding.py --device cpu --scale 16 --blocks 1
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import torch
from device_seconds import seconds_of

from yaqa_runner.formats import container_for
from yaqa_runner.machine.cores import available_cores
from yaqa_runner.machine.host_memory import host_memory
from yaqa_runner.model.load import choose_device
from yaqa_runner.pipeline.provenance import describe_device
from yaqa_runner.pipeline.round_recipes import RESCALE_ITERATIONS
from yaqa_runner.protocol.recipes import parse_recipe
from yaqa_runner.rounding.adaptive import proxy_error, round_adaptive
from yaqa_runner.rounding.layers import RoundingTask, round_layers
from yaqa_runner.rounding.linalg.factor import prepare_factor
from yaqa_runner.rounding.memory import layers_in_flight, layers_on_gpu
from yaqa_runner.rounding.refine import refine
from yaqa_runner.rounding.rescale import rescale

# Llama 3 8B, [out, in]; how many of each a block has.
SHAPES = {
    "q_proj, o_proj": (4096, 4096, 2),
    "k_proj, v_proj": (1024, 4096, 2),
    "gate_proj, up_proj": (14_336, 4096, 2),
    "down_proj": (4096, 14_336, 1),
}


def correlated(size: int, seed: int, device: torch.device) -> torch.Tensor:
    """A factor ``[size, size]`` with a spread of scales and a common direction, as activations have."""
    generator = torch.Generator(device).manual_seed(seed)
    samples = torch.randn(size + size // 4, size, generator=generator, device=device)
    samples = samples * torch.linspace(0.2, 3.0, size, device=device) + samples[:, :1]
    return samples.T @ samples / size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--recipe", default="w4a16")
    parser.add_argument("--blocks", type=int, default=32)
    parser.add_argument("--scale", type=int, default=1, help="divides every width")
    parser.add_argument("--workers", type=int, help="layers in flight; by memory when left out")
    parser.add_argument("--repeats", type=int, default=3, help="of the stages")
    parser.add_argument("--json", action="store_true", help="end with one JSON line")
    arguments = parser.parse_args()
    device = choose_device(arguments.device)
    recipe = parse_recipe(arguments.recipe)
    grid_family = container_for(recipe).grid()
    shapes = {
        name: (rows // arguments.scale, columns // arguments.scale, count)
        for name, (rows, columns, count) in SHAPES.items()
    }
    pairs = [(rows, columns) for rows, columns, _ in shapes.values()]
    if device.type == "cuda":
        workers = layers_on_gpu(pairs, torch.cuda.get_device_properties(device).total_memory - 16 * 2**30)
    else:
        workers = layers_in_flight(pairs, available_cores(), host_memory())
    workers = arguments.workers or workers
    factors = {size: correlated(size, size, device) for size in {side for pair in pairs for side in pair}}
    generator = torch.Generator(device).manual_seed(0)
    rescale_iterations = RESCALE_ITERATIONS if recipe.refine_sweeps > 0 else 0

    def random_weight(rows: int, columns: int) -> torch.Tensor:
        return torch.randn(rows, columns, generator=generator, device=device) * 0.02

    def tasks(blocks: int) -> Iterator[RoundingTask[str]]:
        for block in range(blocks):
            for name, (rows, columns, count) in shapes.items():
                for _ in range(count):
                    weight = random_weight(rows, columns)
                    moment = prepare_factor(factors[columns], 0.01)
                    factor_input = prepare_factor(factors[columns], 0.01)
                    factor_output = prepare_factor(factors[rows], 0.1)
                    grid = grid_family.fit(weight, factor_input.diagonal)
                    yield RoundingTask(f"{block} {name} one-sided", weight, grid, moment, None)
                    yield RoundingTask(
                        f"{block} {name}",
                        weight,
                        grid,
                        factor_input,
                        factor_output,
                        recipe.refine_sweeps,
                        rescale_iterations,
                    )

    # Kernels are compiled once and kept.
    small = random_weight(256, 256)
    ready = prepare_factor(correlated(256, 0, device), 0.1)
    warm = RoundingTask("warm", small, grid_family.fit(small, ready.diagonal), ready, ready, 2, 1)
    list(round_layers([warm, RoundingTask("warm", small, warm.grid, ready, None)], 1))

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    weights = 0
    for done, layer in enumerate(round_layers(tasks(arguments.blocks), workers), start=1):
        weights += layer.codes.numel()
        if done % 28 == 0:
            print(f"{done} roundings, {time.perf_counter() - started:.1f} s", flush=True)
    seconds = time.perf_counter() - started
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else None
    print(f"{weights / 2e9:.2f} billion weights in {seconds:.1f} s with {workers} layers in flight", flush=True)

    stages = []
    for name, (rows, columns, _) in shapes.items():
        weight = random_weight(rows, columns)
        factor_input, factor_output = prepare_factor(factors[columns], 0.01), prepare_factor(factors[rows], 0.1)
        square_input, square_output = factor_input.square, factor_output.square
        grid = grid_family.fit(weight, factor_input.diagonal)
        codes = round_adaptive(weight, grid, square_input, square_output)
        once: list[tuple[str, Callable[[], object]]] = [
            ("prepare", lambda r=rows, c=columns: (prepare_factor(factors[c], 0.01), prepare_factor(factors[r], 0.1))),
            ("fit", lambda w=weight, i=factor_input: grid_family.fit(w, i.diagonal)),
            ("oneSided", lambda w=weight, g=grid, i=square_input: round_adaptive(w, g, i, None)),
            ("twoSided", lambda w=weight, g=grid, i=square_input, o=square_output: round_adaptive(w, g, i, o)),
            ("sweep", lambda w=weight, g=grid, c=codes, i=square_input, o=square_output: refine(w, g, c, i, o, 1)),
            ("rescale", lambda w=weight, g=grid, c=codes, i=square_input, o=square_output: rescale(w, g, c, i, o)),
            (
                "proxy",
                lambda w=weight, g=grid, c=codes, i=square_input, o=square_output: proxy_error(w, g.decode(c), i, o),
            ),
        ]
        found = {stage: seconds_of(work, arguments.repeats, device) for stage, work in once}
        print(f"{name:>20} " + "  ".join(f"{stage} {value:.4f}" for stage, value in found.items()), flush=True)
        stages.append({"layer": name, "shape": [rows, columns], "seconds": found})
    if arguments.json:
        result = {
            "recipe": recipe.canonical,
            "seconds": seconds,
            "linears": 7 * arguments.blocks,
            "weights": weights // 2,
            "workers": workers,
            "peakBytes": peak,
            "stages": stages,
        }
        about = {"device": describe_device(device).to_wire(), "date": datetime.now(UTC).date().isoformat()}
        print(json.dumps({**result, **about}))


if __name__ == "__main__":
    main()
