"""Cholesky factorization in the memory of one triangle."""

from __future__ import annotations

import torch

_PANELS = 16
_LEAST_ROWS = 256


def panel_bounds(size: int) -> list[tuple[int, int]]:
    """First and last row (exclusive) of each panel of a triangle ``[size, size]``.

    Sixteen panels take a seventeenth more than the triangle itself; below 256 rows the products get too small.
    """
    height = max(_LEAST_ROWS, -(-size // _PANELS))
    return [(start, min(start + height, size)) for start in range(0, size, height)]


def cholesky_panels(panels: list[torch.Tensor]) -> bool:
    """Factor ``A = C Cᵀ`` in place; whether ``A`` is positive definite. If not, the panels are left half done.

    Args:
        panels: Rows ``start`` to ``stop`` of ``A`` as far as column ``stop``, for every one of ``panel_bounds``: each
            ``[stop - start, stop]``, float64, on any device; above the diagonal anything finite. On return those of
            ``C``, with zeros above its diagonal.
    """
    for number, panel in enumerate(panels):
        for above in panels[:number]:
            stop = above.shape[1]
            start = stop - above.shape[0]
            block = panel[:, start:stop]
            block.addmm_(panel[:, :start], above[:, :start].T, alpha=-1)
            block.copy_(torch.linalg.solve_triangular(above[:, start:].T, block, upper=True, left=False))
        start = panel.shape[1] - panel.shape[0]
        block = panel[:, start:]
        block.addmm_(panel[:, :start], panel[:, :start].T, alpha=-1)
        factored, info = torch.linalg.cholesky_ex(block)
        if int(info) != 0:
            return False
        block.copy_(factored)
    return True
