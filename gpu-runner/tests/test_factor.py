"""Factors are normalised, regularised and factored, and a useless one becomes the identity with a reason."""

from __future__ import annotations

import pytest
import torch

from yaqa_runner.rounding.linalg.cholesky import cholesky_panels, panel_bounds
from yaqa_runner.rounding.linalg.factor import prepare_factor


def gram(size: int, samples: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    samples_matrix = torch.randn(samples, size, generator=generator, dtype=torch.float64)
    return samples_matrix.T @ samples_matrix / samples


def test_lower_and_pivots_give_the_matrix_back() -> None:
    prepared = prepare_factor(gram(40, 200, 0), 0.01)
    lower = prepared.lower.to(torch.float64)
    assert torch.equal(lower, lower.tril())
    assert torch.equal(lower.diagonal(), torch.ones(40, dtype=torch.float64))
    halfway = torch.linalg.solve_triangular(lower, prepared.hessian.to(torch.float64), upper=False)
    pivots = torch.linalg.solve_triangular(lower, halfway.T, upper=False)
    assert float((pivots - pivots.diagonal().diag()).abs().max()) < 1e-5
    assert bool((pivots.diagonal() > 0).all())


def test_mean_diagonal_is_one_plus_sigma_and_the_unit_is_kept() -> None:
    raw = gram(16, 100, 1) * 37.0
    prepared = prepare_factor(raw, 0.1)
    assert prepared.sigma == 0.1
    assert float(prepared.diagonal.mean()) == pytest.approx(1.1, rel=1e-5)
    back = (prepared.hessian.to(torch.float64) - 0.1 * torch.eye(16)) * prepared.mean_diagonal
    assert torch.allclose(back, raw, rtol=1e-4, atol=1e-4)


def test_sigma_doubles_until_the_factorization_succeeds() -> None:
    # Eigenvalue −0.1 after normalisation: 0.01 is not enough, and doubling reaches 0.16 first.
    indefinite = torch.eye(10, dtype=torch.float64)
    indefinite[0, 1] = indefinite[1, 0] = 1.1
    prepared = prepare_factor(indefinite, 0.01)
    assert prepared.sigma == pytest.approx(0.16)
    assert prepared.reason is None


def test_singular_factor_with_sigma_zero_gets_some() -> None:
    prepared = prepare_factor(gram(30, 4, 2), 0.0)
    assert prepared.reason is None
    assert prepared.sigma > 0


def test_dead_inputs_are_kept_with_a_small_weight() -> None:
    raw = gram(12, 100, 3)
    raw[4] = 0
    raw[:, 4] = 0
    prepared = prepare_factor(raw, 0.01)
    assert prepared.reason is None
    assert float(prepared.diagonal[4]) == pytest.approx(0.01, rel=1e-5)


@pytest.mark.parametrize(
    ("matrix", "reason"),
    [
        (torch.zeros(5, 5), "zero"),
        (torch.full((5, 5), torch.nan), "not finite"),
        (torch.eye(5) * torch.inf, "not finite"),
        (torch.diag(torch.tensor([1.0, 1.0, -1.0])), "negative diagonal"),
    ],
)
def test_matrix_without_information_becomes_the_identity_with_a_reason(matrix: torch.Tensor, reason: str) -> None:
    prepared = prepare_factor(matrix, 0.01)
    assert prepared.reason is not None
    assert reason in prepared.reason
    assert torch.equal(prepared.hessian, torch.eye(len(matrix)))
    assert torch.equal(prepared.lower, torch.eye(len(matrix)))


@pytest.mark.parametrize("sigma", [-0.1, float("nan"), float("inf")])
def test_impossible_sigma_is_refused(sigma: float) -> None:
    with pytest.raises(ValueError, match="sigma"):
        prepare_factor(torch.eye(3), sigma)


def test_matrix_that_is_not_square_is_refused() -> None:
    with pytest.raises(ValueError, match="square"):
        prepare_factor(torch.zeros(3, 4), 0.1)


@pytest.mark.parametrize("size", [1, 255, 256, 257, 700])
def test_cholesky_in_panels_is_the_one_of_lapack(size: int) -> None:
    matrix = gram(size, size + 50, 4)
    panels = [matrix[start:stop, :stop].clone() for start, stop in panel_bounds(size)]
    assert cholesky_panels(panels)
    expected = torch.linalg.cholesky(matrix)
    for (start, stop), panel in zip(panel_bounds(size), panels, strict=True):
        assert torch.allclose(panel, expected[start:stop, :stop], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("place", [0, 300, 699])
def test_cholesky_notices_a_negative_pivot_in_any_panel(place: int) -> None:
    matrix = torch.eye(700, dtype=torch.float64)
    matrix[place, place] = -1e-9
    assert not cholesky_panels([matrix[start:stop, :stop].clone() for start, stop in panel_bounds(700)])


def test_one_square_holds_the_matrix_and_its_factor_exactly() -> None:
    raw = gram(600, 700, 5)
    raw[3] *= 1 + 1e-9
    prepared = prepare_factor(raw, 0.01)
    symmetric = (raw + raw.T) / 2
    exact = symmetric / symmetric.diagonal().mean()
    exact.diagonal().add_(0.01)
    cholesky = torch.linalg.cholesky(exact)
    assert torch.equal(prepared.hessian, exact.to(torch.float32))
    assert torch.allclose(prepared.lower, (cholesky / cholesky.diagonal()).to(torch.float32), rtol=2e-7, atol=1e-12)
    assert torch.equal(prepared.square.triu(), prepared.hessian.triu())
    assert torch.equal(prepared.square.tril(-1), prepared.lower.tril(-1))
    assert torch.equal(prepared.diagonal, prepared.hessian.diagonal())
