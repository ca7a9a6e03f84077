"""Compiled rounding to float16."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

_LARGEST = 65504.0
_SMALLEST_NORMAL = 2.0**-14
_SUBNORMAL_STEP = 2.0**-24


@njit(cache=True, nogil=True)
def to_half(value):  # type: ignore[no-untyped-def]
    """``value`` rounded to float16, ties to even, finite."""
    if value == 0.0 or not math.isfinite(value):
        return np.float32(0.0)
    _, exponent = math.frexp(value)
    quantum = math.ldexp(1.0, max(exponent - 11, -24))
    rounded = np.rint(value / quantum) * quantum
    return np.float32(max(-_LARGEST, min(_LARGEST, rounded)))


@njit(cache=True, nogil=True)
def to_half_reaching(value):  # type: ignore[no-untyped-def]
    """``value`` in float16; away from 0 where subnormal: rounding down there can halve it and clip all."""
    rounded = to_half(value)
    if abs(value) < _SMALLEST_NORMAL and abs(rounded) < abs(value):
        return rounded + np.float32(math.copysign(_SUBNORMAL_STEP, value))
    return rounded
