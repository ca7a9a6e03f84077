"""Compiled inner loops of the rounding onto codebooks on the CPU: a word's columns at a time, row by row.

Stored as in ``numba_tiles``, transposed. A tile is whole words wide.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from yaqa_runner.grids.words_kernel import nearest_words, words_scratch
from yaqa_runner.grids.words_search_kernel import LARGEST_SUB_SCALE
from yaqa_runner.rounding.kernels.numba_tiles import REFINE_MARGIN

SUPER_BLOCK_COLUMNS = 256
"""Columns that share ``d``."""

# As in numba_tiles.
_FAST = {"contract", "nsz", "reassoc"}


@njit(cache=True, nogil=True, fastmath=_FAST)
def round_words_tile(  # type: ignore[no-untyped-def]
    feedback,
    lower_input,
    pivots,
    lower_output,
    scale,
    group,
    width,
    table,
    trie,
    even_signs,
    two_sided,
    row_start,
    row_stop,
    column_start,
    column_stop,
    error,
    fed,
    codes,
):
    """Round one tile in place: ``numba_tiles.round_tile`` with ``width`` columns of a row at once.

    Of a row's terms ``d_j (L_Oᵀ E L_I)_ij²`` of the proxy, those of the columns of a word are all that its codes
    settle, given what was rounded before. The word is the one whose terms add up to the least.

    Long, since choosing, carrying over to the rows above and keeping ``G`` are one loop.

    Args:
        feedback: ``F + C`` of the tile, ``[columns, rows]`` of the tile. One-sided: ``F`` alone.
        lower_input: ``L_I`` ``[in, in]``.
        pivots: ``D_I`` ``[in]``.
        lower_output: ``L_O`` ``[out, out]``; unused when one-sided.
        scale: ``[groups, out]``.
        group: Columns a group, whole words.
        width, table, trie, even_signs: See ``Codebook``.
        two_sided: Whether ``L_O`` is used and ``fed`` is written.
        row_start, row_stop, column_start, column_stop: The tile.
        error, fed, codes: As of ``round_tile``.
    """
    rows = row_stop - row_start
    base = np.empty((width, rows), dtype=np.float32)
    inner = np.empty((width, rows), dtype=np.float32)
    target = np.empty(width, dtype=np.float32)
    exact = np.empty(width, dtype=np.float32)
    back = np.empty(width, dtype=np.float32)
    chosen = np.empty(width, dtype=np.int64)
    scratch = words_scratch(width)
    for first in range(column_stop - width, column_start - 1, -width):
        step = scale[first // group, row_start:row_stop]
        own = lower_input[first : first + width, first : first + width]
        for k in range(width):
            current = error[first + k, row_start:row_stop]
            waiting = feedback[first + k - column_start]
            for i in range(rows):
                inner[k, i] = np.float32(0.0)
            for later in range(first + width, column_stop):
                factor = lower_input[later, first + k]
                past = error[later, row_start:row_stop]
                for i in range(rows):
                    inner[k, i] += factor * past[i]
            for i in range(rows):
                base[k, i] = current[i] + waiting[i] + inner[k, i]
        for i in range(rows - 1, -1, -1):
            inverse = np.float32(0.0) if step[i] == 0 else np.float32(1.0) / step[i]
            for k in range(width):
                target[k] = base[k, i] * inverse
                exact[k] = error[first + k, row_start + i] * inverse
            nearest_words(
                target,
                exact,
                own,
                pivots[first : first + width],
                table,
                trie,
                even_signs,
                np.float32(np.inf),
                scratch,
                chosen,
            )
            for k in range(width):
                error[first + k, row_start + i] -= step[i] * table[chosen[k]]
                codes[first + k, row_start + i] = chosen[k]
            if not two_sided:
                continue
            for k in range(width):
                back[k] = fed[first + k, row_start + i] + inner[k, i]
                back[k] += error[first + k, row_start + i]
                for later in range(k + 1, width):
                    back[k] += error[first + later, row_start + i] * own[later, k]
                fed[first + k, row_start + i] = back[k]
            link = lower_output[row_start + i, row_start : row_start + i]
            for k in range(width):
                above = base[k]
                for other in range(i):
                    above[other] += link[other] * back[k]


@njit(cache=True, nogil=True)
def _unit_lower(matrix):  # type: ignore[no-untyped-def]
    """``L`` and ``D`` of a small positive definite ``L D Lᵀ``; float32, worked out in float64."""
    size = matrix.shape[0]
    lower = np.zeros((size, size), dtype=np.float64)
    pivots = np.zeros(size, dtype=np.float64)
    for j in range(size):
        pivots[j] = matrix[j, j]
        for k in range(j):
            pivots[j] -= lower[j, k] * lower[j, k] * pivots[k]
        # Positive but for rounding of the factor's own float32.
        pivots[j] = max(pivots[j], 1e-7 * matrix[j, j])
        lower[j, j] = 1.0
        for i in range(j + 1, size):
            value = np.float64(matrix[i, j])
            for k in range(j):
                value -= lower[i, k] * lower[j, k] * pivots[k]
            lower[i, j] = value / pivots[j]
    return lower, pivots


@njit(cache=True, nogil=True)
def _solve(lower, pivots, values):  # type: ignore[no-untyped-def]
    """Solve ``L D Lᵀ x = values`` in place."""
    size = pivots.shape[0]
    for j in range(size):
        for k in range(j):
            values[j] -= lower[j, k] * values[k]
    for j in range(size - 1, -1, -1):
        values[j] /= pivots[j]
        for k in range(j + 1, size):
            values[j] -= lower[k, j] * values[k]


@njit(cache=True, nogil=True)
def _words_under(  # type: ignore[no-untyped-def]
    target, lower, pivots, step, width, table, trie, even_signs, limit, scratch, place, chosen
):
    """Words for some neighbouring columns under the scale ``step``, the last first: each feeds those before it.

    Args:
        target: Where the weights would best be, ``[span]``, whole words.
        lower, pivots: Of their metric, ``[span, span]`` and ``[span]``.
        limit: Of ``Σ_j pivots_j ((target − x) lower)_j²``.
        place: ``[2, width]`` to work in.
        chosen: ``[span]``, written; complete where the sum is below ``limit``.

    Returns:
        The sum, or ``limit``.
    """
    base, exact = place
    inverse = np.float32(1.0) / step
    total = np.float32(0.0)
    span = target.shape[0]
    for first in range(span - width, -1, -width):
        for k in range(width):
            fed = target[first + k]
            for later in range(first + width, span):
                fed += (target[later] - step * table[chosen[later]]) * lower[later, first + k]
            base[k] = fed * inverse
            exact[k] = target[first + k] * inverse
        left = (limit - total) * inverse * inverse
        own = lower[first : first + width, first : first + width]
        here = chosen[first : first + width]
        cost = nearest_words(
            base, exact, own, pivots[first : first + width], table, trie, even_signs, left, scratch, here
        )
        if not cost < left:
            return limit
        total += cost * step * step
    return total


@njit(cache=True, nogil=True, fastmath=_FAST)
def refine_words_tile(  # type: ignore[no-untyped-def]
    gradient,
    product,
    hessian_input,
    hessian_output,
    scale,
    group,
    super_scale,
    sub_scale,
    span,
    width,
    table,
    trie,
    even_signs,
    least_gap,
    two_sided,
    row_start,
    row_stop,
    column_start,
    column_stop,
    error,
    codes,
):
    """One sweep of coordinate descent over a tile, in place, ``span`` columns a turn; returns how often one changed.

    With ``g`` the columns' part of ``H_O E H_I``, their best error is ``e − (H_I,JJ)⁻¹ g / H_O,ii``, and what another
    costs beyond that is measured by ``H_I,JJ``, their own block.

    Long, since each word that changes is felt by the sums of the next one, as in ``numba_tiles.refine_tile``.

    Args:
        gradient, product, hessian_input, hessian_output: As of ``refine_tile``.
        scale: ``[groups, out]``; written where sub-scales change.
        group: Columns a group.
        super_scale: ``d`` ``[blocks, out]``.
        sub_scale: ``[groups, out]`` odd whole numbers: the next smaller and larger are tried too, and ``span`` is a
            group. ``None``: scales stay, and ``span`` is ``width``.
        span: Columns a turn.
        width, table, trie, even_signs: As of ``round_words_tile``.
        least_gap: Distance of the nearest levels.
        two_sided: Whether ``H_O`` is used.
        row_start, row_stop, column_start, column_stop: The tile.
        error, codes: ``[in, out]``, updated.
    """
    rows = row_stop - row_start
    changes = np.empty((span, rows), dtype=np.float32)
    slope = np.empty((span, rows), dtype=np.float32)
    wish = np.empty(span, dtype=np.float64)
    target = np.empty(span, dtype=np.float32)
    push = np.empty(span, dtype=np.float32)
    place = np.empty((2, width), dtype=np.float32)
    chosen = np.empty(span, dtype=np.int64)
    best = np.empty(span, dtype=np.int64)
    scratch = words_scratch(width)
    changed = 0
    for first in range(column_stop - span, column_start - 1, -span):
        step = scale[first // group, row_start:row_stop]
        here = first - column_start
        block = hessian_input[here : here + span, here : here + span]
        lower64, pivots64 = _unit_lower(block)
        lower, pivots = lower64.astype(np.float32), pivots64.astype(np.float32)
        margin = REFINE_MARGIN * least_gap * np.sqrt(pivots64.max())
        any_change = False
        changes[:] = np.float32(0.0)
        for i in range(rows - 1, -1, -1):
            curvature = hessian_output[i, i] if two_sided else np.float32(1.0)
            if step[i] == 0 or not curvature > 0:
                continue
            for k in range(span):
                wish[k] = gradient[here + k, i] / curvature
            _solve(lower64, pivots64, wish)
            # Where the weights would best be, and what the present ones cost beyond that.
            cost = 0.0
            for k in range(span):
                target[k] = step[i] * table[codes[first + k, row_start + i]] + wish[k]
                away = wish[k]
                for later in range(k + 1, span):
                    away += wish[later] * lower64[later, k]
                cost += pivots64[k] * away * away
            # Without the margin, words of nearly equal merit would swap by the rounding of the sums, for ever.
            limit = np.float32(max(0.0, np.sqrt(cost) - margin * step[i]) ** 2)
            best_step = np.float32(0.0)
            if sub_scale is None:
                found = _words_under(
                    target, lower, pivots, step[i], width, table, trie, even_signs, limit, scratch, place, best
                )
                if found < limit:
                    best_step = step[i]
            else:
                number = sub_scale[first // group, row_start + i]
                best_number = number
                for turn in range(3):
                    near = number + 2 * (turn if turn < 2 else -1)
                    if near < 1 or near > LARGEST_SUB_SCALE:
                        continue
                    trial = super_scale[first // SUPER_BLOCK_COLUMNS, row_start + i] * np.float32(near)
                    found = _words_under(
                        target, lower, pivots, trial, width, table, trie, even_signs, limit, scratch, place, chosen
                    )
                    if found < limit:
                        limit = found
                        best_step = trial
                        best_number = near
                        best[:] = chosen
                sub_scale[first // group, row_start + i] = best_number
            if best_step == 0:
                continue
            moved = False
            for k in range(span):
                change = step[i] * table[codes[first + k, row_start + i]] - best_step * table[best[k]]
                error[first + k, row_start + i] += change
                codes[first + k, row_start + i] = best[k]
                changes[k, i] = change
                moved = moved or change != 0
            step[i] = best_step
            if not moved:
                continue
            any_change = True
            changed += 1
            if two_sided:
                link = hessian_output[i]
                for k in range(span):
                    push[k] = np.float32(0.0)
                    for other in range(span):
                        push[k] += block[k, other] * changes[other, i]
                    pull = gradient[here + k]
                    for other in range(i):
                        pull[other] += link[other] * push[k]
        if not any_change:
            continue
        if two_sided:
            slope[:] = np.float32(0.0)
            for i in range(rows):
                link = hessian_output[i]
                for k in range(span):
                    size = changes[k, i]
                    if size != 0:
                        for other in range(rows):
                            slope[k, other] += link[other] * size
        for k in range(span):
            for other in range(product.shape[0]):
                factor = hessian_input[here + k, other]
                touched = product[other, row_start:row_stop]
                for i in range(rows):
                    touched[i] += factor * changes[k, i]
                if other < here:
                    ahead = gradient[other]
                    if two_sided:
                        for i in range(rows):
                            ahead[i] += factor * slope[k, i]
                    else:
                        for i in range(rows):
                            ahead[i] += factor * changes[k, i]
    return changed
