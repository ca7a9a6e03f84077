"""Dense bit packing, least significant bit first, as every container but GGUF stores codes.

Element ``i`` of a row takes bits ``[i·b, (i+1)·b)`` of the row's bit stream, also across word borders.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
_CHUNK_BITS = 1 << 27


def pack_bits(codes: Array, bits: int, word_bytes: int = 1) -> npt.NDArray[np.uint8]:
    """Pack unsigned ``codes`` ``[rows, n]`` into ``[rows, ⌈n·bits / (8·word_bytes)⌉·word_bytes]`` bytes.

    Raises:
        ValueError: A code that does not fit ``bits``, or a width outside 1 to 8.
    """
    if not 1 <= bits <= 8:
        raise ValueError(f"codes have 1 to 8 bits, not {bits}")
    if codes.size and (codes.min() < 0 or codes.max() >= 1 << bits):
        raise ValueError(f"a code lies outside 0..{(1 << bits) - 1}")
    rows, columns = codes.shape
    word = 8 * word_bytes
    row_bytes = -(-columns * bits // word) * word_bytes
    packed = np.zeros((rows, row_bytes), dtype=np.uint8)
    shifts = np.arange(bits, dtype=np.uint8)
    step = max(1, _CHUNK_BITS // max(1, columns * bits))
    for start in range(0, rows, step):
        chunk = codes[start : start + step].astype(np.uint8)
        stream = ((chunk[:, :, None] >> shifts) & 1).reshape(chunk.shape[0], -1)
        used = np.packbits(stream, axis=1, bitorder="little")
        packed[start : start + step, : used.shape[1]] = used
    return packed


def unpack_bits(packed: npt.NDArray[np.uint8], bits: int, columns: int) -> npt.NDArray[np.uint8]:
    """The inverse of :func:`pack_bits`: codes ``[rows, columns]`` out of bytes ``[rows, ·]``."""
    rows = packed.shape[0]
    stream = np.unpackbits(packed, axis=1, bitorder="little", count=columns * bits)
    weights = (1 << np.arange(bits)).astype(np.uint8)
    codes: npt.NDArray[np.uint8] = (stream.reshape(rows, columns, bits) * weights).sum(axis=2, dtype=np.uint8)
    return codes


def pack_int32_rows(codes: Array, bits: int) -> npt.NDArray[np.int32]:
    """Compressed-tensors ``weight_packed``: unsigned codes ``[rows, n]`` → int32 ``[rows, ⌈n·bits/32⌉]``."""
    return pack_bits(codes, bits, word_bytes=4).view("<i4").astype(np.int32)


def pack_int32_columns(codes: Array, bits: int) -> npt.NDArray[np.int32]:
    """Packed along the first axis (GPTQ ``qweight`` from ``[in, out]``): int32 ``[⌈rows·bits/32⌉, n]``."""
    return np.ascontiguousarray(pack_int32_rows(np.ascontiguousarray(codes.T), bits).T)


def unpack_int32_rows(packed: npt.NDArray[np.int32], bits: int, columns: int) -> npt.NDArray[np.uint8]:
    """Codes ``[rows, columns]`` out of int32 ``[rows, ⌈columns·bits/32⌉]``."""
    data = np.ascontiguousarray(packed.astype("<i4")).view(np.uint8).reshape(packed.shape[0], -1)
    return unpack_bits(data, bits, columns)


def unpack_int32_columns(packed: npt.NDArray[np.int32], bits: int, rows: int) -> npt.NDArray[np.uint8]:
    """Codes ``[rows, n]`` out of int32 ``[⌈rows·bits/32⌉, n]``."""
    return np.ascontiguousarray(unpack_int32_rows(np.ascontiguousarray(packed.T), bits, rows).T)


def pack_blocks(codes: Array, bits: int, block: int, padding: int) -> npt.NDArray[np.uint8]:
    """MatMulNBits ``B``: unsigned codes ``[N, K]`` → bytes ``[N, ⌈K/block⌉, block·bits/8]``.

    The last block is filled with ``padding``; readers stop at ``K``.
    """
    rows, columns = codes.shape
    blocks = -(-columns // block)
    padded = np.full((rows, blocks * block), padding, dtype=np.uint8)
    padded[:, :columns] = codes
    return pack_bits(padded.reshape(rows * blocks, block), bits).reshape(rows, blocks, block * bits // 8)
