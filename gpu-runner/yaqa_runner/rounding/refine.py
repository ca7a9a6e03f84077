"""Coordinate descent on the codes of a finished rounding."""

from __future__ import annotations

from dataclasses import replace

import torch

from yaqa_runner.grids.grid import FixedGrid
from yaqa_runner.rounding.kernels.numba_tiles import refine_tile
from yaqa_runner.rounding.kernels.numba_words import refine_words_tile
from yaqa_runner.rounding.linalg.factor import SymmetricUpper
from yaqa_runner.rounding.linalg.row_blocks import STRIP_ROWS, row_blocks
from yaqa_runner.rounding.linalg.symmetric_product import diagonal_block, rows_times, times_columns
from yaqa_runner.rounding.linalg.transposed import transposed
from yaqa_runner.rounding.weighed_error import rounding_error

_TILE = 64
_LARGE_TILE = 128


def refine(
    weight: torch.Tensor,
    grid: FixedGrid,
    codes: torch.Tensor,
    hessian_input: SymmetricUpper,
    hessian_output: SymmetricUpper | None,
    sweeps: int,
) -> torch.Tensor:
    """Lower ``tr(H_O E H_I Eᵀ)`` by changing one code at a time; codes int16 ``[out, in]``.

    With ``P = E H_I``, the best error of one element is ``e − (H_O P)_ij / (H_O,ii H_I,jj)``. A code changes only where
    the new one is nearer to that by more than the float32 sums can be wrong, so the proxy never rises. Stops early when
    a sweep changes nothing. A sweep costs about ``2 m n (m + n)`` operations. Of a codebook a word at a time changes.

    Args:
        weight: ``[out, in]``.
        grid: Frozen grid.
        codes: The rounding to start from, ``[out, in]``; not modified.
        hessian_input: ``H_I`` ``[in, in]``.
        hessian_output: ``H_O`` ``[out, out]``; ``None`` for the identity.
        sweeps: Most sweeps over all elements; 2 to 6 suffice.

    Raises:
        ValueError: shapes do not fit, or ``sweeps`` is negative.
    """
    _check(weight, codes, hessian_input, hessian_output)
    if sweeps < 0:
        raise ValueError(f"sweeps must be at least 0, not {sweeps}")
    if sweeps == 0:
        return codes.clone()
    if weight.is_cuda and grid.table is None:
        # Imported here: Triton is installed where CUDA is, and nowhere else.
        from yaqa_runner.rounding.kernels.triton_refine import CudaRefinement

        return CudaRefinement(weight, hessian_input, hessian_output)(grid, codes, sweeps)
    descent = _Descent(weight, grid, codes, hessian_input, hessian_output)
    for _ in range(sweeps):
        if descent.sweep() == 0:
            break
    return descent.codes.T.contiguous().to(codes.device)


def refine_sub_scales(
    weight: torch.Tensor,
    grid: FixedGrid,
    codes: torch.Tensor,
    hessian_input: SymmetricUpper,
    hessian_output: SymmetricUpper | None,
) -> tuple[FixedGrid, torch.Tensor]:
    """One sweep that gives each group of a codebook's columns new words under its sub-scale or one beside it.

    As :func:`refine`, a group a turn; what has a lower proxy is taken, scale and codes together.

    Returns:
        The grid and the codes; ``grid`` itself where it is no codebook's, and so has no few sub-scales to try.
    """
    _check(weight, codes, hessian_input, hessian_output)
    if grid.codebook is None:
        return grid, codes
    descent = _Descent(weight, grid, codes, hessian_input, hessian_output)
    descent.sweep(sub_scales=True)
    device = grid.scale.device
    stored = grid.stored | {"sc": descent.sub_scale.T.contiguous().to(device)}
    settled = replace(grid, scale=descent.scale.T.contiguous().to(device), stored=stored)
    return settled, descent.codes.T.contiguous().to(codes.device)


def _check(
    weight: torch.Tensor,
    codes: torch.Tensor,
    hessian_input: SymmetricUpper,
    hessian_output: SymmetricUpper | None,
) -> None:
    rows, columns = weight.shape
    if list(codes.shape) != [rows, columns]:
        raise ValueError(f"codes of shape {list(codes.shape)} for a weight of shape {[rows, columns]}")
    if list(hessian_input.shape) != [columns, columns]:
        raise ValueError(f"the input factor has shape {list(hessian_input.shape)}, not {[columns, columns]}")
    if hessian_output is not None and list(hessian_output.shape) != [rows, rows]:
        raise ValueError(f"the output factor has shape {list(hessian_output.shape)}, not {[rows, rows]}")


class _Descent:
    """Codes of one layer on the CPU on their way down. Everything is transposed, ``[in, out]``, as the kernels want it.

    ``codes``, ``scale`` ``[groups, out]`` and, of a codebook, ``sub_scale`` are what the sweeps so far have made.
    """

    def __init__(
        self,
        weight: torch.Tensor,
        grid: FixedGrid,
        codes: torch.Tensor,
        hessian_input: SymmetricUpper,
        hessian_output: SymmetricUpper | None,
    ) -> None:
        rows, self._columns = weight.shape
        self._grid = grid
        self._tile = _TILE if max(rows, self._columns) <= 512 else _LARGE_TILE
        # A copy even where one row or column makes the transpose a view: the caller's codes stay.
        self.codes = codes.detach().to("cpu", torch.int16).T.clone(memory_format=torch.contiguous_format)
        self.scale = transposed(grid.scale)
        self._offset = transposed(grid.offset)
        if grid.codebook is not None:
            self.sub_scale = grid.stored["sc"].to("cpu", torch.int16).T.clone(memory_format=torch.contiguous_format)
            self._super_scale = transposed(grid.stored["d"])
        # [in, in] and [out, out]: upper triangles.
        self._metric_input = SymmetricUpper(hessian_input.detach().to("cpu", torch.float32))
        self._metric_output = (
            None if hessian_output is None else SymmetricUpper(hessian_output.detach().to("cpu", torch.float32))
        )
        self._row_tiles = [(top, min(top + self._tile, rows)) for top in range(0, rows, self._tile)]
        self._own_output = [
            torch.zeros(1, 1) if self._metric_output is None else diagonal_block(self._metric_output, *bounds)
            for bounds in self._row_tiles
        ]
        self._table = None if grid.table is None else grid.table.cpu().numpy()
        self._error = torch.empty(self._columns, rows)
        error_of = rounding_error(weight, grid, codes)
        for top, bottom in row_blocks(0, rows, STRIP_ROWS, self._error.device):
            self._error[:, top:bottom] = error_of.rows(top, bottom).T

    def sweep(self, *, sub_scales: bool = False) -> int:
        """Once over all columns; how many codes, words or groups changed."""
        changed = 0
        for left in range((self._columns - 1) // self._tile * self._tile, -1, -self._tile):
            right = min(left + self._tile, self._columns)
            own_input = diagonal_block(self._metric_input, left, right)
            # (E H_I)ᵀ [tile, out].
            product = rows_times(own_input, self._metric_input, left, right, self._error)
            for (top, bottom), own in zip(reversed(self._row_tiles), reversed(self._own_output), strict=True):
                if self._metric_output is None:
                    gradient = product[:, top:bottom].clone()
                else:
                    gradient = times_columns(product, own, self._metric_output, top, bottom)
                sums = (gradient, product, own_input, own)
                changed += self._sweep_tile(sums, (top, bottom, left, right), sub_scales)
        return changed

    def _sweep_tile(self, sums: tuple[torch.Tensor, ...], place: tuple[int, int, int, int], sub_scales: bool) -> int:
        grid, book = self._grid, self._grid.codebook
        two_sided = self._metric_output is not None
        made = [part.numpy() for part in sums]
        scale, written = self.scale.numpy(), (self._error.numpy(), self.codes.numpy())
        if book is None:
            levels = (grid.minimum, grid.maximum, self._table, grid.least_gap)
            return int(
                refine_tile(*made, scale, self._offset.numpy(), grid.group, *levels, two_sided, *place, *written)
            )
        sub_scale, span = (self.sub_scale.numpy(), grid.group) if sub_scales else (None, book.width)
        scales = (scale, grid.group, self._super_scale.numpy(), sub_scale)
        words = (span, book.width, self._table, book.trie, book.even_signs, grid.least_gap)
        return int(refine_words_tile(*made, *scales, *words, two_sided, *place, *written))
