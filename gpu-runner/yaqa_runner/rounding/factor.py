"""Kronecker factors made ready for rounding: normalised, regularised, factored as ``L D Lᵀ``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import torch

UnitLower: TypeAlias = torch.Tensor
"""Unit lower triangular float32 ``[n, n]`` with ``H = L D Lᵀ``."""

_MAXIMUM_DOUBLINGS = 24
_SMALLEST_SIGMA = 1e-6


@dataclass(frozen=True)
class PreparedFactor:
    """A factor that the rounding can use.

    Attributes:
        hessian: ``H / mean_diagonal + sigma I``, float32 ``[n, n]``, symmetric, mean diagonal ``1 + sigma``.
        lower: ``L`` of ``hessian = L D Lᵀ``, unit lower triangular float32 ``[n, n]``.
        sigma: The share of the identity that was added, after any doubling.
        diagonal: Diagonal of ``hessian``, float32 ``[n]``: the importance of each row or column.
        mean_diagonal: What the given matrix was divided by; multiply a proxy error by it to get back its unit.
        reason: Why the identity stands in for the given matrix, or ``None`` when it does not.
    """

    hessian: torch.Tensor
    lower: UnitLower
    sigma: float
    diagonal: torch.Tensor
    mean_diagonal: float
    reason: str | None = None


def unit_lower(hessian: torch.Tensor) -> UnitLower:
    """``L`` of ``H = L D Lᵀ`` for a positive definite ``H`` ``[n, n]``; computed in float64, returned in float32.

    Raises:
        torch.linalg.LinAlgError: ``H`` is not positive definite.
    """
    cholesky: torch.Tensor = torch.linalg.cholesky(hessian.to(torch.float64))
    return (cholesky / cholesky.diagonal()).to(torch.float32).contiguous()


def identity_factor(size: int, reason: str | None = None) -> PreparedFactor:
    """The factor that knows nothing: ``H = I`` ``[size, size]``."""
    eye = torch.eye(size, dtype=torch.float32)
    return PreparedFactor(eye, eye.clone(), 0.0, torch.ones(size), 1.0, reason)


def prepare_factor(hessian: torch.Tensor, sigma: float) -> PreparedFactor:
    """Normalise ``H`` ``[n, n]`` to mean diagonal 1, add ``sigma I``, and factor it in float64.

    ``sigma`` is doubled until the Cholesky factorization succeeds (the paper's regularization, section 5).
    Inputs or outputs that never fired (zero rows) stay: ``sigma I`` gives them a small weight of their own.
    A matrix that holds no information (not finite, zero, negative diagonal, never positive definite) becomes
    the identity, and ``reason`` says why.

    Raises:
        ValueError: ``H`` is not square, or ``sigma`` is negative or not finite.
    """
    if hessian.ndim != 2 or hessian.shape[0] != hessian.shape[1] or hessian.shape[0] == 0:
        raise ValueError(f"a Kronecker factor is a square matrix, not one of shape {list(hessian.shape)}")
    if not math.isfinite(sigma) or sigma < 0:
        raise ValueError(f"sigma must be a finite number of at least 0, not {sigma}")
    size = hessian.shape[0]
    exact = hessian.detach().to("cpu", torch.float64)
    if not bool(torch.isfinite(exact).all()):
        return identity_factor(size, "the factor holds values that are not finite")
    # In place wherever possible: this matrix in float64 is the largest thing that rounding holds.
    if exact.data_ptr() == hessian.data_ptr():
        exact = exact.clone()
    if not torch.equal(exact, exact.T):
        exact = exact.add_(exact.T.clone()).div_(2)
    mean = float(exact.diagonal().mean())
    if bool((exact.diagonal() < 0).any()):
        return identity_factor(size, "the factor has a negative diagonal")
    if mean < torch.finfo(torch.float32).tiny:
        return identity_factor(size, "the factor is zero")
    exact.div_(mean)
    own = exact.diagonal().clone()
    added = sigma
    for _ in range(_MAXIMUM_DOUBLINGS):
        exact.diagonal().copy_(own + added)
        cholesky, info = torch.linalg.cholesky_ex(exact)
        if int(info) == 0:
            lower = cholesky.div_(cholesky.diagonal().clone()).to(torch.float32).contiguous()
            del cholesky
            # A pivot near underflow passes Cholesky and still gives a factor that float32 cannot hold.
            if bool(torch.isfinite(lower).all()):
                kept = exact.to(torch.float32).contiguous()
                return PreparedFactor(kept, lower, added, kept.diagonal().clone(), mean)
        added = max(2 * added, _SMALLEST_SIGMA)
    return identity_factor(size, "the factor is not positive definite under any regularization")
