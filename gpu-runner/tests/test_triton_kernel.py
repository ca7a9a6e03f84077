"""The CUDA kernel's logic, run by Triton's interpreter on the CPU, gives the reference's codes."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest

CHECK = """
import torch
import yaqa_runner.rounding.triton_kernel as kernel
from yaqa_runner.grids.symmetric import SymmetricGrid
from yaqa_runner.rounding.factor import prepare_factor
from yaqa_runner.rounding.reference import reference_round_adaptive

kernel.TILE = kernel.STEP = 16
torch.manual_seed(0)


def factor(size):
    samples = torch.randn(4 * size, size) * torch.linspace(0.1, 3, size)
    samples = samples + samples[:, :1]
    return prepare_factor(samples.T @ samples, 0.05)


for rows, columns in [(5, 7), (1, 9), (9, 1), (33, 50), (20, 18)]:
    weight = torch.randn(rows, columns)
    factor_input, factor_output = factor(columns), factor(rows)
    grid = SymmetricGrid(3, 8).fit(weight, factor_input.diagonal)
    for lower in (factor_output.lower, None):
        expected = reference_round_adaptive(weight, grid, factor_input.lower, lower)
        codes = kernel.round_adaptive_cuda(weight, grid, factor_input.lower, lower)
        assert torch.equal(codes, expected), (rows, columns, lower is None)
"""


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="skipped: Triton is not installed")
def test_interpreted_kernel_equals_the_reference() -> None:
    # A process of its own: whether Triton compiles or interprets is decided when it is imported.
    done = subprocess.run(
        [sys.executable, "-c", CHECK],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
