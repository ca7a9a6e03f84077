"""Compiled search of the scales of codebook types: a half-precision ``d`` over small odd sub-scales."""

from __future__ import annotations

import numpy as np
from numba import njit

from yaqa_runner.grids.half_kernel import to_half, to_half_reaching

LARGEST_SUB_SCALE = 31


@njit(cache=True, nogil=True)
def _search_work(word):  # type: ignore[no-untyped-def]
    """What the search of one word works in, and where it writes levels: made once, used for any number of words."""
    return (
        np.empty(word, dtype=np.float32),
        np.empty((2, word), dtype=np.float32),
        np.empty((5, word), dtype=np.int64),
        np.empty(word, dtype=np.int64),
    )


@njit(cache=True, nogil=True)
def _nearest_magnitudes(weights, magnitudes, trie, work):  # type: ignore[no-untyped-def]
    """The least ``Σ_k weights_k (values_k − magnitude_k)²`` of a word, ``values`` positive and first in ``work``.

    As ``nearest_words`` goes about it. No column feeds another here, so that what the columns still to come cost at
    least is known, which leaves little to look at. Indices of the word's magnitudes are last in ``work``.
    """
    values, (ahead, spent), (nearest, below, above, node, level_of), chosen = work
    word = values.shape[0]
    levels = magnitudes.shape[0]
    least = np.float32(0.0)
    for k in range(word):
        ahead[k] = least
        index = 0
        while index < levels - 1 and values[k] - magnitudes[index] > magnitudes[index + 1] - values[k]:
            index += 1
        nearest[k] = index
        away = values[k] - magnitudes[index]
        least += weights[k] * away * away
    best = np.float32(np.inf)
    column = word - 1
    node[column] = 0
    spent[column] = np.float32(0.0)
    below[column] = nearest[column]
    above[column] = nearest[column] + 1
    while column < word:
        down = below[column]
        up = above[column]
        if down >= 0 and (up >= levels or values[column] - magnitudes[down] <= magnitudes[up] - values[column]):
            index = down
            below[column] = down - 1
        elif up < levels:
            index = up
            above[column] = up + 1
        else:
            column += 1
            continue
        away = values[column] - magnitudes[index]
        total = spent[column] + weights[column] * away * away
        if not total + ahead[column] < best:
            column += 1
            continue
        following = trie[node[column], index]
        if following < 0:
            continue
        level_of[column] = index
        if column > 0:
            column -= 1
            node[column] = following
            spent[column] = total
            below[column] = nearest[column]
            above[column] = nearest[column] + 1
            continue
        best = total
        chosen[:] = level_of
        column += 1
    return best


@njit(cache=True, nogil=True)
def _sub_sums(values, weights, scale, magnitudes, trie, limit, work):  # type: ignore[no-untyped-def]
    """Weighted sums over the words under ``scale``: error², q², qx. Stops early where the error passes ``limit``."""
    place, chosen = work[0], work[3]
    word = place.shape[0]
    inverse = np.float32(1.0) / scale
    error = s_qq = s_qx = np.float32(0.0)
    for first in range(0, values.shape[0], word):
        for k in range(word):
            # Signs as the values have them: where eight of them have to be even, rounding itself sees to that.
            place[k] = abs(values[first + k]) * inverse
        own = weights[first : first + word]
        error += scale * scale * _nearest_magnitudes(own, magnitudes, trie, work)
        if error > limit:
            break
        for k in range(word):
            level = magnitudes[chosen[k]]
            s_qq += own[k] * level * level
            s_qx += own[k] * level * abs(values[first + k])
    return error, s_qq, s_qx


@njit(cache=True, nogil=True)
def _fit_sub(values, weights, ratios, magnitudes, trie, work):  # type: ignore[no-untyped-def]
    """Best real scale of one sub-block."""
    largest = np.float32(0.0)
    squares = np.float32(0.0)
    for k in range(values.shape[0]):
        largest = max(largest, abs(values[k]))
        squares += weights[k] * values[k] * values[k]
    best_scale = np.float32(0.0)
    best_error = np.float32(np.inf)
    if largest == 0:
        return best_scale
    for index in range(ratios.shape[0]):
        scale = largest * ratios[index] / magnitudes[-1]
        if not scale > 0:
            continue
        _, s_qq, s_qx = _sub_sums(values, weights, scale, magnitudes, trie, np.float32(np.inf), work)
        if not s_qx > 0:
            continue
        # That of least squares under these words.
        error = squares - s_qx * s_qx / s_qq
        if error < best_error:
            best_error = error
            best_scale = s_qx / s_qq
    return best_scale


@njit(cache=True, nogil=True)
def search_word_scales(  # type: ignore[no-untyped-def]
    weight, importance, block_columns, width, word, magnitudes, trie, ratios, rounds
):
    """Scales of every block, as it stores them.

    Args:
        weight: ``[out, in]`` float32, ``in`` a multiple of ``block_columns``.
        importance: ``[in]`` float32, positive.
        block_columns: Columns that share ``d``.
        width: Columns of a sub-block.
        word: Columns of a word.
        magnitudes, trie: See ``Codebook``.
        ratios: Clip ratios to try.
        rounds: Alternations between sub-scales and super-scales.

    Returns:
        ``d`` float32 ``[out, blocks]``, exact in float16; ``sc`` int16 ``[out, subs]``, odd numbers from 1 to 31.
    """
    rows, columns = weight.shape
    blocks = columns // block_columns
    subs = block_columns // width
    d = np.zeros((rows, blocks), dtype=np.float32)
    sc = np.ones((rows, blocks * subs), dtype=np.int16)
    work = _search_work(word)
    scales = np.empty(subs, dtype=np.float32)
    for row in range(rows):
        for block in range(blocks):
            start = block * block_columns
            values = weight[row, start : start + block_columns]
            weights = importance[start : start + block_columns]
            for sub in range(subs):
                part = slice(sub * width, (sub + 1) * width)
                scales[sub] = _fit_sub(values[part], weights[part], ratios, magnitudes, trie, work)
            found = sc[row, block * subs : (block + 1) * subs]
            d[row, block] = _fit_block(values, weights, scales, width, magnitudes, trie, rounds, work, found)
    return d, sc


@njit(cache=True, nogil=True)
def _fit_block(  # type: ignore[no-untyped-def]
    values, weights, scales, width, magnitudes, trie, rounds, work, sc
):
    """``d`` of one block, whose sub-blocks had best be scaled by ``scales``; ``sc`` of each is written."""
    subs = scales.shape[0]
    trial = np.empty(subs, dtype=np.int64)
    super_scale = to_half_reaching(scales.max() / np.float32(LARGEST_SUB_SCALE))
    best_d = np.float32(0.0)
    best_error = float(np.inf)
    for turn in range(rounds):
        if not super_scale > 0:
            break
        total = 0.0
        s_xq = s_qq = 0.0
        for sub in range(subs):
            part = slice(sub * width, (sub + 1) * width)
            middle = int(sc[sub]) if turn > 0 else 2 * int(np.rint((scales[sub] / super_scale - 1) / 2)) + 1
            chosen = np.float32(np.inf)
            own_xq = own_qq = np.float32(0.0)
            for step in range(3):
                # The middle one first: its error bounds the others' search.
                near = middle + (0, -2, 2)[step]
                if near < 1 or near > LARGEST_SUB_SCALE:
                    continue
                scale = super_scale * np.float32(near)
                error, qq, xq = _sub_sums(values[part], weights[part], scale, magnitudes, trie, chosen, work)
                if error < chosen:
                    chosen = error
                    trial[sub] = near
                    own_xq = xq * near
                    own_qq = qq * near * near
            total += float(chosen)
            s_xq += float(own_xq)
            s_qq += float(own_qq)
        if not total < best_error:
            break
        best_error = total
        best_d = super_scale
        sc[:] = trial
        # Least squares of d under the words that these scales give.
        super_scale = to_half(s_xq / s_qq)
    return best_d
