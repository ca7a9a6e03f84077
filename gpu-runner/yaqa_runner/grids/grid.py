"""Grids: which values a quantized weight may take.

A grid is chosen first, exactly as its container stores it, and then frozen while the
codes are rounded on it. Every container decodes ``value = scale * level + offset``;
the level is the code itself, or what a table has at it. On a codebook, neighbouring codes are chosen together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch

from yaqa_runner.grids.codebooks import Codebook
from yaqa_runner.grids.words_kernel import nearest_word_codes


@dataclass(frozen=True)
class FixedGrid:
    """A grid with its scales frozen.

    Attributes:
        scale: Step between neighbouring levels, float32 ``[out, groups]``, as the container decodes it.
        offset: Value of level 0, float32 ``[out, groups]``.
        group: Input columns that share one entry of ``scale``; the last group may be shorter.
        minimum: Smallest code.
        maximum: Largest code.
        stored: What the container keeps (half-precision scales, super-scales, sub-scales, zero points),
            keyed by the container's own names.
        table: Levels of the codes from 0 on, rising, float32 ``[codes]``, where they are not the codes themselves.
        codebook: Which codes neighbours may have together, where not every one is free; ``table`` is its own.
    """

    scale: torch.Tensor
    offset: torch.Tensor
    group: int
    minimum: int
    maximum: int
    stored: dict[str, torch.Tensor] = field(default_factory=dict)
    table: torch.Tensor | None = None
    codebook: Codebook | None = None

    @property
    def least_gap(self) -> float:
        """The distance of the two levels that are nearest to each other."""
        return 1.0 if self.table is None else float(self.table.diff().min())

    def levels(self, codes: torch.Tensor) -> torch.Tensor:
        """Float32 levels of ``codes``, of any shape, on their device; a new tensor."""
        if self.table is None:
            return codes.to(torch.float32, copy=True)
        return self.table.to(codes.device)[codes.to(torch.int64)]

    def to(self, device: torch.device | str) -> FixedGrid:
        """The same grid with its tensors on ``device``; itself where they are there."""
        if self.scale.device == torch.device(device):
            return self
        moved = {key: value.to(device) for key, value in self.stored.items()}
        table = None if self.table is None else self.table.to(device)
        return replace(self, scale=self.scale.to(device), offset=self.offset.to(device), stored=moved, table=table)

    def rows(self, start: int, stop: int) -> FixedGrid:
        """The grid of rows ``start`` to ``stop`` alone, on views of the same values."""
        stored = {key: value[start:stop] for key, value in self.stored.items()}
        return replace(self, scale=self.scale[start:stop], offset=self.offset[start:stop], stored=stored)

    def expand(self, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Scale and offset of every element, each ``[out, columns]``."""
        scale = self.scale.repeat_interleave(self.group, dim=1)[:, :columns]
        offset = self.offset.repeat_interleave(self.group, dim=1)[:, :columns]
        return scale, offset

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        """Values ``[out, in]`` of ``codes`` ``[out, in]``, float32."""
        values = self.levels(codes)
        for part, scale, offset in self._by_group(values):
            part.mul_(scale).add_(offset)
        return values

    def nearest(self, values: torch.Tensor) -> torch.Tensor:
        """Codes ``[out, in]`` int16 nearest to ``values`` ``[out, in]``; in groups of scale 0 the code nearest to 0.

        Of a codebook the words that are nearest, all columns of one counting alike.
        """
        positions = values.to(torch.float32, copy=True)
        for part, scale, offset in self._by_group(positions):
            part.sub_(offset).div_(scale).masked_fill_(scale == 0, 0.0)
        if self.codebook is not None:
            book = self.codebook
            near = nearest_word_codes(positions.cpu().numpy(), book.width, book.table, book.trie, book.even_signs)
            return torch.from_numpy(near).to(values.device)
        if self.table is not None:
            middles = (self.table[1:] + self.table[:-1]) / 2
            return torch.bucketize(positions, middles.to(positions.device)).to(torch.int16)
        return positions.round_().clamp_(self.minimum, self.maximum).to(torch.int16)

    def _by_group(self, matrix: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Views of all of ``matrix`` ``[out, in]``, each with the scale and offset that spread over it by themselves.

        Scales spread out to every element would take the matrix's memory twice more.
        """
        whole = matrix.shape[1] // self.group
        width = whole * self.group
        if whole:
            in_groups = matrix[:, :width].view(len(matrix), whole, self.group)
            yield in_groups, self.scale[:, :whole, None], self.offset[:, :whole, None]
        if width < matrix.shape[1]:
            yield matrix[:, width:], self.scale[:, whole:], self.offset[:, whole:]


class Grid(Protocol):
    """A family of grids that one container type can store."""

    name: str
    """The container's own word for it: ``q4_0``, ``symmetric-4-g32``."""
    bits_per_weight: float
    """Stored bits a weight, scales counted."""

    def supports(self, rows: int, columns: int) -> bool:
        """Whether a weight ``[rows, columns]`` can be stored on this grid."""
        ...

    def fit(
        self,
        weight: torch.Tensor,
        input_importance: torch.Tensor | None = None,
    ) -> FixedGrid:
        """Choose the scales for ``weight`` ``[out, in]``; they are on its device.

        Searches clip ratios for the least ``Σ importance_j (w_ij − ŵ_ij)²`` with
        ``input_importance`` ``[in]`` (the diagonal of ``H_I``; ones when ``None``).
        """
        ...
