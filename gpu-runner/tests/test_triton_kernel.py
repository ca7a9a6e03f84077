"""The CUDA kernels' logic, run by Triton's interpreter on the CPU, gives the codes of the reference and of the CPU."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest

COMMON = """
import torch
import yaqa_runner.rounding.kernels.triton_round as kernel

import yaqa_runner.rounding.kernels.triton_refine as triton_refine
from yaqa_runner.grids.symmetric import SymmetricGrid
from yaqa_runner.rounding.adaptive import proxy_error
from yaqa_runner.rounding.linalg.factor import prepare_factor
from yaqa_runner.rounding.reference import reference_round_adaptive
from yaqa_runner.rounding.refine import refine

kernel.TILE = kernel.STEP = triton_refine.ROWS = triton_refine.COLUMNS = 16
torch.manual_seed(0)


def factor(size):
    samples = torch.randn(4 * size, size) * torch.linspace(0.1, 3, size)
    samples = samples + samples[:, :1]
    return prepare_factor(samples.T @ samples, 0.05)

"""

ROUNDING = """

for rows, columns in [(5, 7), (1, 9), (9, 1), (33, 50), (20, 18)]:
    weight = torch.randn(rows, columns)
    factor_input, factor_output = factor(columns), factor(rows)
    grid = SymmetricGrid(3, 8).fit(weight, factor_input.diagonal)
    for lower in (factor_output.lower, None):
        expected = reference_round_adaptive(weight, grid, factor_input.lower, lower)
        codes = kernel.round_adaptive_cuda(weight, grid, factor_input.lower, lower)
        assert torch.equal(codes, expected), (rows, columns, lower is None)
"""


REFINEMENT = """
for rows, columns in [(1, 9), (15, 16), (33, 50)]:
    weight = torch.randn(rows, columns)
    factor_input, factor_output = factor(columns), factor(rows)
    grid = SymmetricGrid(2, 8).fit(weight, factor_input.diagonal)
    nearest = grid.nearest(weight)
    for metric in (factor_output.square, None):
        proxies = [proxy_error(weight, grid.decode(nearest), factor_input.square, metric)]
        descend = triton_refine.CudaRefinement(weight, factor_input.square, metric)
        for sweeps in (1, 2):
            codes = descend(grid, nearest, sweeps)
            proxies.append(proxy_error(weight, grid.decode(codes), factor_input.square, metric))
        assert proxies[2] <= proxies[1] * (1 + 1e-6) <= proxies[0] * (1 + 2e-6), proxies
        on_cpu = refine(weight, grid, nearest, factor_input.square, metric, 2)
        if rows <= 16 and columns <= 16:
            # One tile for either, so the same order of elements.
            assert torch.equal(codes, on_cpu), (rows, columns, metric is not None)
        expected = proxy_error(weight, grid.decode(on_cpu), factor_input.square, metric)
        assert proxies[2] <= 1.03 * expected, (rows, columns, proxies, expected)
        assert rows < 33 or proxies[2] < 0.97 * proxies[0]
"""


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="skipped: Triton is not installed")
@pytest.mark.parametrize("check", [ROUNDING, REFINEMENT], ids=["rounding", "refinement"])
def test_interpreted_kernels_agree(check: str) -> None:
    # A process of its own: whether Triton compiles or interprets is decided when it is imported.
    done = subprocess.run(
        [sys.executable, "-c", COMMON + check],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
