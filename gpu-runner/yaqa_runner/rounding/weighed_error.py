"""``H_O E H_I`` a few rows at a time, of an error ``E`` that is made a few rows at a time.

The one array as large as the weight is ``E H_I``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from yaqa_runner.grids.grid import FixedGrid
from yaqa_runner.rounding.linalg.factor import SymmetricUpper
from yaqa_runner.rounding.linalg.row_blocks import PRODUCT_ROWS, STRIP_ROWS, row_blocks
from yaqa_runner.rounding.linalg.symmetric_product import RowBlocks, multiplied_rows, right_multiplier


@dataclass(frozen=True)
class ErrorRows:
    """A matrix of which a few rows are made at a time.

    Attributes:
        height: Its rows.
        width: Its columns.
        rows: Rows ``start`` to ``stop``, a new float32 ``[stop - start, width]``.
    """

    height: int
    width: int
    rows: Callable[[int, int], torch.Tensor]


def rounding_error(weight: torch.Tensor, grid: FixedGrid, codes: torch.Tensor) -> ErrorRows:
    """``weight − grid.decode(codes)`` ``[out, in]`` on the device of the weight and the grid."""
    exact = weight.detach()
    height, width = exact.shape

    def rows(start: int, stop: int) -> torch.Tensor:
        decoded = grid.rows(start, stop).decode(codes[start:stop].to(exact.device))
        return torch.sub(exact[start:stop], decoded, out=decoded)

    return ErrorRows(height, width, rows)


class Metric:
    """``tr(H_O E H_I Eᵀ)`` for any number of errors ``E`` ``[out, in]``.

    Args:
        hessian_input: ``H_I`` ``[in, in]``, float32, on the device to compute on.
        hessian_output: ``H_O`` ``[out, out]``; ``None`` for the identity.
    """

    def __init__(self, hessian_input: SymmetricUpper, hessian_output: SymmetricUpper | None) -> None:
        self._device = hessian_input.device
        self._by_input = right_multiplier(hessian_input)
        self._by_output = None if hessian_output is None else multiplied_rows(hessian_output)

    def weighed_rows(self, error: ErrorRows) -> RowBlocks:
        """``H_O E H_I``, in strips. Every row of ``error`` is made once."""
        if self._by_output is None:
            for start, stop in row_blocks(0, error.height, PRODUCT_ROWS, self._device):
                yield from self._in_strips(start, stop, self._by_input(self._made(error, start, stop)))
            return
        product = torch.empty(error.height, error.width, device=self._device)
        for start, stop in row_blocks(0, error.height, PRODUCT_ROWS, self._device):
            product[start:stop] = self._by_input(self._made(error, start, stop))
        for start, stop, weighed in self._by_output(product):
            yield from self._in_strips(start, stop, weighed)

    def _made(self, error: ErrorRows, start: int, stop: int) -> torch.Tensor:
        made = torch.empty(stop - start, error.width, device=self._device)
        for top, bottom in row_blocks(start, stop, STRIP_ROWS, self._device):
            made[top - start : bottom - start] = error.rows(top, bottom)
        return made

    def _in_strips(self, start: int, stop: int, rows: torch.Tensor) -> RowBlocks:
        for top, bottom in row_blocks(start, stop, STRIP_ROWS, self._device):
            yield top, bottom, rows[top - start : bottom - start]

    def square(self, error: ErrorRows) -> float:
        """``tr(H_O E H_I Eᵀ)``."""
        return sum(inner(error.rows(start, stop), weighed) for start, stop, weighed in self.weighed_rows(error))


def inner(left: torch.Tensor, right: torch.Tensor) -> float:
    """The sum of ``left * right``, in float64."""
    return float(torch.sum(left * right, dtype=torch.float64))
