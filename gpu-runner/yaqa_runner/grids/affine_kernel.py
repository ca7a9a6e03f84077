"""Compiled inner loops of the scale search."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
def affine_errors(weight, importance, group, scales, zeros, minimum, maximum):  # type: ignore[no-untyped-def]
    """Weighted squared error of every candidate, float32 ``[out, groups, candidates]``.

    ``weight`` ``[out, in]``, ``importance`` ``[in]``, ``scales`` and ``zeros`` ``[out, groups, candidates]``.
    """
    rows, columns = weight.shape
    groups, candidates = scales.shape[1], scales.shape[2]
    errors = np.empty((rows, groups, candidates), dtype=np.float32)
    low = np.float32(minimum)
    high = np.float32(maximum)
    for row in range(rows):
        for index in range(groups):
            start = index * group
            values = weight[row, start : min(start + group, columns)]
            weights = importance[start : min(start + group, columns)]
            for candidate in range(candidates):
                scale = scales[row, index, candidate]
                zero = zeros[row, index, candidate]
                inverse = np.float32(0.0) if scale == 0 else np.float32(1.0) / scale
                total = np.float32(0.0)
                for k in range(values.shape[0]):
                    code = np.rint(values[k] * inverse + zero)
                    code = max(low, min(high, code))
                    error = values[k] - scale * (code - zero)
                    total += weights[k] * error * error
                errors[row, index, candidate] = total
    return errors


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
def least_squares_scales(weight, importance, group, scale, zero, minimum, maximum):  # type: ignore[no-untyped-def]
    """Scale of least weighted squared error for the codes nearest under ``scale``, float32 ``[out, groups]``.

    A group whose codes are all at the zero point keeps its scale.
    """
    rows, columns = weight.shape
    groups = scale.shape[1]
    fitted = np.empty((rows, groups), dtype=np.float32)
    low = np.float32(minimum)
    high = np.float32(maximum)
    for row in range(rows):
        for index in range(groups):
            start = index * group
            values = weight[row, start : min(start + group, columns)]
            weights = importance[start : min(start + group, columns)]
            current = scale[row, index]
            middle = zero[row, index]
            inverse = np.float32(0.0) if current == 0 else np.float32(1.0) / current
            cross = np.float32(0.0)
            square = np.float32(0.0)
            for k in range(values.shape[0]):
                code = np.rint(values[k] * inverse + middle)
                code = max(low, min(high, code)) - middle
                cross += weights[k] * values[k] * code
                square += weights[k] * code * code
            fitted[row, index] = cross / square if square > 0 else current
    return fitted
