"""Rounding one layer at a time holds no more than three times the layer's factors beside the model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from yaqa_runner.rounding.memory import gpu_bytes, layers_on_gpu

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "rounding_memory.py"
# The most that the largest layer's two float32 factors may be multiplied by.
LIMIT = 3.0


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="skipped: no /proc/self/clear_refs, which clears a peak"
)
def test_one_layer_at_a_time_keeps_within_three_times_its_factors() -> None:
    # A large output factor and a large input factor, beside which one-time costs are small, and little to compute.
    shape = ["--widths", "256", "--intermediate", "3072", "--linears", "up_proj", "down_proj"]
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), *shape, "--workers", "1", "--json"],
        # Threads that wait for each other on a busy machine would take minutes.
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    (row,) = json.loads(done.stdout.splitlines()[-1])["rows"]
    assert row["largestFactorsBytes"] > 32 * 2**20
    # Less than the two squares themselves would be a measurement gone wrong.
    assert 1.0 < row["ratio"] <= LIMIT, row


def test_the_widest_linear_of_a_405b_fits_beside_a_block_on_80_gb() -> None:
    down = (16_384, 53_248)
    assert 50e9 < gpu_bytes(*down) < 60e9
    assert layers_on_gpu([down, (16_384, 16_384)], 68_000_000_000) == 1
    # What does not fit goes to the host, one at a time on all its cores.
    assert layers_on_gpu([down, (1024, 1024)], 40_000_000_000) == 1
    assert layers_on_gpu([(4096, 4096)], 40_000_000_000) == 4
    assert layers_on_gpu([], 1) == 1
