"""Symmetric matrices as their lower triangle, row by row: half the bytes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

_CPU = torch.device("cpu")
_ROWS = 256


@dataclass(frozen=True)
class Triangle:
    """A packed symmetric matrix of which a few rows are read at a time.

    Attributes:
        size: Its side.
        read: Numbers ``start`` to ``stop`` of those that ``pack_triangle`` gives, a new tensor on the CPU.
    """

    size: int
    read: Callable[[int, int], torch.Tensor]

    def rows(self, start: int, stop: int, device: torch.device = _CPU) -> torch.Tensor:
        """Rows ``start`` to ``stop`` as far as column ``stop``, a new float32 ``[stop - start, stop]``."""
        matrix = torch.zeros(stop - start, stop, device=device)
        inside = torch.ones(stop - start, stop, dtype=torch.bool, device=device).tril_(start)
        matrix.masked_scatter_(inside, self.read(packed_length(start), packed_length(stop)).to(device))
        matrix[:, start:].add_(matrix[:, start:].tril(-1).T)
        return matrix

    def whole(self) -> torch.Tensor:
        """All of it, float32 ``[size, size]``."""
        matrix = torch.empty(self.size, self.size)
        for start in range(0, self.size, _ROWS):
            stop = min(start + _ROWS, self.size)
            part = self.rows(start, stop)
            matrix[start:stop, :stop] = part
            matrix[:start, start:stop] = part[:, :start].T
        return matrix

    def diagonal(self) -> torch.Tensor:
        """Its diagonal, float32 ``[size]``."""
        parts = [
            self.rows(start, min(start + _ROWS, self.size)).diagonal(start) for start in range(0, self.size, _ROWS)
        ]
        return torch.cat(parts)

    def reordered(self, order: torch.Tensor) -> Triangle:
        """The matrix with rows and columns in ``order``, held in memory."""
        packed = pack_triangle(self.whole()[order][:, order])
        return Triangle(self.size, lambda start, stop: packed[start:stop].clone())


def pack_triangle(matrix: torch.Tensor) -> torch.Tensor:
    """Symmetric ``[n, n]`` to float32 ``[n (n + 1) / 2]`` on the CPU: rows of the lower triangle, diagonal included."""
    size = matrix.shape[0]
    # Where the matrix is: picking the halves of the largest ones takes the CPU a second each, and a GPU no time.
    mask = torch.ones(size, size, dtype=torch.bool, device=matrix.device).tril_()
    return matrix.detach().to(torch.float32)[mask].cpu().contiguous()


def packed_triangle(read: Callable[[int, int], torch.Tensor], length: int) -> Triangle:
    """The matrix that ``pack_triangle`` packed into ``length`` numbers; ``read(start, stop)`` gives some of them.

    Raises:
        ValueError: ``length`` is no triangle number.
    """
    size = (math.isqrt(8 * length + 1) - 1) // 2
    if packed_length(size) != length:
        raise ValueError(f"{length} numbers are not a packed triangle")
    return Triangle(size, read)


def packed_length(rows: int) -> int:
    """Numbers in the first ``rows`` rows of a packed triangle."""
    return rows * (rows + 1) // 2
