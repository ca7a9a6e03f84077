"""GGUF block packers: codes and frozen scales in, the bytes of ``ggml-common.h`` out.

Each packer reproduces ``gguf.quants.dequantize`` exactly. Layouts are those of the block structs in
``ggml-common.h``; scales arrive already rounded to what the block stores, and one that is not is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import torch

from yaqa_runner.formats.container import QuantizedLinear
from yaqa_runner.formats.gguf.codebook_blocks import codebook_block
from yaqa_runner.formats.source import ExportError
from yaqa_runner.grids.codebooks import CODEBOOK_NAMES
from yaqa_runner.grids.fit_rows import fit_rows
from yaqa_runner.grids.gguf import IQ4_LEVELS, gguf_grid

Array = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]
SUPER = 256
_STRIP_ELEMENTS = 1 << 21


def pack_rows(linear: QuantizedLinear, type_name: str) -> Bytes:
    """Bytes ``[out, bytes a row]`` of ``linear`` as GGUF type ``type_name`` (``q4_0`` … ``iq3_s``).

    Raises:
        ExportError: The row length or the scales cannot be stored by the type.
    """
    packer = _PACKERS.get(type_name)
    if packer is None:
        raise ExportError(f"GGUF type {type_name!r} is not written by this version.")
    quant_type = ggml_type(type_name)
    block, size = gguf.GGML_QUANT_SIZES[quant_type]
    rows, columns = linear.codes.shape
    if columns % block:
        raise ExportError(f"{linear.name}: {columns} inputs are not a multiple of {block}, the block of {type_name}.")
    packed = packer(linear)
    return packed.reshape(rows, columns // int(block) * int(size))


def nearest_rows(name: str, weight: torch.Tensor, type_name: str) -> Bytes:
    """Bytes ``[out, bytes a row]`` of ``weight`` ``[out, in]``, rounded to the nearest values of ``type_name``.

    Scales are searched; for what is looked up a row at a time, no column counts more than another.
    """
    rows = max(1, _STRIP_ELEMENTS // weight.shape[1])
    strips = torch.split(weight.to(torch.float32), rows)

    def packed(strip: torch.Tensor) -> Bytes:
        grid = fit_rows(gguf_grid(type_name), strip)
        return pack_rows(QuantizedLinear(name, grid.nearest(strip), grid, type_name), type_name)

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return np.concatenate(list(pool.map(packed, strips)))


def ggml_type(type_name: str) -> gguf.GGMLQuantizationType:
    """``q4_k`` → ``GGMLQuantizationType.Q4_K``."""
    return gguf.GGMLQuantizationType[type_name.upper()]


def _codes(linear: QuantizedLinear, block: int, lowest: int, highest: int) -> Array:
    codes = linear.codes.cpu().numpy()
    shifted = codes.astype(np.int16) - lowest
    if shifted.min() < 0 or shifted.max() > highest - lowest:
        raise ExportError(f"{linear.name}: a code lies outside {lowest}..{highest}.")
    return shifted.astype(np.uint8).reshape(-1, block)


def _half(linear: QuantizedLinear, values: Array, what: str) -> Bytes:
    with np.errstate(over="ignore"):
        half = values.astype("<f2")
    if not np.array_equal(half.astype(np.float32), values.astype(np.float32)):
        raise ExportError(f"{linear.name}: {what} is not exact in half precision.")
    return np.asarray(half.reshape(-1, 1).view(np.uint8))


def _grid_array(linear: QuantizedLinear, which: str, group: int, columns: int) -> Array:
    """``scale`` or ``offset`` with one entry a ``group`` of inputs, whatever the grid's own group."""
    grid = linear.grid
    values = (grid.scale if which == "scale" else grid.offset).cpu().numpy().astype(np.float32)
    if grid.group == group:
        return values
    if grid.group % group == 0:
        return np.repeat(values, grid.group // group, axis=1)[:, : columns // group]
    raise ExportError(f"{linear.name}: a group of {grid.group} cannot be stored in blocks of {group}.")


def _no_offset(linear: QuantizedLinear) -> None:
    if bool((linear.grid.offset != 0).any()):
        raise ExportError(f"{linear.name}: this GGUF type has no offset.")


def _stored(linear: QuantizedLinear, key: str, per_block: int) -> Array:
    value = linear.grid.stored.get(key)
    if value is None:
        raise ExportError(f"{linear.name}: the grid does not tell {key!r}, which a super-block stores.")
    return value.cpu().numpy().reshape(-1, per_block)


def _nibbles(codes: Array, half: int) -> Bytes:
    return np.asarray(codes[:, :half] | (codes[:, half:] << 4), dtype=np.uint8)


def _q4_0(linear: QuantizedLinear) -> Bytes:
    _no_offset(linear)
    codes = _codes(linear, 32, -8, 7)
    scale = _half(linear, _grid_array(linear, "scale", 32, linear.codes.shape[1]), "a scale")
    return np.concatenate([scale, _nibbles(codes, 16)], axis=1)


def _q4_1(linear: QuantizedLinear) -> Bytes:
    columns = linear.codes.shape[1]
    codes = _codes(linear, 32, 0, 15)
    scale = _half(linear, _grid_array(linear, "scale", 32, columns), "a scale")
    minimum = _half(linear, _grid_array(linear, "offset", 32, columns), "an offset")
    return np.concatenate([scale, minimum, _nibbles(codes, 16)], axis=1)


def _q5_1(linear: QuantizedLinear) -> Bytes:
    columns = linear.codes.shape[1]
    codes = _codes(linear, 32, 0, 31)
    scale = _half(linear, _grid_array(linear, "scale", 32, columns), "a scale")
    minimum = _half(linear, _grid_array(linear, "offset", 32, columns), "an offset")
    return np.concatenate([scale, minimum, _fifth_bits(codes), _nibbles(codes & 15, 16)], axis=1)


def _iq4_levels(linear: QuantizedLinear) -> None:
    _no_offset(linear)
    if linear.grid.table is None or linear.grid.table.tolist() != list(IQ4_LEVELS):
        raise ExportError(f"{linear.name}: the levels of the codes are not those of IQ4.")


def _iq4_nl(linear: QuantizedLinear) -> Bytes:
    _iq4_levels(linear)
    codes = _codes(linear, 32, 0, 15)
    scale = _half(linear, _grid_array(linear, "scale", 32, linear.codes.shape[1]), "a scale")
    return np.concatenate([scale, _nibbles(codes, 16)], axis=1)


def _iq4_xs(linear: QuantizedLinear) -> Bytes:
    _iq4_levels(linear)
    codes = _codes(linear, SUPER, 0, 15)
    scale = _six_bits(linear, 8)
    high = (scale >> 4).astype("<u2")
    joined = np.zeros((len(high), 1), dtype="<u2")
    for sub in range(8):
        joined[:, 0] |= high[:, sub] << (2 * sub)
    low = (scale[:, 0::2] & 15) | (scale[:, 1::2] & 15) << 4
    d = _half(linear, _stored(linear, "d", 1), "d")
    return np.concatenate([d, joined.view(np.uint8), low, _nibble_chunks(codes, 16)], axis=1)


def _six_bits(linear: QuantizedLinear, per_block: int) -> Bytes:
    """Signed sub-scales ``[blocks, per_block]`` as the six bits that the block stores."""
    signed = _stored(linear, "sc", per_block).astype(np.int64)
    if signed.min() < -32 or signed.max() > 31:
        raise ExportError(f"{linear.name}: 'sc' lies outside -32..31.")
    return (signed + 32).astype(np.uint8)


def _fifth_bits(codes: Array) -> Bytes:
    return np.packbits(codes >> 4, axis=1, bitorder="little")


def _q5_0(linear: QuantizedLinear) -> Bytes:
    _no_offset(linear)
    codes = _codes(linear, 32, -16, 15)
    scale = _half(linear, _grid_array(linear, "scale", 32, linear.codes.shape[1]), "a scale")
    return np.concatenate([scale, _fifth_bits(codes), _nibbles(codes & 15, 16)], axis=1)


def _q8_0(linear: QuantizedLinear) -> Bytes:
    _no_offset(linear)
    codes = _codes(linear, 32, -128, 127)
    scale = _half(linear, _grid_array(linear, "scale", 32, linear.codes.shape[1]), "a scale")
    # _codes shifted by 128; flipping the top bit gives two's complement back.
    return np.concatenate([scale, codes ^ 0x80], axis=1)


def _two_bit_planes(codes: Array) -> Bytes:
    """2-bit codes ``[blocks, 256]`` → 64 bytes: byte ``l`` of each half holds elements l, l+32, l+64, l+96."""
    parts = codes.reshape(-1, 2, 4, 32)
    planes = parts[:, :, 0] | parts[:, :, 1] << 2 | parts[:, :, 2] << 4 | parts[:, :, 3] << 6
    return np.asarray(planes, dtype=np.uint8).reshape(-1, 64)


def _unsigned(linear: QuantizedLinear, key: str, per_block: int, highest: int) -> Array:
    values = _stored(linear, key, per_block).astype(np.int64)
    if values.min() < 0 or values.max() > highest:
        raise ExportError(f"{linear.name}: {key!r} lies outside 0..{highest}.")
    return values.astype(np.uint8)


def _q2_k(linear: QuantizedLinear) -> Bytes:
    codes = _codes(linear, SUPER, 0, 3)
    scales = _unsigned(linear, "sc", 16, 15) | _unsigned(linear, "mn", 16, 15) << 4
    d = _half(linear, _stored(linear, "d", 1), "d")
    dmin = _half(linear, _stored(linear, "dmin", 1), "dmin")
    return np.concatenate([scales, _two_bit_planes(codes), d, dmin], axis=1)


def _q3_k(linear: QuantizedLinear) -> Bytes:
    _no_offset(linear)
    codes = _codes(linear, SUPER, -4, 3)
    high = np.packbits((codes >> 2).reshape(-1, 8, 32), axis=1, bitorder="little").reshape(-1, 32)
    scale = _six_bits(linear, 16)
    low4 = (scale[:, :8] & 15) | (scale[:, 8:] & 15) << 4
    top = (scale >> 4).reshape(-1, 4, 4)
    high2 = top[:, 0] | top[:, 1] << 2 | top[:, 2] << 4 | top[:, 3] << 6
    d = _half(linear, _stored(linear, "d", 1), "d")
    return np.concatenate([high, _two_bit_planes(codes & 3), low4, high2, d], axis=1)


def _six_bit_pairs(scale: Array, minimum: Array) -> Bytes:
    """Eight 6-bit scales and eight 6-bit minima → 12 bytes (``get_scale_min_k4``)."""
    first = scale[:, :4] | (scale[:, 4:] >> 4) << 6
    second = minimum[:, :4] | (minimum[:, 4:] >> 4) << 6
    third = (scale[:, 4:] & 15) | (minimum[:, 4:] & 15) << 4
    return np.concatenate([first, second, third], axis=1).astype(np.uint8)


def _k45_head(linear: QuantizedLinear) -> list[Bytes]:
    return [
        _half(linear, _stored(linear, "d", 1), "d"),
        _half(linear, _stored(linear, "dmin", 1), "dmin"),
        _six_bit_pairs(_unsigned(linear, "sc", 8, 63), _unsigned(linear, "mn", 8, 63)),
    ]


def _nibble_chunks(codes: Array, width: int) -> Bytes:
    """4-bit codes ``[blocks, 256]`` in chunks of ``2·width``: low nibbles first, then high."""
    parts = codes.reshape(codes.shape[0], -1, 2, width)
    return np.asarray(parts[:, :, 0] | parts[:, :, 1] << 4, dtype=np.uint8).reshape(codes.shape[0], 128)


def _q4_k(linear: QuantizedLinear) -> Bytes:
    codes = _codes(linear, SUPER, 0, 15)
    return np.concatenate([*_k45_head(linear), _nibble_chunks(codes, 32)], axis=1)


def _q5_k(linear: QuantizedLinear) -> Bytes:
    codes = _codes(linear, SUPER, 0, 31)
    high = np.packbits((codes >> 4).reshape(-1, 8, 32), axis=1, bitorder="little").reshape(-1, 32)
    return np.concatenate([*_k45_head(linear), high, _nibble_chunks(codes & 15, 32)], axis=1)


def _q6_k(linear: QuantizedLinear) -> Bytes:
    _no_offset(linear)
    codes = _codes(linear, SUPER, -32, 31)
    low = _nibble_chunks(codes & 15, 64)
    high = _two_bit_planes(codes >> 4)
    scale = _stored(linear, "sc", 16).astype(np.int64)
    if scale.min() < -128 or scale.max() > 127:
        raise ExportError(f"{linear.name}: 'sc' lies outside -128..127.")
    d = _half(linear, _stored(linear, "d", 1), "d")
    return np.concatenate([low, high, scale.astype(np.int8).view(np.uint8), d], axis=1)


def _of_codebook(type_name: str) -> Callable[[QuantizedLinear], Bytes]:
    def pack(linear: QuantizedLinear) -> Bytes:
        _no_offset(linear)
        book = linear.grid.codebook
        if book is None or book.name != type_name:
            raise ExportError(f"{linear.name}: the codes are no words of {type_name}.")
        scales = _stored(linear, "sc", SUPER // linear.grid.group).astype(np.int64)
        if scales.min() < 1 or scales.max() > 31 or not np.all(scales % 2):
            raise ExportError(f"{linear.name}: 'sc' is not odd, or lies outside 1..31.")
        try:
            words, signs = book.places(linear.codes.cpu().numpy())
        except ValueError as error:
            raise ExportError(f"{linear.name}: {error}.") from error
        d = _half(linear, _stored(linear, "d", 1), "d")
        blocks = len(d)
        rest = codebook_block(type_name, words.reshape(blocks, -1), signs.reshape(blocks, -1), scales // 2)
        return np.concatenate([d, rest], axis=1)

    return pack


_PACKERS: dict[str, Callable[[QuantizedLinear], Bytes]] = {
    "q4_0": _q4_0,
    "q4_1": _q4_1,
    "q5_0": _q5_0,
    "q5_1": _q5_1,
    "q8_0": _q8_0,
    "q2_k": _q2_k,
    "q3_k": _q3_k,
    "q4_k": _q4_k,
    "q5_k": _q5_k,
    "q6_k": _q6_k,
    "iq4_nl": _iq4_nl,
    "iq4_xs": _iq4_xs,
    **{name: _of_codebook(name) for name in CODEBOOK_NAMES},
}
GGUF_TYPES = tuple(_PACKERS)
