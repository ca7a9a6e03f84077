"""Grids narrowed to what a container can store."""

from __future__ import annotations

from collections.abc import Callable

import torch

from yaqa_runner.grids.fit_rows import fit_rows
from yaqa_runner.grids.grid import FixedGrid, Grid


class ContainerGrid:
    """``grid`` where ``accepts(rows, columns)`` says so; ``fallback`` (or nothing) elsewhere.

    ``bits_per_weight`` is given where the container stores scales wider than the grid needs.
    """

    def __init__(
        self,
        grid: Grid,
        accepts: Callable[[int, int], bool],
        fallback: Grid | None = None,
        bits_per_weight: float | None = None,
    ) -> None:
        self.grid = grid
        self.accepts = accepts
        self.fallback = fallback
        self.name = grid.name
        self.bits_per_weight = grid.bits_per_weight if bits_per_weight is None else bits_per_weight

    def _choice(self, rows: int, columns: int) -> Grid | None:
        if self.accepts(rows, columns) and self.grid.supports(rows, columns):
            return self.grid
        if self.fallback is not None and self.fallback.supports(rows, columns):
            return self.fallback
        return None

    def supports(self, rows: int, columns: int) -> bool:
        """Whether the container can store a weight ``[rows, columns]`` at low precision at all."""
        return self._choice(rows, columns) is not None

    def type_of(self, rows: int, columns: int) -> str:
        """The name of the grid that a weight ``[rows, columns]`` takes: the fallback's where its shape asks for it."""
        choice = self._choice(rows, columns)
        return self.name if choice is None else choice.name

    def fit(self, weight: torch.Tensor, input_importance: torch.Tensor | None = None) -> FixedGrid:
        """Scales for ``weight`` ``[out, in]`` on the grid that its shape allows.

        Raises:
            ValueError: The container cannot store this shape.
        """
        choice = self._choice(int(weight.shape[0]), int(weight.shape[1]))
        if choice is None:
            raise ValueError(f"{self.name} cannot store a weight of shape {tuple(weight.shape)}")
        return fit_rows(choice, weight, input_importance)
