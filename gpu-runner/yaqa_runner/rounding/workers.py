"""Threads that each do their own matrix products on one core."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch

_START_TIMEOUT_SECONDS = 60.0


@contextmanager
def single_core_workers(count: int) -> Iterator[ThreadPoolExecutor]:
    """``count`` threads in which torch uses one core each.

    ``torch.set_num_threads`` binds the calling thread's OpenMP and MKL teams, and also the value that threads started
    later take over. Every worker therefore sets 1 for itself, and the caller's value is put back once all have.
    """
    before = torch.get_num_threads()
    ready = threading.Barrier(count + 1)

    def start() -> None:
        # A thread's first look at the setting takes over the global value; it must not come after ours.
        torch.get_num_threads()
        torch.set_num_threads(1)
        ready.wait(_START_TIMEOUT_SECONDS)

    with ThreadPoolExecutor(count, thread_name_prefix="rounding") as pool:
        try:
            for _ in range(count):
                pool.submit(start)
            ready.wait(_START_TIMEOUT_SECONDS)
        finally:
            torch.set_num_threads(before)
        yield pool
