"""Two-sided adaptive rounding and its refinement, element by element: slow, literal, the fast versions' check."""

from __future__ import annotations

import torch

from yaqa_runner.grids.grid import FixedGrid
from yaqa_runner.rounding.kernels.numba_tiles import REFINE_MARGIN
from yaqa_runner.rounding.linalg.factor import SymmetricUpper, UnitLower, whole_symmetric, whole_unit_lower


def reference_round_adaptive(
    weight: torch.Tensor,
    grid: FixedGrid,
    factor_input: UnitLower,
    factor_output: UnitLower | None,
    dtype: torch.dtype = torch.float64,
) -> torch.Tensor:
    """Round ``weight`` ``[out, in]`` from the last row and column to the first; codes int16 ``[out, in]``.

    ``target_ij = W_ij + (L_Oᵀ E L_I)_ij − E_ij`` with ``E = W − Ŵ`` zero where nothing was rounded yet. With
    ``H = L D Lᵀ`` the proxy error is ``Σ d_i d_j (L_Oᵀ E L_I)_ij²``, and the target makes its term vanish but for the
    rounding itself (arXiv 2505.22988, section 4). Quartic in the size.

    Args:
        weight: ``[out, in]``.
        grid: Frozen grid.
        factor_input: ``L_I`` ``[in, in]``.
        factor_output: ``L_O`` ``[out, out]``; ``None`` for the identity (one-sided, GPTQ).
        dtype: Precision of the sums.
    """
    rows, columns = weight.shape
    scale, offset = (part.to(dtype) for part in grid.expand(columns))
    exact = weight.to(dtype)
    lower_input = whole_unit_lower(UnitLower(factor_input.to(dtype)))
    lower_output = (
        torch.eye(rows, dtype=dtype) if factor_output is None else whole_unit_lower(UnitLower(factor_output.to(dtype)))
    )
    error = torch.zeros_like(exact)
    codes = torch.zeros(rows, columns, dtype=torch.int16)
    for column in range(columns - 1, -1, -1):
        for row in range(rows - 1, -1, -1):
            fed_back = lower_output[row:, row] @ error[row:, column:] @ lower_input[column:, column]
            code, value = _quantize(exact[row, column] + fed_back, scale[row, column], offset[row, column], grid)
            codes[row, column] = code
            error[row, column] = exact[row, column] - value
    return codes


def reference_refine(
    weight: torch.Tensor,
    grid: FixedGrid,
    codes: torch.Tensor,
    hessian_input: SymmetricUpper,
    hessian_output: SymmetricUpper | None,
    sweeps: int,
) -> torch.Tensor:
    """Coordinate descent on ``tr(H_O E H_I Eᵀ)`` over the codes ``[out, in]``, one element at a time, in float64.

    The order is the fast version's: columns from last to first, rows from last to first in each.
    """
    rows, columns = weight.shape
    scale, offset = (part.to(torch.float64) for part in grid.expand(columns))
    exact = weight.to(torch.float64)
    metric_input = whole_symmetric(SymmetricUpper(hessian_input.to(torch.float64)))
    metric_output = (
        torch.eye(rows, dtype=torch.float64)
        if hessian_output is None
        else whole_symmetric(SymmetricUpper(hessian_output.to(torch.float64)))
    )
    codes = codes.clone()
    error = exact - (scale * grid.levels(codes).to(torch.float64) + offset)
    for _ in range(sweeps):
        for column in range(columns - 1, -1, -1):
            for row in range(rows - 1, -1, -1):
                curvature = metric_output[row, row] * metric_input[column, column]
                gradient = metric_output[row] @ error @ metric_input[:, column]
                wanted = exact[row, column] - (error[row, column] - gradient / curvature)
                code, value = _quantize(wanted, scale[row, column], offset[row, column], grid)
                current = exact[row, column] - error[row, column]
                if abs(current - wanted) - abs(value - wanted) > REFINE_MARGIN * grid.least_gap * abs(
                    scale[row, column]
                ):
                    codes[row, column] = code
                    error[row, column] = exact[row, column] - value
    return codes


def _quantize(
    target: torch.Tensor, scale: torch.Tensor, offset: torch.Tensor, grid: FixedGrid
) -> tuple[int, torch.Tensor]:
    position = torch.zeros_like(target) if scale == 0 else (target - offset) / scale
    if grid.table is None:
        code = int(position.round().clamp(grid.minimum, grid.maximum))
        return code, scale * code + offset
    levels = grid.table.to(target.dtype)
    code = int((levels - position).abs().argmin())
    return code, scale * levels[code] + offset
