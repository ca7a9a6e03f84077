"""Compiled inner loops of the rounding on the CPU.

Everything is stored transposed, ``[in, out]``: the loops walk down the outputs of one input column, which are then
contiguous. Matrix products outside the tile are left to the caller's BLAS.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from yaqa_runner.grids.levels_kernel import level_of, nearest_code

REFINE_MARGIN = 1e-3
"""A code changes only where it gets nearer to the best value by this share of a step."""

# Sums may be reassociated (that is what lets them use vector units); NaN and infinity keep their meaning.
_FAST = {"contract", "nsz", "reassoc"}


@njit(cache=True, nogil=True, fastmath=_FAST)
def round_tile(  # type: ignore[no-untyped-def]
    feedback,
    lower_input,
    lower_output,
    scale,
    offset,
    group,
    minimum,
    maximum,
    table,
    two_sided,
    row_start,
    row_stop,
    column_start,
    column_stop,
    error,
    fed,
    codes,
):
    """Round one tile in place (algorithm of GPTQ-2D, arXiv 2607.27042).

    Args:
        feedback: ``F + C`` of the tile, ``[columns, rows]`` of the tile. One-sided: ``F`` alone.
        lower_input: ``L_I`` ``[in, in]``.
        lower_output: ``L_O`` ``[out, out]``; unused when one-sided.
        scale, offset: ``[groups, out]``.
        group: Columns a group.
        minimum, maximum: Range of the codes.
        table: Their levels, or ``None``: the codes themselves.
        two_sided: Whether ``L_O`` is used and ``fed`` is written.
        row_start, row_stop, column_start, column_stop: The tile.
        error: ``[in, out]`` float32. On entry the weight in the tile, ``E`` after it; on return ``E`` in the tile too.
        fed: On entry ``F`` in the tile when two-sided, on return ``G = E L_I``; ``[in, out]``.
        codes: ``[in, out]`` int16, written in the tile.
    """
    rows = row_stop - row_start
    base = np.empty(rows, dtype=np.float32)
    inner = np.empty(rows, dtype=np.float32)
    low = np.float32(minimum)
    high = np.float32(maximum)
    for column in range(column_stop - 1, column_start - 1, -1):
        step = scale[column // group, row_start:row_stop]
        shift = offset[column // group, row_start:row_stop]
        current = error[column, row_start:row_stop]
        written = codes[column, row_start:row_stop]
        for i in range(rows):
            inner[i] = np.float32(0.0)
        for later in range(column + 1, column_stop):
            factor = lower_input[later, column]
            past = error[later, row_start:row_stop]
            for i in range(rows):
                inner[i] += factor * past[i]
        waiting = feedback[column - column_start]
        for i in range(rows):
            base[i] = current[i] + waiting[i] + inner[i]
        if two_sided:
            total = fed[column, row_start:row_stop]
            for i in range(rows - 1, -1, -1):
                code = np.float32(0.0) if step[i] == 0 else (base[i] - shift[i]) / step[i]
                code = nearest_code(code, low, high, table)
                difference = current[i] - (step[i] * level_of(code, table) + shift[i])
                current[i] = difference
                written[i] = np.int16(code)
                back = total[i] + inner[i] + difference
                total[i] = back
                link = lower_output[row_start + i, row_start : row_start + i]
                for k in range(i):
                    base[k] += link[k] * back
        else:
            for i in range(rows):
                code = np.float32(0.0) if step[i] == 0 else (base[i] - shift[i]) / step[i]
                code = nearest_code(code, low, high, table)
                current[i] -= step[i] * level_of(code, table) + shift[i]
                written[i] = np.int16(code)


@njit(cache=True, nogil=True, fastmath=_FAST)
def refine_tile(  # type: ignore[no-untyped-def]
    gradient,
    product,
    hessian_input,
    hessian_output,
    scale,
    offset,
    group,
    minimum,
    maximum,
    table,
    least_gap,
    two_sided,
    row_start,
    row_stop,
    column_start,
    column_stop,
    error,
    codes,
):
    """One sweep of coordinate descent over a tile, in place; returns the number of codes changed.

    Long, since each code that changes is felt by the sums of the next one: choosing and carrying over are one loop.

    Args:
        gradient: ``(H_O P)ᵀ`` of the tile on entry, ``[columns, rows]`` of the tile; kept up to date here.
            One-sided: ``Pᵀ`` of the tile.
        product: ``Pᵀ = (E H_I)ᵀ`` of the column block, ``[columns of the block, out]``; kept up to date in the block.
        hessian_input: ``H_I`` among the columns of the tile, ``[columns, columns]``, symmetric.
        hessian_output: ``H_O`` among its rows, ``[rows, rows]``, symmetric; unused when one-sided.
        scale, offset, group, minimum, maximum, table: The grid, ``[groups, out]``.
        least_gap: Distance of its nearest levels.
        two_sided: Whether ``H_O`` is used.
        row_start, row_stop, column_start, column_stop: The tile.
        error, codes: ``[in, out]``, updated.
    """
    rows = row_stop - row_start
    low = np.float32(minimum)
    high = np.float32(maximum)
    margin = np.float32(REFINE_MARGIN * least_gap)
    changes = np.empty(rows, dtype=np.float32)
    slope = np.empty(rows, dtype=np.float32)
    changed = 0
    for column in range(column_stop - 1, column_start - 1, -1):
        step = scale[column // group, row_start:row_stop]
        shift = offset[column // group, row_start:row_stop]
        made = error[column, row_start:row_stop]
        written = codes[column, row_start:row_stop]
        pull = gradient[column - column_start]
        own = hessian_input[column - column_start, column - column_start]
        any_change = False
        for i in range(rows - 1, -1, -1):
            changes[i] = np.float32(0.0)
            curvature = own * hessian_output[i, i] if two_sided else own
            if step[i] == 0 or not curvature > 0:
                continue
            current = step[i] * level_of(written[i], table) + shift[i]
            wanted = current + pull[i] / curvature
            code = nearest_code((wanted - shift[i]) / step[i], low, high, table)
            value = step[i] * level_of(code, table) + shift[i]
            # Without the margin, codes of nearly equal merit would swap by the rounding of the sums, for ever.
            gain = abs(current - wanted) - abs(value - wanted)
            if gain > margin * abs(step[i]) and np.int16(code) != written[i]:
                change = current - value
                made[i] += change
                written[i] = np.int16(code)
                changes[i] = change
                any_change = True
                changed += 1
                if two_sided:
                    push = change * own
                    link = hessian_output[i]
                    for k in range(i):
                        pull[k] += link[k] * push
        if not any_change:
            continue
        if two_sided:
            for i in range(rows):
                slope[i] = np.float32(0.0)
            for i in range(rows):
                if changes[i] != 0:
                    link = hessian_output[i]
                    for k in range(rows):
                        slope[k] += link[k] * changes[i]
        for other in range(product.shape[0]):
            factor = hessian_input[column - column_start, other]
            touched = product[other, row_start:row_stop]
            for i in range(rows):
                touched[i] += factor * changes[i]
            if column_start + other < column:
                ahead = gradient[other]
                if two_sided:
                    for i in range(rows):
                        ahead[i] += factor * slope[i]
                else:
                    for i in range(rows):
                        ahead[i] += factor * changes[i]
    return changed
