"""Compiled choice of a word of a codebook: the codes of neighbouring columns, which a file stores as one number."""

from __future__ import annotations

import numpy as np
from numba import njit

MOST_VISITS = 1 << 14
"""Levels looked at for one choice before the best word found so far is taken: targets far outside the codebook would
have nearly all of it looked at. Never fewer than a first word takes."""


@njit(cache=True, nogil=True)
def words_scratch(width):  # type: ignore[no-untyped-def]
    """What :func:`nearest_words` works in, for ``width`` columns: made once, used for any number of choices."""
    return np.empty((4, width), dtype=np.float32), np.empty((5, width), dtype=np.int64)


@njit(cache=True, nogil=True)
def nearest_words(  # type: ignore[no-untyped-def]
    base, exact, lower, pivots, table, trie, even_signs, limit, scratch, chosen
):
    """Codes of least ``Σ_j pivots_j r_j²``, ``r_j = base_j + Σ_{b>j} (exact_b − x_b) lower_bj − x_j``, ``x`` levels.

    A search of the codebook's tree in depth, from the last column to the first: at each the nearest level comes first,
    and where the sum so far is no less than the best found, all further ones are left out with what follows them
    (Schnorr and Euchner's sphere decoding). Exact, but for ``MOST_VISITS``.

    Long, since a step down and a step back change the same few numbers of a column.

    Args:
        base: ``[width]``, in steps of the scale.
        exact: ``[width]``, likewise; equal to ``base`` where nothing is fed back from elsewhere.
        lower: ``[width, width]``, of which the strict lower triangle counts.
        pivots: ``[width]``, positive.
        table: Levels of the codes, rising; the lower half are the upper half's negatives.
        trie: See ``Codebook.trie``.
        even_signs: Whether the number of negative levels has to be even.
        limit: Sum that has to be fallen below.
        scratch: Of :func:`words_scratch`.
        chosen: ``[width]`` whole numbers, written where a sum below ``limit`` was found.

    Returns:
        The least sum; ``limit`` where there is none below it.
    """
    width = base.shape[0]
    levels = table.shape[0]
    half = levels // 2
    place, error, spent, _ = scratch[0]
    below, above, node, minus, code = scratch[1]
    best = limit
    found = False
    visits = 0
    column = width - 1
    node[column] = 0
    minus[column] = 0
    spent[column] = np.float32(0.0)
    place[column] = base[column]
    start = True
    while True:
        if start:
            position = place[column]
            next_above = 0
            while next_above < levels and table[next_above] < position:
                next_above += 1
            above[column] = next_above
            below[column] = next_above - 1
            start = False
        down = below[column]
        up = above[column]
        if down >= 0 and (up >= levels or place[column] - table[down] <= table[up] - place[column]):
            index = down
            below[column] = down - 1
        elif up < levels:
            index = up
            above[column] = up + 1
        else:
            column += 1
            if column == width:
                break
            continue
        distance = place[column] - table[index]
        total = spent[column] + pivots[column] * distance * distance
        visits += 1
        if not total < best or (found and visits > MOST_VISITS):
            column += 1
            if column == width:
                break
            continue
        is_minus = index < half
        following = trie[node[column], half - 1 - index if is_minus else index - half]
        if following < 0:
            continue
        signs = minus[column] + (1 if is_minus else 0)
        code[column] = index
        if column > 0:
            error[column] = exact[column] - table[index]
            column -= 1
            node[column] = following
            minus[column] = signs
            spent[column] = total
            position = base[column]
            for later in range(column + 1, width):
                position += error[later] * lower[later, column]
            place[column] = position
            start = True
            continue
        if even_signs and signs % 2 == 1:
            continue
        best = total
        found = True
        for one in range(width):
            chosen[one] = code[one]
        column += 1
        if column == width:
            break
    return best


@njit(cache=True, nogil=True)
def nearest_word_codes(positions, width, table, trie, even_signs):  # type: ignore[no-untyped-def]
    """Codes int16 ``[out, in]`` of the words nearest to ``positions``, in steps of the scale, all columns alike."""
    rows, columns = positions.shape
    codes = np.empty((rows, columns), dtype=np.int16)
    lower = np.zeros((width, width), dtype=np.float32)
    pivots = np.ones(width, dtype=np.float32)
    scratch = words_scratch(width)
    chosen = np.empty(width, dtype=np.int64)
    for row in range(rows):
        for first in range(0, columns, width):
            place = positions[row, first : first + width]
            nearest_words(place, place, lower, pivots, table, trie, even_signs, np.float32(np.inf), scratch, chosen)
            for one in range(width):
                codes[row, first + one] = chosen[one]
    return codes
