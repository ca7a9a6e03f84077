"""Compiled search of super-block scales: half-precision ``d`` and ``dmin`` over small whole sub-scales."""

from __future__ import annotations

import numpy as np
from numba import njit

from yaqa_runner.grids.half_kernel import to_half, to_half_reaching
from yaqa_runner.grids.levels_kernel import level_of, nearest_code

_FAST = {"reassoc", "contract", "nsz"}


@njit(cache=True, nogil=True, fastmath=_FAST)
def _sub_error(values, weights, scale, minimum, low, high, table):  # type: ignore[no-untyped-def]
    inverse = np.float32(0.0) if scale == 0 else np.float32(1.0) / scale
    total = np.float32(0.0)
    for k in range(values.shape[0]):
        code = level_of(nearest_code((values[k] + minimum) * inverse, low, high, table), table)
        error = values[k] + minimum - scale * code
        total += weights[k] * error * error
    return total


@njit(cache=True, nogil=True, fastmath=_FAST)
def _sub_sums(values, weights, scale, minimum, low, high, table):  # type: ignore[no-untyped-def]
    """Weighted sums over the codes under ``scale`` and ``minimum``: 1, x, q, q², qx."""
    inverse = np.float32(0.0) if scale == 0 else np.float32(1.0) / scale
    s_w = s_x = s_q = s_qq = s_qx = np.float32(0.0)
    for k in range(values.shape[0]):
        code = level_of(nearest_code((values[k] + minimum) * inverse, low, high, table), table)
        s_w += weights[k]
        s_x += weights[k] * values[k]
        s_q += weights[k] * code
        s_qq += weights[k] * code * code
        s_qx += weights[k] * code * values[k]
    return s_w, s_x, s_q, s_qq, s_qx


@njit(cache=True, nogil=True)
def _fit_sub(values, weights, low, high, table, with_minimum, ratios):  # type: ignore[no-untyped-def]
    """Best real scale and minimum of one sub-block; ``value = scale * code − minimum``, ``minimum ≥ 0``."""
    smallest = np.float32(0.0)
    largest = np.float32(0.0)
    for k in range(values.shape[0]):
        smallest = min(smallest, values[k])
        largest = max(largest, values[k])
    best_scale = np.float32(0.0)
    best_minimum = np.float32(0.0)
    best_error = np.float32(np.inf)
    if smallest == 0 and largest == 0:
        return best_scale, best_minimum
    for index in range(ratios.shape[0]):
        for side in range(1 if with_minimum else 2):
            if with_minimum:
                scale = (largest - smallest) * ratios[index] / high
                minimum = -smallest * ratios[index]
            else:
                # Either sign of the scale: the range has one code more below zero than above.
                positive = max(largest / high, smallest / low)
                negative = max(largest / -low, -smallest / high)
                scale = positive * ratios[index] if side == 0 else -negative * ratios[index]
                minimum = np.float32(0.0)
            for step in range(2):
                error = _sub_error(values, weights, scale, minimum, low, high, table)
                if error < best_error:
                    best_error = error
                    best_scale = scale
                    best_minimum = minimum
                elif step > 0:
                    break
                s_w, s_x, s_q, s_qq, s_qx = _sub_sums(values, weights, scale, minimum, low, high, table)
                if with_minimum:
                    determinant = s_w * s_qq - s_q * s_q
                    if not determinant > 0:
                        break
                    scale = (s_w * s_qx - s_q * s_x) / determinant
                    minimum = -(s_qq * s_x - s_q * s_qx) / determinant
                    if minimum < 0:
                        minimum = np.float32(0.0)
                        scale = s_qx / s_qq
                    if not scale > 0:
                        break
                else:
                    if not s_qq > 0:
                        break
                    scale = s_qx / s_qq
    return best_scale, best_minimum


@njit(cache=True, nogil=True)
def search_super_blocks(  # type: ignore[no-untyped-def]
    weight, importance, block_columns, width, low, high, table, sub_low, sub_high, minimum_high, ratios, rounds
):
    """Scales of every block, as it stores them.

    Long, since sub-scales and super-scales are searched in turn over scratch arrays that all blocks share: a function
    for each step would take a dozen arguments.

    Args:
        weight: ``[out, in]`` float32, ``in`` a multiple of ``block_columns``.
        importance: ``[in]`` float32, positive.
        block_columns: Columns that share ``d``.
        width: Columns of a sub-block.
        low, high: Range of the levels.
        table: The levels, or ``None``: all whole numbers of the range.
        sub_low, sub_high: Range of the sub-scales.
        minimum_high: Largest sub-minimum; 0 for a type without minima.
        ratios: Clip ratios to try.
        rounds: Alternations between sub-scales and super-scales.

    Returns:
        ``d`` and ``dmin`` float32 ``[out, blocks]`` exact in float16; ``sc`` and ``mn`` int16 ``[out, subs]``.
    """
    rows, columns = weight.shape
    blocks = columns // block_columns
    subs = block_columns // width
    with_minimum = minimum_high > 0
    lowest = np.float32(low)
    highest = np.float32(high)
    d = np.zeros((rows, blocks), dtype=np.float32)
    dmin = np.zeros((rows, blocks), dtype=np.float32)
    sc = np.zeros((rows, blocks * subs), dtype=np.int16)
    mn = np.zeros((rows, blocks * subs), dtype=np.int16)
    scales = np.empty(subs, dtype=np.float32)
    minima = np.empty(subs, dtype=np.float32)
    best_sc = np.empty(subs, dtype=np.int64)
    best_mn = np.empty(subs, dtype=np.int64)
    trial_sc = np.empty(subs, dtype=np.int64)
    trial_mn = np.empty(subs, dtype=np.int64)
    for row in range(rows):
        for block in range(blocks):
            start = block * block_columns
            largest_scale = np.float32(0.0)
            signed_scale = np.float32(0.0)
            largest_minimum = np.float32(0.0)
            for sub in range(subs):
                first = start + sub * width
                scale, minimum = _fit_sub(
                    weight[row, first : first + width],
                    importance[first : first + width],
                    lowest,
                    highest,
                    table,
                    with_minimum,
                    ratios,
                )
                scales[sub] = scale
                minima[sub] = minimum
                if abs(scale) > largest_scale:
                    largest_scale = abs(scale)
                    signed_scale = scale
                largest_minimum = max(largest_minimum, minimum)
            if largest_scale == 0 and largest_minimum == 0:
                continue
            best_error = float(np.inf)
            best_d = best_dmin = np.float32(0.0)
            super_scale = to_half_reaching(signed_scale / sub_low if sub_low < 0 else signed_scale / sub_high)
            super_minimum = to_half_reaching(largest_minimum / minimum_high) if with_minimum else np.float32(0.0)
            for turn in range(rounds):
                total = 0.0
                for sub in range(subs):
                    first = start + sub * width
                    values = weight[row, first : first + width]
                    weights = importance[first : first + width]
                    if turn == 0:
                        middle_sc = 0 if super_scale == 0 else int(np.rint(scales[sub] / super_scale))
                        middle_mn = 0 if super_minimum == 0 else int(np.rint(minima[sub] / super_minimum))
                    else:
                        middle_sc = best_sc[sub]
                        middle_mn = best_mn[sub]
                    chosen = np.float32(np.inf)
                    for step in range(-1, 2):
                        near_sc = max(sub_low, min(sub_high, middle_sc + step))
                        for lift in range(-1 if with_minimum else 0, 2 if with_minimum else 1):
                            near_mn = max(0, min(minimum_high, middle_mn + lift))
                            error = _sub_error(
                                values,
                                weights,
                                super_scale * np.float32(near_sc),
                                super_minimum * np.float32(near_mn),
                                lowest,
                                highest,
                                table,
                            )
                            if error < chosen:
                                chosen = error
                                trial_sc[sub] = near_sc
                                trial_mn[sub] = near_mn
                    total += float(chosen)
                if not total < best_error:
                    break
                best_error = total
                best_d = super_scale
                best_dmin = super_minimum
                best_sc[:] = trial_sc
                best_mn[:] = trial_mn
                # Least squares of d and dmin under the codes that these scales give.
                a_dd = a_dm = a_mm = b_d = b_m = 0.0
                for sub in range(subs):
                    first = start + sub * width
                    near_sc = best_sc[sub]
                    near_mn = best_mn[sub]
                    s_w, s_x, s_q, s_qq, s_qx = _sub_sums(
                        weight[row, first : first + width],
                        importance[first : first + width],
                        super_scale * np.float32(near_sc),
                        super_minimum * np.float32(near_mn),
                        lowest,
                        highest,
                        table,
                    )
                    a_dd += float(s_qq) * near_sc * near_sc
                    a_dm -= float(s_q) * near_sc * near_mn
                    a_mm += float(s_w) * near_mn * near_mn
                    b_d += float(s_qx) * near_sc
                    b_m -= float(s_x) * near_mn
                if with_minimum and a_mm > 0:
                    determinant = a_dd * a_mm - a_dm * a_dm
                    if not determinant > 1e-9 * a_dd * a_mm:
                        break
                    super_scale = to_half((b_d * a_mm - b_m * a_dm) / determinant)
                    super_minimum = to_half(max(0.0, (a_dd * b_m - a_dm * b_d) / determinant))
                elif a_dd > 0:
                    super_scale = to_half(b_d / a_dd)
                else:
                    break
            if best_error < np.inf:
                d[row, block] = best_d
                dmin[row, block] = best_dmin
                for sub in range(subs):
                    sc[row, block * subs + sub] = best_sc[sub]
                    mn[row, block * subs + sub] = best_mn[sub]
    return d, dmin, sc, mn
