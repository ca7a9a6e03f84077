"""Rounding speed by layer size, against GPTQ, on the same layers in the same run.

Each row is a square layer with random weights and correlated factors, 4 bits symmetric in groups of 128. Factoring
and scale search are not counted for anyone; the best of ``--repeats`` runs is. ``gptqTextbookSeconds`` is one-sided
GPTQ as published (blocks of 128 columns, one column after the other in torch), written here. The columns of gptqmodel
and llm-compressor are null, with a reason, as this benchmark does not drive them yet. Run it on an idle machine: with
more busy processes than cores, threads that wait for each other multiply every figure.

    python benchmarks/rounding.py --sizes 512 1024 2048 4096 --json
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import platform
import time
from collections.abc import Callable

import torch

from yaqa_runner.grids.grid import FixedGrid
from yaqa_runner.grids.symmetric import SymmetricGrid
from yaqa_runner.rounding.adaptive import round_adaptive
from yaqa_runner.rounding.factor import PreparedFactor, prepare_factor
from yaqa_runner.rounding.refine import refine
from yaqa_runner.rounding.workers import available_cores

GROUP = 128
BLOCK = 128


def correlated_factor(size: int, seed: int) -> PreparedFactor:
    """A factor with a spread of scales and a common direction, as activations have."""
    generator = torch.Generator().manual_seed(seed)
    samples = torch.randn(2 * size, size, generator=generator) * torch.linspace(0.2, 3.0, size)
    samples += samples[:, :1]
    return prepare_factor(samples.T @ samples, 0.01)


def textbook_gptq(weight: torch.Tensor, grid: FixedGrid, upper: torch.Tensor) -> torch.Tensor:
    """One-sided GPTQ (arXiv 2210.17323, algorithm 1); ``upper`` is the Cholesky factor of the inverse ``[in, in]``."""
    remaining = weight.clone()
    columns = weight.shape[1]
    codes = torch.empty_like(weight, dtype=torch.int16)
    for start in range(0, columns, BLOCK):
        stop = min(start + BLOCK, columns)
        block = remaining[:, start:stop].clone()
        errors = torch.zeros_like(block)
        inner = upper[start:stop, start:stop]
        for k in range(stop - start):
            scale = grid.scale[:, (start + k) // grid.group]
            code = (block[:, k] / scale).round().clamp(grid.minimum, grid.maximum)
            codes[:, start + k] = code.to(torch.int16)
            error = (block[:, k] - scale * code) / inner[k, k]
            block[:, k:] -= error[:, None] * inner[k, k:][None, :]
            errors[:, k] = error
        remaining[:, stop:] -= errors @ upper[start:stop, stop:]
    return codes


def best_seconds(work: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 1024, 2048, 4096])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="end with one JSON line")
    arguments = parser.parse_args()

    warm = SymmetricGrid(4, GROUP).fit(torch.randn(8, 8))
    round_adaptive(torch.randn(8, 8), warm, torch.eye(8), torch.eye(8))
    reasons = {
        name: "is not driven by this benchmark yet" if importlib.util.find_spec(package) else "is not installed"
        for name, package in (("gptqmodel", "gptqmodel"), ("llm-compressor", "llmcompressor"))
    }
    header = ("size", "two-sided", "one-sided", "refine/sweep", "textbook GPTQ", "exponent")
    print("".join(f"{word:>15}" for word in header))
    rows: list[dict[str, object]] = []
    previous: tuple[int, float] | None = None
    for size in arguments.sizes:
        weight = torch.randn(size, size, generator=torch.Generator().manual_seed(0))
        factor_input, factor_output = correlated_factor(size, 1), correlated_factor(size, 2)
        grid = SymmetricGrid(4, GROUP).fit(weight, factor_input.diagonal)
        lower_input, lower_output = factor_input.lower, factor_output.lower
        upper = torch.linalg.cholesky(torch.linalg.inv(factor_input.hessian.double()), upper=True).float()
        two_sided = best_seconds(
            lambda w=weight, g=grid, i=lower_input, o=lower_output: round_adaptive(w, g, i, o),  # type: ignore[misc]
            arguments.repeats,
        )
        one_sided = best_seconds(
            lambda w=weight, g=grid, i=lower_input: round_adaptive(w, g, i, None),  # type: ignore[misc]
            arguments.repeats,
        )
        codes = round_adaptive(weight, grid, lower_input, lower_output)
        sweep = best_seconds(
            lambda w=weight, g=grid, c=codes, i=factor_input, o=factor_output: refine(  # type: ignore[misc]
                w, g, c, i.hessian, o.hessian, 1
            ),
            1,
        )
        textbook = best_seconds(lambda w=weight, g=grid, u=upper: textbook_gptq(w, g, u), 1)  # type: ignore[misc]
        exponent = None
        if previous is not None:
            exponent = math.log(two_sided / previous[1]) / math.log(size / previous[0])
        previous = (size, two_sided)
        growth = "" if exponent is None else f"{exponent:.2f}"
        print(f"{size:>15}{two_sided:>15.3f}{one_sided:>15.3f}{sweep:>15.3f}{textbook:>15.3f}{growth:>15}", flush=True)
        rows.append(
            {
                "size": size,
                "twoSidedSeconds": two_sided,
                "oneSidedSeconds": one_sided,
                "refineSweepSeconds": sweep,
                "gptqTextbookSeconds": textbook,
                "gptqmodelSeconds": None,
                "llmCompressorSeconds": None,
                "growthExponent": exponent,
            }
        )
    for name, reason in reasons.items():
        print(f"{name} {reason}.")
    if arguments.json:
        device = f"cpu, {available_cores()} cores, {platform.machine()}, torch {torch.__version__}"
        print(json.dumps({"rows": rows, "device": device, "missing": reasons}))


if __name__ == "__main__":
    main()
