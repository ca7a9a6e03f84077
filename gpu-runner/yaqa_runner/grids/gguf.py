"""The grids of GGUF's block types, with every scale as the block stores it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from yaqa_runner.grids.affine_search import clip_ratios, validated
from yaqa_runner.grids.codebooks import CODEBOOK_NAMES, codebook
from yaqa_runner.grids.grid import FixedGrid, Grid
from yaqa_runner.grids.offset import OffsetGrid
from yaqa_runner.grids.super_block_kernel import search_super_blocks
from yaqa_runner.grids.symmetric import SymmetricGrid
from yaqa_runner.grids.words_search_kernel import search_word_scales

SUPER_BLOCK = 256
BLOCK = 32
_ROUNDS = 4


class BlockGrid:
    """Q4_0, Q5_0 and Q8_0: ``value = d * code`` in blocks of 32, the symmetric grid under GGUF's name.

    ``d`` is kept exact in bfloat16 too, so the codes are those of every other container with the same grid.
    """

    def __init__(self, name: str, bits: int) -> None:
        self.name = name
        self._grid = SymmetricGrid(bits, BLOCK)
        self.bits_per_weight = self._grid.bits_per_weight

    def supports(self, rows: int, columns: int) -> bool:
        """Rows of whole blocks of 32."""
        return rows > 0 and columns > 0 and columns % BLOCK == 0

    def fit(self, weight: torch.Tensor, input_importance: torch.Tensor | None = None) -> FixedGrid:
        """Choose ``d`` for every block of ``weight`` ``[out, in]``; ``stored["scale"]`` ``[out, blocks]``.

        Raises:
            ValueError: ``weight`` is not finite, or its rows are no multiple of 32.
        """
        _check_columns(self.name, weight, BLOCK)
        return self._grid.fit(weight, input_importance)


class OffsetBlockGrid(OffsetGrid):
    """Q4_1 and Q5_1: ``value = d * code + m`` in blocks of 32, ``d`` and ``m`` in float16, codes from 0."""

    def __init__(self, name: str, bits: int) -> None:
        super().__init__(name, bits, BLOCK, "float16")

    def supports(self, rows: int, columns: int) -> bool:
        """Rows of whole blocks of 32."""
        return rows > 0 and columns > 0 and columns % BLOCK == 0

    def fit(self, weight: torch.Tensor, input_importance: torch.Tensor | None = None) -> FixedGrid:
        """Choose ``d`` and ``m`` for every block of ``weight`` ``[out, in]``.

        ``stored``: ``d`` and ``m`` ``[out, blocks]`` float32, exact in float16.

        Raises:
            ValueError: ``weight`` is not finite, or its rows are no multiple of 32.
        """
        _check_columns(self.name, weight, BLOCK)
        return super().fit(weight, input_importance)


@dataclass(frozen=True)
class _SuperBlockLayout:
    """Ranges are those of levels: of codes, or of what ``table`` has at them."""

    columns: int
    width: int
    low: int
    high: int
    sub_low: int
    sub_high: int
    minimum_high: int
    bits: int
    bits_per_weight: float
    table: tuple[int, ...] | None = None


IQ4_LEVELS = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
"""What the 16 codes of IQ4_NL and IQ4_XS stand for (``kvalues_iq4nl`` of ggml)."""
_LAYOUTS = {
    "iq4_nl": _SuperBlockLayout(BLOCK, 32, -127, 113, 1, 1, 0, 4, 4.5, IQ4_LEVELS),
    "iq4_xs": _SuperBlockLayout(SUPER_BLOCK, 32, -127, 113, -32, 31, 0, 4, 4.25, IQ4_LEVELS),
    "q2_k": _SuperBlockLayout(SUPER_BLOCK, 16, 0, 3, 0, 15, 15, 2, 2.625),
    "q3_k": _SuperBlockLayout(SUPER_BLOCK, 16, -4, 3, -32, 31, 0, 3, 3.4375),
    "q4_k": _SuperBlockLayout(SUPER_BLOCK, 32, 0, 15, 0, 63, 63, 4, 4.5),
    "q5_k": _SuperBlockLayout(SUPER_BLOCK, 32, 0, 31, 0, 63, 63, 5, 5.5),
    "q6_k": _SuperBlockLayout(SUPER_BLOCK, 16, -32, 31, -128, 127, 0, 6, 6.5625),
}


class SuperBlockGrid:
    """Q2_K to Q6_K, IQ4_XS: ``value = d sc level − dmin mn`` in super-blocks of 256 columns.

    IQ4_NL is the like with blocks of 32 and every ``sc`` 1, which the file does not store.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._layout = _LAYOUTS[name]
        self.bits_per_weight = self._layout.bits_per_weight

    def supports(self, rows: int, columns: int) -> bool:
        """Rows of whole blocks."""
        return rows > 0 and columns > 0 and columns % self._layout.columns == 0

    def fit(self, weight: torch.Tensor, input_importance: torch.Tensor | None = None) -> FixedGrid:
        """Choose the scales of every block of ``weight`` ``[out, in]``.

        ``stored``: ``d`` and (with minima) ``dmin`` ``[out, blocks]`` float32 exact in float16, ``sc`` and ``mn``
        ``[out, in / width]`` int16. ``scale`` and ``offset`` are their products, exact in float32.

        Raises:
            ValueError: ``weight`` is not finite, or its rows are no multiple of the block.
        """
        _check_columns(self.name, weight, self._layout.columns)
        weight, importance = validated(weight, input_importance)
        layout = self._layout
        table = None if layout.table is None else torch.tensor(layout.table, dtype=torch.float32)
        # On the CPU whatever the device: the search goes from sub-block to sub-block.
        d, dmin, sc, mn = (
            torch.from_numpy(part).to(weight.device)
            for part in search_super_blocks(
                weight.cpu().numpy(),
                importance.cpu().numpy(),
                layout.columns,
                layout.width,
                layout.low,
                layout.high,
                None if table is None else table.numpy(),
                layout.sub_low,
                layout.sub_high,
                layout.minimum_high,
                clip_ratios(layout.bits).numpy(),
                _ROUNDS,
            )
        )
        subs = layout.columns // layout.width
        scale = d.repeat_interleave(subs, dim=1) * sc.to(torch.float32)
        stored = {"d": d, "sc": sc}
        offset = torch.zeros_like(scale)
        if layout.minimum_high > 0:
            offset = -(dmin.repeat_interleave(subs, dim=1) * mn.to(torch.float32))
            stored |= {"dmin": dmin, "mn": mn}
        if table is not None:
            return FixedGrid(scale, offset, layout.width, 0, len(table) - 1, stored, table.to(weight.device))
        return FixedGrid(scale, offset, layout.width, layout.low, layout.high, stored)


# Columns of a sub-block, and bits a weight.
_CODEBOOK_LAYOUTS = {
    "iq2_xxs": (32, 2.0625),
    "iq2_xs": (16, 2.3125),
    "iq2_s": (16, 2.5625),
    "iq3_xxs": (32, 3.0625),
    "iq3_s": (32, 3.4375),
}
# Of the scale at which no value of a sub-block is clipped.
_CODEBOOK_RATIOS = (1.05, 0.95, 0.85, 0.75)
_CODEBOOK_ROUNDS = 2


class CodebookGrid:
    """IQ2 and IQ3: ``value = d sc level`` in super-blocks of 256, levels of neighbours being a word of a codebook.

    Sub-scales ``sc`` are odd, from 1 to 31: the file stores four bits of them.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._width, self.bits_per_weight = _CODEBOOK_LAYOUTS[name]

    def supports(self, rows: int, columns: int) -> bool:
        """Rows of whole super-blocks."""
        return rows > 0 and columns > 0 and columns % SUPER_BLOCK == 0

    def fit(self, weight: torch.Tensor, input_importance: torch.Tensor | None = None) -> FixedGrid:
        """Choose the scales of every super-block of ``weight`` ``[out, in]``.

        ``stored``: ``d`` ``[out, blocks]`` float32 exact in float16, ``sc`` ``[out, in / width]`` int16. ``scale`` is
        their product, exact in float32.

        Raises:
            ValueError: ``weight`` is not finite, or its rows are no multiple of 256.
        """
        _check_columns(self.name, weight, SUPER_BLOCK)
        weight, importance = validated(weight, input_importance)
        book = codebook(self.name)
        # On the CPU whatever the device: the search goes from word to word.
        d, sc = (
            torch.from_numpy(part).to(weight.device)
            for part in search_word_scales(
                weight.cpu().numpy(),
                importance.cpu().numpy(),
                SUPER_BLOCK,
                self._width,
                book.word,
                book.magnitudes,
                book.trie,
                np.array(_CODEBOOK_RATIOS, dtype=np.float32),
                _CODEBOOK_ROUNDS,
            )
        )
        scale = d.repeat_interleave(SUPER_BLOCK // self._width, dim=1) * sc.to(torch.float32)
        table = torch.from_numpy(book.table).to(weight.device)
        stored = {"d": d, "sc": sc}
        return FixedGrid(scale, torch.zeros_like(scale), self._width, 0, len(table) - 1, stored, table, book)


_GRIDS: dict[str, Grid] = {
    "q4_0": BlockGrid("q4_0", 4),
    "q4_1": OffsetBlockGrid("q4_1", 4),
    "q5_0": BlockGrid("q5_0", 5),
    "q5_1": OffsetBlockGrid("q5_1", 5),
    "q8_0": BlockGrid("q8_0", 8),
    **{name: SuperBlockGrid(name) for name in _LAYOUTS},
    **{name: CodebookGrid(name) for name in _CODEBOOK_LAYOUTS},
}
GGUF_GRID_NAMES = tuple(_GRIDS)
_FALLBACKS = {
    "q2_k": "q4_0",
    "q3_k": "q4_0",
    **dict.fromkeys((*CODEBOOK_NAMES, "iq4_xs"), "iq4_nl"),
    "q4_k": "q5_0",
    "q5_k": "q5_1",
    "q6_k": "q8_0",
}


def gguf_grid(name: str) -> Grid:
    """The grid of GGUF type ``name``, for example ``q4_k``.

    Raises:
        ValueError: there is no such type here.
    """
    grid = _GRIDS.get(name)
    if grid is None:
        raise ValueError(f"there is no GGUF grid {name!r}; there are {', '.join(GGUF_GRID_NAMES)}")
    return grid


def gguf_type_for(name: str, rows: int, columns: int) -> str | None:
    """``name``, or the type that stands in where its rows do not fit, or ``None`` to leave the weight in 16 bits.

    Like llama.cpp: a K-type needs rows of whole 256s and gives way to the block type next above it.
    """
    if gguf_grid(name).supports(rows, columns):
        return name
    fallback = _FALLBACKS.get(name)
    if fallback is not None and gguf_grid(fallback).supports(rows, columns):
        return fallback
    return None


def _check_columns(name: str, weight: torch.Tensor, block: int) -> None:
    if weight.ndim == 2 and weight.shape[1] % block:
        raise ValueError(f"{weight.shape[1]} input columns are not a multiple of {block}, the block of {name}")
