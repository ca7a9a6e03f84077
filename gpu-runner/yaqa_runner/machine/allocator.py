"""The C library's allocator, set to hand memory back to the system; without effect outside glibc."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable

_M_MMAP_THRESHOLD = -3
_LARGE_BYTES = 4 * 1024 * 1024
_WORTHWHILE_ELEMENTS = 1 << 18


def give_large_blocks_back() -> None:
    """Blocks of 4 MiB and more come from the system and go back to it as soon as they are free.

    By itself glibc raises that bound to 32 MiB as blocks are freed, and keeps what lies below it, for every thread
    apart: the rounding stage's peak was measured twice as high. Below 1 MiB, new pages took a third of the time.
    """
    mallopt = _glibc("mallopt")
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)


def give_small_blocks_back(worked_on: int) -> None:
    """What is free of all else goes back once, after work on a matrix of ``worked_on`` elements: some milliseconds.

    Blocks of a few hundred rows leave several times as much behind as they ever took at once.
    """
    trim = _glibc("malloc_trim") if worked_on >= _WORTHWHILE_ELEMENTS else None
    if trim is not None:
        trim(0)


def _glibc(name: str) -> Callable[..., int] | None:
    if not sys.platform.startswith("linux"):
        return None
    function: Callable[..., int] | None = getattr(ctypes.CDLL(None), name, None)
    return function
