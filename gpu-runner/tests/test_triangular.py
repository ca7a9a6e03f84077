"""Triangles in place against LAPACK's own routines."""

from __future__ import annotations

import pytest
import torch

from yaqa_runner.sketches.triangular import factor_in_place, invert_in_place, make_unit_in_place, squared


@pytest.mark.parametrize(("size", "panel"), [(1, 4), (7, 3), (50, 64), (64, 16), (96, 31)])
def test_panels_give_what_whole_matrices_give(size: int, panel: int) -> None:
    values = torch.randn(size + 20, size, dtype=torch.float64, generator=torch.Generator().manual_seed(size))
    matrix = values.T @ values / size + 0.1 * torch.eye(size, dtype=torch.float64)
    expected = torch.linalg.cholesky(matrix)
    # What lies above the diagonal is neither read nor meant.
    lower = matrix.tril() + torch.full_like(matrix, 9.0).triu(1)
    assert factor_in_place(lower, panel)
    assert torch.allclose(lower.tril(), expected, atol=1e-12)
    assert torch.allclose(make_unit_in_place(lower), expected.diagonal())
    unit = expected / expected.diagonal()
    assert torch.allclose(lower.tril(), unit, atol=1e-12)
    invert_in_place(lower, panel)
    inverse = torch.linalg.inv(unit)
    assert torch.allclose(lower.tril(), inverse, atol=1e-9)
    assert torch.allclose(squared(lower, panel), (inverse.T @ inverse).float(), rtol=1e-5, atol=1e-5)


def test_what_is_not_positive_definite_is_told() -> None:
    for place in (0, 5, 11):
        matrix = torch.eye(12, dtype=torch.float64)
        matrix[place, place] = -1
        assert not factor_in_place(matrix, 4)
    assert not factor_in_place(torch.full((3, 3), float("nan"), dtype=torch.float64))
