"""Symmetric matrices as their lower triangle, row by row: half the bytes."""

from __future__ import annotations

import math

import torch


def pack_triangle(matrix: torch.Tensor) -> torch.Tensor:
    """Symmetric ``[n, n]`` to float32 ``[n (n + 1) / 2]`` on the CPU: rows of the lower triangle, diagonal included."""
    size = matrix.shape[0]
    # Where the matrix is: picking the halves of the largest ones takes the CPU a second each, and a GPU no time.
    mask = torch.ones(size, size, dtype=torch.bool, device=matrix.device).tril_()
    return matrix.detach().to(torch.float32)[mask].cpu().contiguous()


def unpack_triangle(packed: torch.Tensor) -> torch.Tensor:
    """The symmetric float32 ``[n, n]`` of ``packed`` ``[n (n + 1) / 2]``.

    Raises:
        ValueError: the length is no triangle number.
    """
    size = (math.isqrt(8 * len(packed) + 1) - 1) // 2
    if packed.ndim != 1 or size * (size + 1) // 2 != len(packed):
        raise ValueError(f"{list(packed.shape)} is not a packed triangle")
    matrix = torch.empty(size, size, dtype=torch.float32)
    # Row by row: a mask of the triangle and the mirrored half would take three times the matrix.
    start = 0
    for row in range(size):
        values = packed[start : start + row + 1]
        matrix[row, : row + 1] = values
        matrix[:row, row] = values[:row]
        start += row + 1
    return matrix
