"""Compiled choice of a level: whole numbers in a range, or the values of a table."""

from __future__ import annotations

import numpy as np
from numba import njit

# A short table is done sooner from end to end than by halves.
_SCANNED_LEVELS = 16


@njit(cache=True, nogil=True)
def nearest_code(position, low, high, table):  # type: ignore[no-untyped-def]
    """The code whose level is nearest to ``position``, float32.

    ``table`` is ``None``, and levels are the whole numbers from ``low`` to ``high``; or it rises, and codes are its
    indices. What it is, is known when a caller is compiled: loops over whole numbers stay as they are without tables.
    """
    if table is None:
        return max(low, min(high, np.rint(position)))
    if table.shape[0] > _SCANNED_LEVELS:
        first, last = 0, table.shape[0] - 1
        while first < last:
            middle = (first + last) // 2
            if position > (table[middle] + table[middle + 1]) * np.float32(0.5):
                first = middle + 1
            else:
                last = middle
        return np.float32(first)
    code = np.float32(0.0)
    for index in range(table.shape[0] - 1):
        if position > (table[index] + table[index + 1]) * np.float32(0.5):
            code += np.float32(1.0)
    return code


@njit(cache=True, nogil=True)
def level_of(code, table):  # type: ignore[no-untyped-def]
    """What ``code`` stands for, in steps of the scale."""
    if table is None:
        return code
    return table[int(code)]
