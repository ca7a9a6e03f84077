"""Rounding a linear layer's weight on a frozen grid."""

from __future__ import annotations

from concurrent.futures import Executor

import numpy as np
import torch

from yaqa_runner.grids.codebooks import Codebook
from yaqa_runner.grids.grid import FixedGrid
from yaqa_runner.machine.cores import available_cores
from yaqa_runner.rounding.kernels.numba_tiles import round_tile
from yaqa_runner.rounding.kernels.numba_words import round_words_tile
from yaqa_runner.rounding.linalg.factor import SymmetricUpper, UnitLower, whole_unit_lower
from yaqa_runner.rounding.linalg.finite import all_finite
from yaqa_runner.rounding.linalg.transposed import transposed
from yaqa_runner.rounding.weighed_error import ErrorRows, Metric
from yaqa_runner.rounding.workers import single_core_workers

SMALL_TILE = 64
LARGE_TILE = 128
# Below this size a layer is done before a second thread has helped.
_PARALLEL_ELEMENTS = 1 << 20


def round_nearest(weight: torch.Tensor, grid: FixedGrid) -> torch.Tensor:
    """Codes int16 ``[out, in]`` nearest to ``weight`` ``[out, in]``.

    Raises:
        ValueError: shapes do not fit, or the weight is not finite.
    """
    _check_weight(weight, grid)
    return grid.nearest(weight.detach().to(grid.scale.device, torch.float32))


def round_adaptive(
    weight: torch.Tensor,
    grid: FixedGrid,
    factor_input: UnitLower,
    factor_output: UnitLower | None,
    *,
    pivots_input: torch.Tensor | None = None,
    tile: int | None = None,
    threads: int | None = None,
) -> torch.Tensor:
    """Round ``weight`` ``[out, in]`` so that ``tr(H_O E H_I Eᵀ)`` stays small; codes int16 ``[out, in]``.

    The exact two-sided feedback of arXiv 2505.22988 in cubic time (arXiv 2607.27042): with ``G = E L_I`` kept, a tile
    needs one product along its rows, one along its columns, and a short loop inside. Tiles on an anti-diagonal do not
    depend on each other and run in parallel. Equal to ``reference_round_adaptive`` but for ties of float32 sums.

    Args:
        weight: ``[out, in]``; computed in float32.
        grid: Frozen grid.
        factor_input: ``L_I`` ``[in, in]`` of ``H_I = L_I D_I L_Iᵀ``.
        factor_output: ``L_O`` ``[out, out]``; ``None`` rounds one-sided (GPTQ), without the output feedback's work.
        pivots_input: ``D_I`` ``[in]``; only codebooks ask for it, whose words weigh their columns' errors together.
        tile: Side of a tile, whole words; chosen by size when ``None``.
        threads: Threads to use; all cores for large layers when ``None``.

    Raises:
        ValueError: shapes do not fit, or a value is not finite.
    """
    _check_weight(weight, grid)
    rows, columns = weight.shape
    _check_square(factor_input, columns, "the input factor")
    if factor_output is not None:
        _check_square(factor_output, rows, "the output factor")
    pivots = None if grid.codebook is None else _checked_pivots(pivots_input, columns, grid.codebook)
    if weight.is_cuda and grid.table is None:
        # Imported here: Triton is installed where CUDA is, and nowhere else.
        from yaqa_runner.rounding.kernels.triton_round import round_adaptive_cuda

        return round_adaptive_cuda(weight, grid, factor_input, factor_output)
    tile = tile or (SMALL_TILE if max(rows, columns) <= 512 else LARGE_TILE)
    if threads is None:
        threads = available_cores() if weight.numel() >= _PARALLEL_ELEMENTS else 1
    # The kernels of a GPU round to whole numbers; onto tables and codebooks the processor does, wherever the weight is.
    codes = _transposed_codes(weight, grid, factor_input, factor_output, pivots, tile, threads)
    return codes.T.contiguous().to(weight.device)


def _transposed_codes(
    weight: torch.Tensor,
    grid: FixedGrid,
    factor_input: UnitLower,
    factor_output: UnitLower | None,
    pivots: torch.Tensor | None,
    tile: int,
    threads: int,
) -> torch.Tensor:
    """Codes ``[in, out]``; all else that a layer takes is free again on return."""
    layer = _Layer(weight, grid, factor_input, factor_output, pivots, tile)
    if threads <= 1:
        layer.run(None)
    else:
        with single_core_workers(threads) as pool:
            layer.run(pool)
    return layer.codes


class _Layer:
    """One layer on its way through the tiles. Everything is held transposed, ``[in, out]``, as the kernel wants it."""

    def __init__(
        self,
        weight: torch.Tensor,
        grid: FixedGrid,
        factor_input: UnitLower,
        factor_output: UnitLower | None,
        pivots: torch.Tensor | None,
        tile: int,
    ) -> None:
        self.rows, self.columns = weight.shape
        self.tile = tile
        self.grid = grid
        # The weight makes room for the error, element by element.
        self.error = transposed(weight)  # [in, out]
        self.scale = transposed(grid.scale)  # [groups, out]
        self.offset = transposed(grid.offset)  # [groups, out]
        self.lower_input = factor_input.detach().to("cpu", torch.float32).contiguous()  # [in, in]
        self.two_sided = factor_output is not None
        self.lower_output = (
            torch.zeros(1, 1) if factor_output is None else factor_output.detach().to("cpu", torch.float32).contiguous()
        )
        self.table = None if grid.table is None else grid.table.cpu().numpy()
        self.pivots = None if pivots is None else pivots.detach().to("cpu", torch.float32).numpy()
        # E L_I of the tiles that are done, [in, out].
        self.fed = torch.empty_like(self.error) if self.two_sided else torch.zeros(1, 1)
        self.codes = torch.zeros(self.columns, self.rows, dtype=torch.int16)  # [in, out]
        # Views for the kernel, made once: building one costs as much as a small tile.
        self._arrays = tuple(part.numpy() for part in (self.lower_input, self.lower_output, self.scale, self.offset))
        self._written = tuple(part.numpy() for part in (self.error, self.fed, self.codes))

    def run(self, pool: Executor | None) -> None:
        column_tiles = -(-self.columns // self.tile)
        row_tiles = -(-self.rows // self.tile)
        if not self.two_sided:
            blocks = range(row_tiles)
            if pool is None:
                for block in blocks:
                    self._round_rows(block, column_tiles)
            else:
                list(pool.map(lambda block: self._round_rows(block, column_tiles), blocks))
            return
        for wave in range(column_tiles + row_tiles - 1):
            first = max(0, wave - column_tiles + 1)
            last = min(wave, row_tiles - 1)
            tiles = [(row_tiles - 1 - step, column_tiles - 1 - (wave - step)) for step in range(first, last + 1)]
            if pool is None or len(tiles) == 1:
                for row, column in tiles:
                    self._round_tile(row, column)
            else:
                list(pool.map(lambda tile: self._round_tile(*tile), tiles))

    def _round_rows(self, row: int, column_tiles: int) -> None:
        for column in range(column_tiles - 1, -1, -1):
            self._round_tile(row, column)

    def _round_tile(self, row: int, column: int) -> None:
        top, left = row * self.tile, column * self.tile
        bottom, right = min(top + self.tile, self.rows), min(left + self.tile, self.columns)
        # [tile's columns, tile's rows]: along the rows of the weight, then along its columns.
        feedback = self.lower_input[right:, left:right].T @ self.error[right:, top:bottom]
        if self.two_sided:
            self.fed[left:right, top:bottom] = feedback
            feedback = torch.addmm(feedback, self.fed[left:right, bottom:], self.lower_output[bottom:, top:bottom])
        place = (top, bottom, left, right)
        lower_input, lower_output, scale, offset = self._arrays
        error, fed, codes = self._written
        book = self.grid.codebook
        if book is not None:
            round_words_tile(
                feedback.numpy(),
                lower_input,
                self.pivots,
                lower_output,
                scale,
                self.grid.group,
                book.width,
                self.table,
                book.trie,
                book.even_signs,
                self.two_sided,
                *place,
                error,
                fed,
                codes,
            )
            return
        round_tile(
            feedback.numpy(),
            lower_input,
            lower_output,
            scale,
            offset,
            self.grid.group,
            self.grid.minimum,
            self.grid.maximum,
            self.table,
            self.two_sided,
            *place,
            error,
            fed,
            codes,
        )


def rounding_targets(
    weight: torch.Tensor,
    decoded: torch.Tensor,
    factor_input: UnitLower,
    factor_output: UnitLower | None,
) -> torch.Tensor:
    """What every element of a finished rounding was rounded from, float64 ``[out, in]``, given all later codes.

    ``W + L_Oᵀ E L_I − E``: a rounding is right where each decoded value is the grid's nearest to its target, which
    checks codes of any size in cubic time.
    """
    exact = weight.to(torch.float64)
    error = exact - decoded.to(torch.float64)
    fed_back = error @ whole_unit_lower(UnitLower(factor_input.to(torch.float64)))
    if factor_output is not None:
        fed_back = whole_unit_lower(UnitLower(factor_output.to(torch.float64))).T @ fed_back
    return exact + fed_back - error


def proxy_error(
    weight: torch.Tensor,
    decoded: torch.Tensor,
    hessian_input: SymmetricUpper,
    hessian_output: SymmetricUpper | None,
) -> float:
    """``tr(H_O E H_I Eᵀ)`` with ``E = weight − decoded`` ``[out, in]``; ``H_O = I`` when ``None``.

    Half of it, in the sketches' own scale, is the predicted KL in nats (arXiv 2505.22988, section 3).
    """

    def error(start: int, stop: int) -> torch.Tensor:
        return weight[start:stop].detach().to(torch.float32) - decoded[start:stop].to(torch.float32)

    rows, columns = weight.shape
    metric_input = SymmetricUpper(hessian_input.to(torch.float32))
    metric_output = None if hessian_output is None else SymmetricUpper(hessian_output.to(torch.float32))
    return Metric(metric_input, metric_output).square(ErrorRows(rows, columns, error))


def _check_weight(weight: torch.Tensor, grid: FixedGrid) -> None:
    if weight.ndim != 2 or weight.numel() == 0:
        raise ValueError(f"a weight is a matrix with at least one element, not one of shape {list(weight.shape)}")
    groups = -(-weight.shape[1] // grid.group)
    if list(grid.scale.shape) != [weight.shape[0], groups] or grid.offset.shape != grid.scale.shape:
        raise ValueError(
            f"the grid has scales {list(grid.scale.shape)} in groups of {grid.group}"
            f" for a weight of shape {list(weight.shape)}"
        )
    if not all_finite(weight):
        raise ValueError("the weight holds values that are not finite")
    if not (all_finite(grid.scale) and all_finite(grid.offset)):
        raise ValueError("the grid holds values that are not finite")
    if not np.iinfo(np.int16).min <= grid.minimum < grid.maximum <= np.iinfo(np.int16).max:
        raise ValueError(f"the grid's codes {grid.minimum} to {grid.maximum} are no range of 16-bit integers")
    if grid.table is not None and (grid.minimum, grid.maximum + 1) != (0, len(grid.table)):
        raise ValueError(
            f"the grid's codes {grid.minimum} to {grid.maximum} are not those of its {len(grid.table)} levels"
        )


def _check_square(factor: torch.Tensor, size: int, what: str) -> None:
    if list(factor.shape) != [size, size]:
        raise ValueError(f"{what} has shape {list(factor.shape)}, not {[size, size]}")
    if not all_finite(factor):
        raise ValueError(f"{what} holds values that are not finite")


def _checked_pivots(pivots: torch.Tensor | None, columns: int, book: Codebook) -> torch.Tensor:
    if columns % book.width:
        raise ValueError(f"{columns} input columns are no whole words of {book.width}, as {book.name} has them")
    if pivots is None or list(pivots.shape) != [columns]:
        raise ValueError(
            f"rounding onto {book.name} takes the input factor's pivots, one for each of {columns} columns"
        )
    if not (all_finite(pivots) and bool((pivots > 0).all())):
        raise ValueError("the input factor's pivots are not all positive")
    return pivots
