"""Coordinate descent on the codes of a finished rounding."""

from __future__ import annotations

import torch

from yaqa_runner.grids.grid import FixedGrid
from yaqa_runner.rounding.kernels.numba_tiles import refine_tile
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
    a sweep changes nothing. A sweep costs about ``2 m n (m + n)`` operations.

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
    rows, columns = weight.shape
    if list(codes.shape) != [rows, columns]:
        raise ValueError(f"codes of shape {list(codes.shape)} for a weight of shape {[rows, columns]}")
    if list(hessian_input.shape) != [columns, columns]:
        raise ValueError(f"the input factor has shape {list(hessian_input.shape)}, not {[columns, columns]}")
    if hessian_output is not None and list(hessian_output.shape) != [rows, rows]:
        raise ValueError(f"the output factor has shape {list(hessian_output.shape)}, not {[rows, rows]}")
    if sweeps < 0:
        raise ValueError(f"sweeps must be at least 0, not {sweeps}")
    if sweeps == 0:
        return codes.clone()
    if weight.is_cuda and grid.table is None:
        # Imported here: Triton is installed where CUDA is, and nowhere else.
        from yaqa_runner.rounding.kernels.triton_refine import CudaRefinement

        return CudaRefinement(weight, hessian_input, hessian_output)(grid, codes, sweeps)
    device = codes.device
    tile = _TILE if max(rows, columns) <= 512 else _LARGE_TILE
    # A copy even where one row or column makes the transpose a view: the caller's codes stay.
    current = codes.detach().to("cpu", torch.int16).T.clone(memory_format=torch.contiguous_format)
    # [in, in] and [out, out]: upper triangles.
    metric_input = SymmetricUpper(hessian_input.detach().to("cpu", torch.float32))
    metric_output = None if hessian_output is None else SymmetricUpper(hessian_output.detach().to("cpu", torch.float32))
    row_tiles = [(top, min(top + tile, rows)) for top in range(0, rows, tile)]
    own_output = [
        torch.zeros(1, 1) if metric_output is None else diagonal_block(metric_output, *bounds) for bounds in row_tiles
    ]
    scale, offset = transposed(grid.scale), transposed(grid.offset)  # [groups, out]
    table = None if grid.table is None else grid.table.cpu().numpy()
    error = torch.empty(columns, rows)  # Eᵀ [in, out]
    error_of = rounding_error(weight, grid, codes)
    for top, bottom in row_blocks(0, rows, STRIP_ROWS, error.device):
        error[:, top:bottom] = error_of.rows(top, bottom).T
    for _ in range(sweeps):
        changed = 0
        for left in range((columns - 1) // tile * tile, -1, -tile):
            right = min(left + tile, columns)
            own_input = diagonal_block(metric_input, left, right)
            product = rows_times(own_input, metric_input, left, right, error)  # (E H_I)ᵀ [tile, out]
            for (top, bottom), own in zip(reversed(row_tiles), reversed(own_output), strict=True):
                if metric_output is None:
                    gradient = product[:, top:bottom].clone()
                else:
                    gradient = times_columns(product, own, metric_output, top, bottom)
                changed += refine_tile(
                    gradient.numpy(),
                    product.numpy(),
                    own_input.numpy(),
                    own.numpy(),
                    scale.numpy(),
                    offset.numpy(),
                    grid.group,
                    grid.minimum,
                    grid.maximum,
                    table,
                    grid.least_gap,
                    metric_output is not None,
                    top,
                    bottom,
                    left,
                    right,
                    error.numpy(),
                    current.numpy(),
                )
        if changed == 0:
            break
    del error
    return current.T.contiguous().to(device)
