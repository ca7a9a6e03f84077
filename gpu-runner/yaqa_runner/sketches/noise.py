"""What rounding noise costs under a pair of factors, and which weight each token therefore has in the other factor.

Rounding with ``H_O = L_O D_O L_Oᵀ`` and ``H_I = L_I D_I L_Iᵀ`` (unit lower triangles) leaves an error ``E`` of which
``N = L_Oᵀ E L_I`` is the difference between each element's target and its code: noise without direction, of the grid's
variance. A token with input ``x`` and output gradient ``g`` then costs

    E (gᵀ E x)² = variance · |L_O⁻¹ g|² · |L_I⁻¹ x|²,

and for a fixed ``L_O`` the ``L_I`` of least mean cost is that of ``E[x xᵀ |L_O⁻¹ g|²]``; likewise the other way round.
So a token's weight in one factor is its *whitened* norm in the other. The power iteration of arXiv 2505.22988
(section 3) takes ``gᵀ H_O g`` instead: the nearest Kronecker product in the Frobenius norm, in which the few tokens
with the largest gradients count with their fourth power and leave the identity to all others.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from yaqa_runner.sketches.triangular import factor_in_place, invert_in_place, make_unit_in_place, squared

DAMPING = 0.1
"""Share of the mean diagonal that a factor is damped by before tokens are weighed by it."""
_DOUBLINGS = 24


@dataclass(frozen=True)
class NoiseKernel:
    """One side of the cost.

    Attributes:
        matrix: ``(L Lᵀ)⁻¹`` float32 ``[n, n]``: ``xᵀ matrix x = |L⁻¹ x|²``.
        pivots: ``tr D``: the mean cost of the tokens that the factor is the weighed second moment of.
    """

    matrix: torch.Tensor
    pivots: float


def noise_kernel(factor: torch.Tensor, damping: float = DAMPING) -> NoiseKernel:
    """The kernel of a symmetric ``factor`` ``[n, n]``, damped by a share of its mean diagonal.

    A factor that says nothing (zero, not finite, never positive definite) weighs all directions alike.
    """
    size = factor.shape[0]
    mean = float(factor.diagonal().to(torch.float64).mean())
    if not mean > torch.finfo(torch.float32).tiny:
        return NoiseKernel(torch.eye(size, device=factor.device), max(0.0, mean) * size)
    lower = damped_cholesky(factor, damping)
    if lower is None:
        return NoiseKernel(torch.eye(size, device=factor.device), mean * size)
    pivots = make_unit_in_place(lower)
    invert_in_place(lower)
    return NoiseKernel(squared(lower), mean * float(pivots.square().sum()))


def damped_cholesky(factor: torch.Tensor, damping: float) -> torch.Tensor | None:
    """The Cholesky factor, float64, of a ``factor`` ``[n, n]`` over its mean diagonal, ``damping`` added to that.

    On and below the diagonal, that is; above it lies what means nothing. ``damping`` is doubled until it succeeds;
    ``None`` where it never does, or the mean is not above zero.
    """
    mean = float(factor.diagonal().to(torch.float64).mean())
    if not mean > 0:
        return None
    added = damping
    for _ in range(_DOUBLINGS):
        lower = factor.to(torch.float64, copy=True).div_(mean)
        lower.diagonal().add_(added)
        if factor_in_place(lower):
            return lower
        # Freed before the next one is made.
        del lower
        added = max(2 * added, 1e-6)
    return None


def whitened(lower: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """``|L⁻¹ v|²`` of every row of ``values`` ``[tokens, n]``, for the Cholesky factor ``lower = L D^½``; spends it."""
    make_unit_in_place(lower)
    unit = lower.to(values.dtype)
    solved = torch.linalg.solve_triangular(unit, values.T, upper=False, unitriangular=True)
    norms: torch.Tensor = solved.square().sum(dim=0)
    return norms


def gradient_shares(g: torch.Tensor) -> torch.Tensor:
    """``1 / |g|`` of every row of ``g`` ``[tokens, out]``; 0 where the gradient is.

    A token counts with its gradient's length, not with the square of it. Lengths are heavy-tailed: on SmolLM2-135M one
    token of 5,376 holds 77 % of the squares of a ``q_proj``, another 84 % of a ``v_proj``'s, and such a token's KL,
    which is bounded, never grows to what the square predicts.
    """
    length = g.float().norm(dim=1)
    return torch.where(length > 0, 1 / length.clamp(min=torch.finfo(torch.float32).tiny), torch.zeros_like(length))
