"""Timing work on a device that goes on after the call returns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch


def seconds_of(work: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Median wall-clock seconds of ``repeats`` runs after a first one, the device waited for."""
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
