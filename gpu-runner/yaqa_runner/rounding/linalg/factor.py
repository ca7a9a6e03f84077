"""Kronecker factors made ready for rounding: normalised, regularised, factored as ``L D Lᵀ``."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NewType, TypeAlias

import torch

from yaqa_runner.machine.allocator import give_small_blocks_back
from yaqa_runner.rounding.linalg.cholesky import cholesky_panels, panel_bounds
from yaqa_runner.rounding.linalg.finite import all_finite
from yaqa_runner.rounding.linalg.row_blocks import STRIP_ROWS, row_blocks

UnitLower = NewType("UnitLower", torch.Tensor)
"""``[n, n]`` whose strict lower triangle is that of ``L`` in ``H = L D Lᵀ``; what else it holds is not looked at."""

SymmetricUpper = NewType("SymmetricUpper", torch.Tensor)
"""``[n, n]`` whose upper triangle, diagonal included, is that of a symmetric matrix; the rest is not looked at."""

RowsToDiagonal: TypeAlias = Callable[[int, int], torch.Tensor]
"""Rows ``start`` to ``stop`` of a symmetric matrix as far as column ``stop``, ``[stop - start, stop]``."""

_MAXIMUM_DOUBLINGS = 24
_SMALLEST_SIGMA = 1e-6


@dataclass(frozen=True)
class PreparedFactor:
    """A factor that the rounding can use: ``H / mean_diagonal + sigma I = L D Lᵀ``, in the memory of one matrix.

    Attributes:
        square: float32 ``[n, n]``: the matrix in the upper triangle with the diagonal, ``L`` strictly below, without
            its diagonal of ones. ``symmetric`` and ``unit_lower`` are this tensor, under the type that says which
            triangle is meant.
        sigma: The share of the identity that was added, after any doubling.
        diagonal: Diagonal of the matrix, float32 ``[n]``, mean ``1 + sigma``: the importance of each row or column.
        pivots: ``D``, float32 ``[n]``: what is left of that importance once the earlier rows or columns have answered.
        mean_diagonal: What the given matrix was divided by; multiply a proxy error by it to get back its unit.
        reason: Why the identity stands in for the given matrix, or ``None`` when it does not.
    """

    square: torch.Tensor
    sigma: float
    diagonal: torch.Tensor
    pivots: torch.Tensor
    mean_diagonal: float
    reason: str | None = None

    @property
    def symmetric(self) -> SymmetricUpper:
        """The matrix, as its upper triangle ``[n, n]``; no copy."""
        return SymmetricUpper(self.square)

    @property
    def unit_lower(self) -> UnitLower:
        """``L``, as its strict lower triangle ``[n, n]``; no copy."""
        return UnitLower(self.square)

    @property
    def hessian(self) -> torch.Tensor:
        """The matrix alone, ``[n, n]``; a copy."""
        return whole_symmetric(self.symmetric)

    @property
    def lower(self) -> torch.Tensor:
        """``L`` alone, ``[n, n]``; a copy."""
        return whole_unit_lower(self.unit_lower)


def whole_symmetric(upper: SymmetricUpper) -> torch.Tensor:
    """The symmetric matrix ``[n, n]`` with both its triangles; a copy."""
    return upper.triu() + upper.triu(1).T


def whole_unit_lower(lower: UnitLower) -> torch.Tensor:
    """``L`` ``[n, n]`` with its diagonal of ones and zeros above; a copy."""
    whole = lower.tril(-1)
    whole.diagonal().fill_(1)
    return whole


def identity_factor(size: int, reason: str | None = None, device: torch.device | None = None) -> PreparedFactor:
    """The factor that knows nothing: ``H = I`` ``[size, size]``."""
    ones = torch.ones(size, device=device)
    return PreparedFactor(torch.eye(size, device=device), 0.0, ones, ones, 1.0, reason)


def prepare_factor(hessian: torch.Tensor, sigma: float) -> PreparedFactor:
    """Normalise ``H`` ``[n, n]`` to mean diagonal 1, add ``sigma I``, and factor it; see :func:`prepare_rows`.

    Of a matrix that is not quite symmetric the symmetric part counts.

    Raises:
        ValueError: ``H`` is not square, or ``sigma`` is negative or not finite.
    """
    if hessian.ndim != 2 or hessian.shape[0] != hessian.shape[1] or hessian.shape[0] == 0:
        raise ValueError(f"a Kronecker factor is a square matrix, not one of shape {list(hessian.shape)}")
    matrix = hessian.detach()

    def rows(start: int, stop: int) -> torch.Tensor:
        across = matrix[start:stop, :stop].to(torch.float64)
        return (across + matrix[:stop, start:stop].T.to(torch.float64)) / 2

    return prepare_rows(rows, hessian.shape[0], sigma, hessian.device)


def prepare_rows(rows: RowsToDiagonal, size: int, sigma: float, device: torch.device) -> PreparedFactor:
    """Normalise a symmetric ``[size, size]`` to mean diagonal 1, add ``sigma I``, and factor it in float64.

    ``sigma`` is doubled until the Cholesky factorization succeeds (the paper's regularization, section 5).
    Inputs or outputs that never fired (zero rows) stay: ``sigma I`` gives them a small weight of their own.
    A matrix that holds no information (not finite, zero, negative diagonal, never positive definite) becomes
    the identity, and ``reason`` says why.

    One triangle is held in float64, and makes room for the float32 square as that is filled: little more than
    ``4 size²`` bytes at any time, beyond what ``rows`` reads from.

    Args:
        rows: The matrix; a new tensor at each call. Every row is read three times, and once more for each doubling.
        size: Its side.
        sigma: Share of the identity to add.
        device: Where to compute, and where the result is.

    Raises:
        ValueError: ``sigma`` is negative or not finite.
    """
    if not math.isfinite(sigma) or sigma < 0:
        raise ValueError(f"sigma must be a finite number of at least 0, not {sigma}")

    def exact(start: int, stop: int) -> torch.Tensor:
        return rows(start, stop).to(device, torch.float64)

    own = torch.empty(size, dtype=torch.float64, device=device)
    for start, stop in row_blocks(0, size, STRIP_ROWS, device):
        strip = exact(start, stop)
        if not all_finite(strip):
            return identity_factor(size, "the factor holds values that are not finite", device)
        own[start:stop] = strip[:, start:].diagonal()
    mean = float(own.mean())
    if bool((own < 0).any()):
        return identity_factor(size, "the factor has a negative diagonal", device)
    if mean < torch.finfo(torch.float32).tiny:
        return identity_factor(size, "the factor is zero", device)
    own.div_(mean)
    added = sigma
    for _ in range(_MAXIMUM_DOUBLINGS):

        def regularized(start: int, stop: int, added: float = added) -> torch.Tensor:
            strip = exact(start, stop).div_(mean)
            strip[:, start:].diagonal().copy_(own[start:stop] + added)
            return strip

        factored = _square(regularized, size, device)
        if factored is not None:
            square, pivots = factored
            return PreparedFactor(square, added, square.diagonal().clone(), pivots, mean)
        added = max(2 * added, _SMALLEST_SIGMA)
    return identity_factor(size, "the factor is not positive definite under any regularization", device)


def _square(matrix: RowsToDiagonal, size: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor] | None:
    """``square`` and ``pivots`` of a :class:`PreparedFactor` of a float64 matrix; ``None`` where it is not positive
    definite, or near enough to that for float32 not to hold the factor."""
    panels = []
    for start, stop in panel_bounds(size):
        panel = torch.zeros(stop - start, stop, dtype=torch.float64, device=device)
        for top, bottom in row_blocks(start, stop, STRIP_ROWS, device):
            panel[top - start : bottom - start, :bottom] = matrix(top, bottom)
        panels.append(panel)
    del panel
    if not cholesky_panels(panels):
        return None
    give_small_blocks_back(size**2)
    pivots = torch.cat([panel[:, panel.shape[1] - panel.shape[0] :].diagonal() for panel in panels])
    square = torch.empty(size, size, dtype=torch.float32, device=device)
    # Below the diagonal first: rows take half of what the panels free, columns touch a whole page for every row.
    for start, stop in reversed(panel_bounds(size)):
        lower = panels.pop().div_(pivots[:stop])
        square[start:stop, :stop] = lower
        del lower
        give_small_blocks_back(size**2)
        for top, bottom in row_blocks(start, stop, STRIP_ROWS, device):
            if not all_finite(square[top:bottom, :bottom]):
                return None
    for start, stop in row_blocks(0, size, STRIP_ROWS, device):
        upper = matrix(start, stop)
        square[:start, start:stop] = upper[:, :start].T
        square[start:stop, start:stop].tril_(-1).add_(upper[:, start:].to(torch.float32).triu_())
    give_small_blocks_back(size**2)
    return square, pivots.square().to(torch.float32)
