"""Factoring, inverting and squaring in place: a square of a wide linear is gigabytes in float64, and one is enough.

LAPACK's own routines take two or three at once through PyTorch. All of them work on and below the diagonal of a float64
matrix ``[n, n]``, a panel at a time; what lies above it is left alone, and means nothing afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

# A panel is narrow beside the matrix, and wide enough for full speed.
PANEL = {"cpu": 256, "cuda": 4096}


def factor_in_place(matrix: torch.Tensor, panel: int | None = None) -> bool:
    """The Cholesky factor of a symmetric ``matrix`` in its place; whether it is positive definite."""
    size = len(matrix)
    for start, stop in _panels(matrix, panel):
        corner, failed = torch.linalg.cholesky_ex(matrix[start:stop, start:stop])
        if int(failed) != 0 or not bool(torch.isfinite(corner.diagonal()).all()):
            return False
        matrix[start:stop, start:stop] = corner
        below = matrix[stop:, start:stop]
        below.copy_(torch.linalg.solve_triangular(corner.T, below, upper=True, left=False))
        for first in range(stop, size, stop - start):
            last = min(first + stop - start, size)
            rows, columns = matrix[first:, start:stop], matrix[first:last, start:stop]
            matrix[first:, first:last].addmm_(rows, columns.T, alpha=-1)
    return True


def make_unit_in_place(lower: torch.Tensor) -> torch.Tensor:
    """Divide the columns of ``lower`` by its diagonal, and return that: ``L`` of ``L D Lᵀ``, and the root of ``D``."""
    pivots = lower.diagonal().clone()
    lower.div_(pivots)
    return pivots


def invert_in_place(lower: torch.Tensor, panel: int | None = None) -> None:
    """The inverse of a lower triangle with a diagonal of ones."""
    for start, stop in _panels(lower, panel):
        corner = lower[start:stop, start:stop].tril()
        identity = torch.eye(stop - start, dtype=lower.dtype, device=lower.device)
        corner = torch.linalg.solve_triangular(corner, identity, upper=False, unitriangular=True)
        for first in range(0, start, stop - start):
            last = min(first + stop - start, start)
            # Above the diagonal of this block of columns lies what means nothing.
            top = lower[first:last, first:last].tril()
            product = lower[start:stop, first:last] @ top
            product.addmm_(lower[start:stop, last:start], lower[last:start, first:last])
            # Columns to the right are still those of the triangle itself, and these are not needed again.
            lower[start:stop, first:last] = product
        lower[start:stop, :start] = corner.neg() @ lower[start:stop, :start]
        lower[start:stop, start:stop] = corner


def squared(lower: torch.Tensor, panel: int | None = None) -> torch.Tensor:
    """``lowerᵀ lower`` as a float32 matrix; ``lower`` is spent."""
    result = torch.empty(lower.shape, dtype=torch.float32, device=lower.device)
    for start, stop in _panels(lower, panel):
        corner = lower[start:stop, start:stop]
        corner.copy_(corner.tril())
        # Rows above are not needed any more, and those below are still whole.
        rows = (lower[start:, start:stop].T @ lower[start:, :stop]).to(torch.float32)
        result[start:stop, :stop] = rows
        result[:start, start:stop] = rows[:, :start].T
    return result


def _panels(matrix: torch.Tensor, panel: int | None) -> Iterator[tuple[int, int]]:
    size, step = len(matrix), panel or PANEL[matrix.device.type]
    return ((start, min(start + step, size)) for start in range(0, size, step))
