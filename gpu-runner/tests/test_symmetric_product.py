"""Products with a symmetric matrix read its upper triangle alone, and are those with the whole of it."""

from __future__ import annotations

import pytest
import torch

from yaqa_runner.rounding.linalg.symmetric_product import (
    columns_of,
    diagonal_block,
    diagonal_tiles,
    multiplied_rows,
    right_multiplier,
    rows_times,
    times_columns,
)


def halves(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A symmetric matrix, and its upper triangle with NaN below."""
    generator = torch.Generator().manual_seed(size)
    matrix = torch.randn(size, size, generator=generator)
    whole = matrix + matrix.T
    upper = torch.where(torch.ones(size, size, dtype=torch.bool).triu(), whole, torch.nan)
    return whole, upper


@pytest.mark.parametrize("size", [1, 40, 256, 257, 600])
def test_whole_products(size: int) -> None:
    whole, upper = halves(size)
    right = torch.randn(size, 7, generator=torch.Generator().manual_seed(0))
    found = list(multiplied_rows(upper)(right))
    assert [start for start, _, _ in found] == [0, *(stop for _, stop, _ in found[:-1])] and found[-1][1] == size
    product = torch.cat([rows for _, _, rows in found])
    assert torch.allclose(product, whole @ right, rtol=1e-4, atol=1e-3)
    assert torch.allclose(right_multiplier(upper)(right.T), right.T @ whole, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("start", "stop"), [(0, 90), (0, 10), (30, 50), (80, 90)])
def test_some_rows_and_columns(start: int, stop: int) -> None:
    whole, upper = halves(90)
    right = torch.randn(90, 5, generator=torch.Generator().manual_seed(1))
    own = diagonal_block(upper, start, stop)
    assert torch.equal(own, whole[start:stop, start:stop])
    assert torch.allclose(rows_times(own, upper, start, stop, right), whole[start:stop] @ right, rtol=1e-5, atol=1e-4)
    expected = right.T @ whole[:, start:stop]
    assert torch.allclose(times_columns(right.T, own, upper, start, stop), expected, rtol=1e-5, atol=1e-4)
    assert torch.equal(columns_of(upper, start, stop), whole[:, start:stop])


def test_tiles_of_the_diagonal_are_whole_and_filled_up() -> None:
    whole, upper = halves(70)
    tiles = diagonal_tiles(upper, 32)
    assert tiles.shape == (3, 32, 32)
    for tile, start in zip(tiles, (0, 32, 64), strict=True):
        stop = min(start + 32, 70)
        expected = torch.zeros(32, 32)
        expected[: stop - start, : stop - start] = whole[start:stop, start:stop]
        assert torch.equal(tile, expected)
