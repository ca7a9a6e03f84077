"""``python -m yaqa_runner.pipeline.compile_kernels``: compiles the CPU's inner loops into ``NUMBA_CACHE_DIR``.

A run may not write where later runs load compiled code from: a model that took it over would run there too. So this
process, which opens no model, compiles them, and every run gets a copy. What it does not foresee is compiled by each
run for itself.
"""

from __future__ import annotations

import sys

import torch

from yaqa_runner.grids.asymmetric import AsymmetricGrid
from yaqa_runner.grids.gguf import gguf_grid
from yaqa_runner.grids.grid import Grid
from yaqa_runner.grids.minifloat import MinifloatGrid
from yaqa_runner.grids.symmetric import SymmetricGrid
from yaqa_runner.rounding.layers import RoundingTask, round_layers
from yaqa_runner.rounding.linalg.factor import prepare_factor

_ROWS, _COLUMNS = 32, 256


def grids() -> list[Grid]:
    """One grid of every kind that the loops tell apart. Codebooks, rare and slow to compile, are left to runs."""
    return [
        SymmetricGrid(4, 32),
        AsymmetricGrid(4, 32),
        *(gguf_grid(name) for name in ("q4_0", "q4_1", "q8_0", "iq4_nl", "q4_k", "q3_k")),
        MinifloatGrid("nvfp4", "e2m1", 16, "e4m3_scaled", 4.5),
    ]


def compile_kernels() -> None:
    """Round a small random weight in every way."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(_ROWS, _COLUMNS, generator=generator)
    samples = torch.randn(2 * _COLUMNS, _COLUMNS, generator=generator)
    factor_input = prepare_factor(samples.T @ samples, 0.1)
    factor_output = prepare_factor(samples[:, :_ROWS].T @ samples[:, :_ROWS], 0.1)
    importance = samples.square().mean(dim=0)
    tasks = [
        RoundingTask(None, weight, grid.fit(weight, importance), factor_input, output, sweeps=1, rescale_iterations=1)
        for grid in grids()
        for output in (None, factor_output)
    ]
    for _ in round_layers(tasks, workers=1):
        pass


if __name__ == "__main__":
    compile_kernels()
    sys.exit(0)
