"""Compiled inner loop of the scale search on grids whose levels are those of a table."""

from __future__ import annotations

import numpy as np
from numba import njit

from yaqa_runner.grids.levels_kernel import level_of, nearest_code


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
def table_errors(weight, importance, group, scales, table):  # type: ignore[no-untyped-def]
    """Weighted squared error of every candidate, float32 ``[out, groups, candidates]``.

    ``weight`` ``[out, in]``, ``importance`` ``[in]``, ``scales`` ``[out, groups, candidates]``, ``table`` rising.
    """
    rows, columns = weight.shape
    groups, candidates = scales.shape[1], scales.shape[2]
    errors = np.empty((rows, groups, candidates), dtype=np.float32)
    for row in range(rows):
        for index in range(groups):
            start = index * group
            values = weight[row, start : min(start + group, columns)]
            weights = importance[start : min(start + group, columns)]
            for candidate in range(candidates):
                scale = scales[row, index, candidate]
                inverse = np.float32(0.0) if scale == 0 else np.float32(1.0) / scale
                total = np.float32(0.0)
                for k in range(values.shape[0]):
                    code = nearest_code(values[k] * inverse, np.float32(0.0), np.float32(0.0), table)
                    error = values[k] - scale * level_of(code, table)
                    total += weights[k] * error * error
                errors[row, index, candidate] = total
    return errors
