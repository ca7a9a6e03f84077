"""Fitting a grid a few rows at a time."""

from __future__ import annotations

from dataclasses import replace

import torch

from yaqa_runner.grids.grid import FixedGrid, Grid
from yaqa_runner.grids.minifloat import MinifloatGrid

_ELEMENTS = 1 << 18
# A GPU takes a whole layer as easily, but of the widest.
_GPU_ELEMENTS = 1 << 26


def fit_rows(grid: Grid, weight: torch.Tensor, input_importance: torch.Tensor | None = None) -> FixedGrid:
    """What ``grid.fit`` chooses for ``weight`` ``[out, in]``, without its memory.

    Every row has scales of its own, and the candidates of a search take up to twenty times the row that they are for.
    Where scales share a factor, their range is the whole weight's.
    """
    if isinstance(grid, MinifloatGrid):
        grid = grid.within(weight)
    rows = max(1, (_GPU_ELEMENTS if weight.is_cuda else _ELEMENTS) // weight.shape[1])
    return join_rows([grid.fit(part, input_importance) for part in torch.split(weight, rows)])


def join_rows(parts: list[FixedGrid]) -> FixedGrid:
    """The grid of a weight whose rows, in this order, have the grids ``parts``: at least one, all of one family."""
    first, *others = parts
    if not others:
        return first
    scale = torch.cat([first.scale, *(part.scale for part in others)])
    offset = torch.cat([first.offset, *(part.offset for part in others)])
    stored = {}
    for key, value in first.stored.items():
        # What a grid holds once under two names stays one tensor.
        same = scale if value is first.scale else offset if value is first.offset else None
        stored[key] = torch.cat([value, *(part.stored[key] for part in others)]) if same is None else same
    return replace(first, scale=scale, offset=offset, stored=stored)
