"""Packers of GGUF's IQ2 and IQ3 blocks: places of words, signs and sub-scales of four bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]


def codebook_block(type_name: str, words: Array, signs: Array, scales: Array) -> Bytes:
    """Super-blocks of ``type_name`` ``[blocks, bytes]``, but for the ``d`` in front.

    Args:
        type_name: ``iq3_s``.
        words: Places in the codebook, ``[blocks, words]``.
        signs: A byte for eight columns, the first one's lowest, ``[blocks, 32]``.
        scales: 0 to 15, ``[blocks, sub-blocks]``.
    """
    return _BLOCKS[type_name](words, signs, scales)


def _iq2_xxs(words: Array, signs: Array, scales: Array) -> Bytes:
    places = words.astype(np.uint8).reshape(len(words), -1, 4)
    return np.concatenate([places, _signs_and_scale(signs, scales)], axis=2).reshape(len(words), -1)


def _iq2_xs(words: Array, signs: Array, scales: Array) -> Bytes:
    joined = (words.astype(np.int64) | (signs.astype(np.int64) & 127) << 9).astype("<u2")
    return np.concatenate([joined.view(np.uint8), _nibble_pairs(scales)], axis=1)


def _iq2_s(words: Array, signs: Array, scales: Array) -> Bytes:
    top = (words >> 8).astype(np.uint8).reshape(len(words), -1, 4)
    high = top[..., 0] | top[..., 1] << 2 | top[..., 2] << 4 | top[..., 3] << 6
    return np.concatenate([(words & 255).astype(np.uint8), signs, high, _nibble_pairs(scales)], axis=1)


def _iq3_xxs(words: Array, signs: Array, scales: Array) -> Bytes:
    tail = _signs_and_scale(signs, scales).reshape(len(words), -1)
    return np.concatenate([words.astype(np.uint8), tail], axis=1)


def _iq3_s(words: Array, signs: Array, scales: Array) -> Bytes:
    high = np.packbits((words >> 8).astype(np.uint8), axis=1, bitorder="little")
    return np.concatenate([(words & 255).astype(np.uint8), high, signs, _nibble_pairs(scales)], axis=1)


def _signs_and_scale(signs: Array, scales: Array) -> Bytes:
    """Four times seven signs, the eighth of which their parity tells, and a scale: ``[blocks, sub-blocks, 4]``."""
    seven = signs.astype(np.uint32).reshape(len(signs), -1, 4) & np.uint32(127)
    joined = scales.astype(np.uint32) << np.uint32(28)
    for number in range(4):
        joined |= seven[..., number] << np.uint32(7 * number)
    packed: Bytes = joined.astype("<u4")[..., None].view(np.uint8)
    return packed


def _nibble_pairs(scales: Array) -> Bytes:
    return np.asarray(scales[:, 0::2] | scales[:, 1::2] << 4, dtype=np.uint8)


_BLOCKS: dict[str, Callable[[Array, Array, Array], Bytes]] = {
    "iq2_xxs": _iq2_xxs,
    "iq2_xs": _iq2_xs,
    "iq2_s": _iq2_s,
    "iq3_xxs": _iq3_xxs,
    "iq3_s": _iq3_s,
}
