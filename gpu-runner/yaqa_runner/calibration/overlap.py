"""Overlap between splits: windows that repeat text of a held-out split are found by hashed n-grams."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

# Long enough that ordinary phrases do not meet, short enough to see a passage cut at another offset.
GRAM_TOKENS = 16
# Licences and headers repeat between honest texts; a window is only dropped when much of it is held out.
MAXIMUM_SHARE = 0.25
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def gram_hashes(window: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    """Polynomial hashes modulo 2^64 of every ``GRAM_TOKENS``-gram of a window (one hash of a shorter window)."""
    size = min(GRAM_TOKENS, len(window))
    count = len(window) - size + 1
    hashes = np.zeros(count, dtype=np.uint64)
    values = window.astype(np.uint64) + np.uint64(1)
    with np.errstate(over="ignore"):
        for offset in range(size):
            hashes = hashes * _MULTIPLIER + values[offset : offset + count]
    return hashes


class HeldOut:
    """The n-grams of windows that later splits must not repeat."""

    def __init__(self) -> None:
        self._hashes: npt.NDArray[np.uint64] = np.zeros(0, dtype=np.uint64)

    def add(self, windows: npt.NDArray[np.int64]) -> None:
        """Hold out ``windows`` int64 ``[count, length]``."""
        fresh = [gram_hashes(window) for window in windows]
        self._hashes = np.unique(np.concatenate([self._hashes, *fresh]))

    def share(self, window: npt.NDArray[np.int64]) -> float:
        """Share of the window's n-grams that are held out, 0 to 1."""
        if len(self._hashes) == 0:
            return 0.0
        return float(np.isin(gram_hashes(window), self._hashes).mean())
