"""Fitting the scales to finished codes under the proxy metric."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from yaqa_runner.grids.grid import FixedGrid
from yaqa_runner.grids.tunable import TunableGrid, is_tunable
from yaqa_runner.rounding.linalg.factor import SymmetricUpper
from yaqa_runner.rounding.linalg.row_blocks import STRIP_ROWS, row_blocks
from yaqa_runner.rounding.weighed_error import ErrorRows, Metric, inner, rounding_error

STEPS = 12


def rescale(
    weight: torch.Tensor,
    grid: FixedGrid,
    codes: torch.Tensor,
    hessian_input: SymmetricUpper,
    hessian_output: SymmetricUpper | None,
    steps: int = STEPS,
) -> FixedGrid:
    """The grid whose stored scales lower ``tr(H_O E H_I Eᵀ)`` for fixed ``codes``; ``grid`` itself where none does.

    With the codes fixed, the weight is linear in the scales and the proxy quadratic: ``steps`` of conjugate gradients
    on all scales of the layer at once, then the container's rounding. A step costs about ``2 m n (m + n)`` operations.

    Args:
        weight: ``[out, in]``.
        grid: The grid that ``codes`` were rounded on.
        codes: ``[out, in]`` int16.
        hessian_input: ``H_I`` ``[in, in]``.
        hessian_output: ``H_O`` ``[out, out]``; ``None`` for the identity.
        steps: Most steps.

    Raises:
        ValueError: the grid stores no scale.
    """
    if not is_tunable(grid):
        return grid
    device = hessian_input.device
    tunable = TunableGrid(grid, device)
    codes = codes.to(device)  # [out, in]
    exact = weight.detach().to(device)  # [out, in]
    rows, columns = weight.shape
    # Every row has scales of its own. Whole, their derivatives would take several times the weight.
    strips = row_blocks(0, rows, STRIP_ROWS, device)
    parts = {strip: TunableGrid(grid.rows(*strip), device) for strip in strips}
    metric = Metric(hessian_input, hessian_output)

    def moved(changes: Mapping[str, torch.Tensor]) -> ErrorRows:
        def some(start: int, stop: int) -> torch.Tensor:
            own = {key: change[start:stop] for key, change in changes.items()}
            return parts[start, stop].direction(codes[start:stop], own)

        return ErrorRows(rows, columns, some)

    def gathered(error: ErrorRows) -> tuple[dict[str, torch.Tensor], float]:
        """What ``H_O E H_I`` says of every scale, and ``tr(H_O E H_I Eᵀ)``."""
        found = [
            (parts[start, stop].gathered(codes[start:stop], weighed), inner(error.rows(start, stop), weighed))
            for start, stop, weighed in metric.weighed_rows(error)
        ]
        joined = {key: torch.cat([part[key] for part, _ in found]) for key in tunable.starts}
        return joined, sum(square for _, square in found)

    residual, before = gathered(rounding_error(exact, grid.to(device), codes))
    # Each [out, groups], as the container stores it.
    change = {key: torch.zeros_like(start) for key, start in tunable.starts.items()}
    search = dict(residual)
    norm = first = _inner(residual, residual)
    for _ in range(steps):
        if norm <= 1e-10 * first or norm == 0.0:
            break
        curved, curvature = gathered(moved(search))
        if not curvature > 0:
            break
        length = norm / curvature
        for key in change:
            change[key] += length * search[key]
            residual[key] = residual[key] - length * curved[key]
        renewed = _inner(residual, residual)
        search = {key: residual[key] + renewed / norm * search[key] for key in search}
        norm = renewed
    # No scale changes its sign or leaves the neighbourhood in which its codes were chosen.
    fitted = tunable.finished({key: value.clamp(-0.5, 0.5) for key, value in change.items()})
    after = metric.square(rounding_error(exact, fitted.to(device), codes))
    return fitted if after < before else grid


def _inner(left: Mapping[str, torch.Tensor], right: Mapping[str, torch.Tensor]) -> float:
    return sum(inner(left[key], right[key]) for key in left)
