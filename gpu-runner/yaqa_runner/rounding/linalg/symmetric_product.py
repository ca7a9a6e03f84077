"""Products with a symmetric matrix of which only the upper triangle is held.

What lies below the diagonal is never read, for a :class:`~yaqa_runner.rounding.linalg.factor.PreparedFactor` keeps
something else there. A block on the diagonal is made whole in a small copy, and a block below it is one above it,
transposed. On CUDA some columns are made whole at a time, and split for tensor cores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

import torch

from yaqa_runner.rounding.linalg.factor import SymmetricUpper, whole_symmetric
from yaqa_runner.rounding.linalg.row_blocks import PRODUCT_ROWS, row_blocks
from yaqa_runner.rounding.linalg.split_product import split_matrix, split_product

RowBlocks: TypeAlias = Iterator[tuple[int, int, torch.Tensor]]
"""``start``, ``stop`` and rows ``start`` to ``stop`` of a matrix, block after block."""


def diagonal_block(upper: SymmetricUpper, start: int, stop: int) -> torch.Tensor:
    """``H[start:stop, start:stop]`` of the symmetric ``H`` ``[n, n]``; a copy, symmetric and contiguous."""
    return whole_symmetric(SymmetricUpper(upper[start:stop, start:stop])).contiguous()


def rows_times(own: torch.Tensor, upper: SymmetricUpper, start: int, stop: int, right: torch.Tensor) -> torch.Tensor:
    """``H[start:stop] @ right`` ``[stop - start, k]`` of the symmetric ``H`` ``[n, n]`` and ``right`` ``[n, k]``.

    ``own`` is ``diagonal_block(upper, start, stop)``.
    """
    product = own @ right[start:stop]
    product.addmm_(upper[:start, start:stop].T, right[:start])
    return product.addmm_(upper[start:stop, stop:], right[stop:])


def times_columns(left: torch.Tensor, own: torch.Tensor, upper: SymmetricUpper, start: int, stop: int) -> torch.Tensor:
    """``left @ H[:, start:stop]`` ``[k, stop - start]`` of ``left`` ``[k, n]`` and the symmetric ``H`` ``[n, n]``.

    ``own`` is ``diagonal_block(upper, start, stop)``.
    """
    product = left[:, start:stop] @ own
    product.addmm_(left[:, :start], upper[:start, start:stop])
    return product.addmm_(left[:, stop:], upper[start:stop, stop:].T)


def columns_of(upper: SymmetricUpper, start: int, stop: int) -> torch.Tensor:
    """``H[:, start:stop]`` ``[n, stop - start]`` of the symmetric ``H`` ``[n, n]``; a copy."""
    whole = torch.empty(len(upper), stop - start, dtype=upper.dtype, device=upper.device)
    whole[:start] = upper[:start, start:stop]
    whole[start:stop] = diagonal_block(upper, start, stop)
    whole[stop:] = upper[start:stop, stop:].T
    return whole


def diagonal_tiles(upper: SymmetricUpper, size: int) -> torch.Tensor:
    """``H``'s blocks on the diagonal, ``[tiles, size, size]``, each whole; the last is filled up with zeros."""
    starts = range(0, len(upper), size)
    tiles = torch.zeros(len(starts), size, size, dtype=upper.dtype, device=upper.device)
    for tile, start in zip(tiles, starts, strict=True):
        stop = min(start + size, len(upper))
        tile[: stop - start, : stop - start] = diagonal_block(upper, start, stop)
    return tiles


def multiplied_rows(upper: SymmetricUpper) -> Callable[[torch.Tensor], RowBlocks]:
    """For ``right`` ``[n, k]``: ``H @ right`` ``[n, k]`` of the symmetric ``H`` ``[n, n]``, some rows after others."""

    def multiply(right: torch.Tensor) -> RowBlocks:
        split = split_matrix(right) if upper.is_cuda else None
        for start, stop in row_blocks(0, len(upper), PRODUCT_ROWS, upper.device):
            if split is not None:
                # Rows are columns, and a transposed copy would only be another.
                rows = split_matrix(columns_of(upper, start, stop)).transposed()
                yield start, stop, split_product(rows, split)
            else:
                yield start, stop, rows_times(diagonal_block(upper, start, stop), upper, start, stop, right)

    return multiply


def right_multiplier(upper: SymmetricUpper) -> Callable[[torch.Tensor], torch.Tensor]:
    """For ``left`` ``[k, n]``: ``left @ H`` ``[k, n]`` of the symmetric ``H`` ``[n, n]``."""
    blocks = row_blocks(0, len(upper), PRODUCT_ROWS, upper.device)
    if upper.is_cuda:

        def multiply_split(left: torch.Tensor) -> torch.Tensor:
            product, split = torch.empty_like(left), split_matrix(left)
            for start, stop in blocks:
                product[:, start:stop] = split_product(split, split_matrix(columns_of(upper, start, stop)))
            return product

        return multiply_split
    # Made once: they serve every few rows of a left that is itself multiplied in parts.
    own = [diagonal_block(upper, *bounds) for bounds in blocks]

    def multiply(left: torch.Tensor) -> torch.Tensor:
        product = torch.empty_like(left, dtype=upper.dtype)
        for (start, stop), block in zip(blocks, own, strict=True):
            product[:, start:stop] = times_columns(left, block, upper, start, stop)
        return product

    return multiply
