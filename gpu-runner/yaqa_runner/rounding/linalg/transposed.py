"""Matrices laid out as the compiled kernels want them."""

from __future__ import annotations

import torch


def transposed(matrix: torch.Tensor) -> torch.Tensor:
    """``matrix`` ``[m, n]`` of any type and device as a new contiguous float32 ``[n, m]`` on the CPU."""
    rows, columns = matrix.shape
    # Cast and turned in one step: a float32 copy the other way round would be another array of this size.
    return torch.empty(columns, rows).copy_(matrix.detach().T)
