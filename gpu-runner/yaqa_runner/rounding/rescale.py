"""Fitting the scales to finished codes under the proxy metric."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from yaqa_runner.grids.grid import FixedGrid
from yaqa_runner.grids.tunable import TunableGrid
from yaqa_runner.rounding.factor import SymmetricUpper
from yaqa_runner.rounding.symmetric_product import left_multiplier, right_multiplier

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
    device = hessian_input.device
    tunable = TunableGrid(grid, device)
    codes = codes.to(device)
    exact = weight.detach().to(device, torch.float32)

    by_input = right_multiplier(hessian_input)
    by_output = None if hessian_output is None else left_multiplier(hessian_output)

    def weighed(error: torch.Tensor) -> torch.Tensor:
        product = by_input(error)
        return product if by_output is None else by_output(product)

    def projected(matrix: torch.Tensor) -> dict[str, torch.Tensor]:
        """The transpose of :meth:`TunableGrid.direction`."""
        probe = {key: torch.zeros_like(start, requires_grad=True) for key, start in tunable.starts.items()}
        with torch.enable_grad():
            inner = (tunable.direction(codes, probe) * matrix).sum()
        return dict(zip(probe, torch.autograd.grad(inner, list(probe.values())), strict=True))

    error = exact - grid.decode(codes.to(grid.scale.device)).to(device)
    before = _inner({"e": error}, {"e": weighed(error)})
    change = {key: torch.zeros_like(start) for key, start in tunable.starts.items()}
    residual = projected(weighed(error))
    search = dict(residual)
    norm = first = _inner(residual, residual)
    for _ in range(steps):
        if norm <= 1e-10 * first or norm == 0.0:
            break
        moved = tunable.direction(codes, search)
        weighed_move = weighed(moved)
        curvature = _inner({"m": moved}, {"m": weighed_move})
        if not curvature > 0:
            break
        length = norm / curvature
        applied = projected(weighed_move)
        for key in change:
            change[key] += length * search[key]
            residual[key] = residual[key] - length * applied[key]
        renewed = _inner(residual, residual)
        search = {key: residual[key] + renewed / norm * search[key] for key in search}
        norm = renewed
    # No scale changes its sign or leaves the neighbourhood in which its codes were chosen.
    fitted = tunable.finished({key: value.clamp(-0.5, 0.5) for key, value in change.items()})
    error = exact - fitted.decode(codes.to(fitted.scale.device)).to(device)
    return fitted if _inner({"e": error}, {"e": weighed(error)}) < before else grid


def _inner(left: Mapping[str, torch.Tensor], right: Mapping[str, torch.Tensor]) -> float:
    return float(sum(torch.sum(left[key] * right[key], dtype=torch.float64) for key in left))
