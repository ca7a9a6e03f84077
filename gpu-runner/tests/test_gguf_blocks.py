from __future__ import annotations

from dataclasses import replace

import gguf
import numpy as np
import pytest
import torch
from llama_cpp_library import ggml_dequantize

from yaqa_runner.formats.container import QuantizedLinear
from yaqa_runner.formats.gguf.blocks import GGUF_TYPES, ggml_type, pack_rows
from yaqa_runner.formats.source import ExportError
from yaqa_runner.grids.codebooks import CODEBOOK_NAMES, codebook
from yaqa_runner.grids.gguf import IQ4_LEVELS, gguf_grid
from yaqa_runner.grids.grid import FixedGrid

ROWS = 3
# type: (lowest code, highest code, columns a scale, sub-scale range, minimum range)
SUPER_TYPES = {
    "q2_k": (0, 3, 16, (0, 15), 15),
    "q3_k": (-4, 3, 16, (-32, 31), None),
    "q4_k": (0, 15, 32, (0, 63), 63),
    "q5_k": (0, 31, 32, (0, 63), 63),
    "q6_k": (-32, 31, 16, (-128, 127), None),
    "iq4_xs": (0, 15, 32, (-32, 31), None),
}
BLOCK_TYPES = {
    "q4_0": (-8, 7),
    "q4_1": (0, 15),
    "q5_0": (-16, 15),
    "q5_1": (0, 31),
    "q8_0": (-128, 127),
    "iq4_nl": (0, 15),
}


CODEBOOK_GROUPS = {"iq2_xxs": 32, "iq2_xs": 16, "iq2_s": 16, "iq3_xxs": 32, "iq3_s": 32}


def half(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    return (torch.rand(shape, generator=generator) * 0.1 + 0.001).to(torch.float16).to(torch.float32)


def arbitrary(type_name: str, columns: int) -> QuantizedLinear:
    """Random codes and random stored scales over the type's whole range."""
    if type_name in CODEBOOK_NAMES:
        return arbitrary_words(type_name, columns)
    generator = torch.Generator().manual_seed(3)
    table = torch.tensor(IQ4_LEVELS, dtype=torch.float32) if type_name.startswith("iq4") else None
    if type_name in BLOCK_TYPES:
        low, high = BLOCK_TYPES[type_name]
        scale = half((ROWS, columns // 32), generator)
        offset = -half((ROWS, columns // 32), generator) if type_name in ("q4_1", "q5_1") else torch.zeros_like(scale)
        grid = FixedGrid(scale, offset, 32, low, high, table=table)
    else:
        low, high, width, (sub_low, sub_high), minimum = SUPER_TYPES[type_name]
        subs = columns // width
        d = half((ROWS, columns // 256), generator)
        sc = torch.randint(sub_low, sub_high + 1, (ROWS, subs), generator=generator)
        spread = 256 // width
        scale = d.repeat_interleave(spread, 1) * sc
        offset = torch.zeros_like(scale)
        stored = {"d": d, "sc": sc}
        if minimum is not None:
            dmin = half((ROWS, columns // 256), generator)
            mn = torch.randint(0, minimum + 1, (ROWS, subs), generator=generator)
            offset = -(dmin.repeat_interleave(spread, 1) * mn)
            stored |= {"dmin": dmin, "mn": mn}
        grid = FixedGrid(scale, offset, width, low, high, stored, table)
    codes = torch.randint(low, high + 1, (ROWS, columns), generator=generator).to(torch.int16)
    return QuantizedLinear("layer", codes, grid, type_name)


def arbitrary_words(type_name: str, columns: int) -> QuantizedLinear:
    """Random words, signs and stored scales over the type's whole range; every word comes up."""
    generator = torch.Generator().manual_seed(3)
    book, group = codebook(type_name), CODEBOOK_GROUPS[type_name]
    half_codes = len(book.magnitudes)
    words = torch.arange(ROWS * columns // book.word) * 5 % len(book.words)
    magnitudes = torch.from_numpy(book.words)[words].reshape(ROWS, columns)
    negative = torch.rand(ROWS, columns, generator=generator) < 0.5
    if book.even_signs:
        eights = negative.view(ROWS, -1, 8)
        eights[..., 7] = eights[..., :7].sum(-1) % 2 == 1
    codes = torch.where(negative, half_codes - 1 - magnitudes, half_codes + magnitudes).to(torch.int16)
    d = half((ROWS, columns // 256), generator)
    sc = 2 * torch.randint(0, 16, (ROWS, columns // group), generator=generator) + 1
    scale = d.repeat_interleave(256 // group, 1) * sc
    table = torch.from_numpy(book.table)
    grid = FixedGrid(scale, 0 * scale, group, 0, len(table) - 1, {"d": d, "sc": sc}, table, book)
    return QuantizedLinear("layer", codes, grid, type_name)


def dequantized(linear: QuantizedLinear, type_name: str) -> torch.Tensor:
    return torch.from_numpy(gguf.quants.dequantize(pack_rows(linear, type_name), ggml_type(type_name)))


@pytest.mark.parametrize("type_name", GGUF_TYPES)
def test_every_type_is_read_back_exactly_by_the_gguf_library(type_name: str) -> None:
    linear = arbitrary(type_name, 512)
    assert torch.equal(dequantized(linear, type_name), linear.grid.decode(linear.codes))


@pytest.mark.parametrize("type_name", GGUF_TYPES)
def test_every_type_is_read_back_exactly_by_llama_cpp(type_name: str) -> None:
    linear = arbitrary(type_name, 512)
    decoded = ggml_dequantize(pack_rows(linear, type_name), ggml_type(type_name), 512)
    assert torch.equal(decoded, linear.grid.decode(linear.codes))


@pytest.mark.parametrize("type_name", GGUF_TYPES)
def test_fitted_grids_are_stored_without_loss(type_name: str) -> None:
    weight = torch.randn(4, 512, generator=torch.Generator().manual_seed(5))
    weight[1, 256:] = 0
    weight[2] = 0
    grid = gguf_grid(type_name).fit(weight)
    codes = grid.nearest(weight)
    linear = QuantizedLinear("layer", codes, grid, type_name)
    assert torch.equal(dequantized(linear, type_name), grid.decode(codes))


@pytest.mark.parametrize("type_name", ["q4_0", "q8_0"])
def test_rounding_to_nearest_gives_the_bytes_of_the_gguf_library(type_name: str) -> None:
    weight = torch.randn(4, 64, generator=torch.Generator().manual_seed(5))
    theirs = gguf.quants.quantize(weight.numpy(), ggml_type(type_name))
    decoded = torch.from_numpy(gguf.quants.dequantize(theirs, ggml_type(type_name)))
    scale = torch.from_numpy(
        np.ascontiguousarray(theirs.reshape(4, 2, -1)[:, :, :2]).view(np.float16)[..., 0].astype(np.float32)
    )
    low, high = BLOCK_TYPES[type_name]
    grid = FixedGrid(scale, torch.zeros_like(scale), 32, low, high)
    codes = (decoded / scale.repeat_interleave(32, 1)).round().to(torch.int16)
    assert np.array_equal(pack_rows(QuantizedLinear("layer", codes, grid, type_name), type_name), theirs)


def test_longer_groups_have_their_scale_repeated() -> None:
    linear = arbitrary("q4_0", 256)
    wide = FixedGrid(linear.grid.scale[:, ::4], linear.grid.offset[:, ::4], 128, -8, 7)
    repeated = QuantizedLinear("layer", linear.codes, wide, "q4_0")
    assert torch.equal(dequantized(repeated, "q4_0"), wide.decode(linear.codes))


def test_what_a_type_cannot_store_is_refused() -> None:
    linear = arbitrary("q4_0", 64)
    inexact = FixedGrid(linear.grid.scale + 1e-7, linear.grid.offset, 32, -8, 7)
    with pytest.raises(ExportError, match="not exact in half precision"):
        pack_rows(QuantizedLinear("layer", linear.codes, inexact, "q4_0"), "q4_0")
    with pytest.raises(ExportError, match="multiple of 256"):
        pack_rows(linear, "q4_k")
    shifted = FixedGrid(linear.grid.scale, linear.grid.scale, 32, -8, 7)
    with pytest.raises(ExportError, match="has no offset"):
        pack_rows(QuantizedLinear("layer", linear.codes, shifted, "q4_0"), "q4_0")
    with pytest.raises(ExportError, match="a code lies outside"):
        pack_rows(QuantizedLinear("layer", linear.codes + 8, linear.grid, "q4_0"), "q4_0")
    with pytest.raises(ExportError, match="does not tell 'd'"):
        pack_rows(QuantizedLinear("layer", torch.zeros(1, 256, dtype=torch.int16), linear.grid, "q4_k"), "q4_k")
    with pytest.raises(ExportError, match="not those of IQ4"):
        pack_rows(QuantizedLinear("layer", linear.codes.abs(), linear.grid, "iq4_nl"), "iq4_nl")
    with pytest.raises(ExportError, match="is not written"):
        pack_rows(linear, "iq1_s")


def test_what_no_codebook_stores_is_refused() -> None:
    linear = arbitrary("iq3_xxs", 256)
    with pytest.raises(ExportError, match="no words of iq3_s"):
        pack_rows(linear, "iq3_s")
    one_sign = linear.codes.clone()
    one_sign[0, 0] = 15 - one_sign[0, 0]
    with pytest.raises(ExportError, match="an odd one"):
        pack_rows(QuantizedLinear("layer", one_sign, linear.grid, "iq3_xxs"), "iq3_xxs")
    with pytest.raises(ExportError, match="no word of iq3_xxs"):
        pack_rows(QuantizedLinear("layer", torch.full_like(linear.codes, 15), linear.grid, "iq3_xxs"), "iq3_xxs")
    even = replace(linear.grid, stored=linear.grid.stored | {"sc": linear.grid.stored["sc"] + 1})
    with pytest.raises(ExportError, match="'sc' is not odd"):
        pack_rows(QuantizedLinear("layer", linear.codes, even, "iq3_xxs"), "iq3_xxs")
