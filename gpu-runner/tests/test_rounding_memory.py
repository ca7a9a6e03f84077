"""Rounding one layer at a time holds no more than three times the layer's factors beside the model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

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
