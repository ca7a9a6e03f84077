"""Scales fitted to finished codes: never worse, exact in the container's precision, the optimum where it is known."""

from __future__ import annotations

import pytest
import torch

from yaqa_runner.grids.asymmetric import AsymmetricGrid
from yaqa_runner.grids.gguf import gguf_grid
from yaqa_runner.grids.grid import FixedGrid, Grid
from yaqa_runner.grids.minifloat import MinifloatGrid
from yaqa_runner.grids.symmetric import SymmetricGrid
from yaqa_runner.grids.tunable import precision_of
from yaqa_runner.rounding.adaptive import proxy_error
from yaqa_runner.rounding.layers import RoundingTask, round_layers
from yaqa_runner.rounding.linalg.factor import prepare_factor
from yaqa_runner.rounding.rescale import rescale

GRIDS: list[Grid] = [
    SymmetricGrid(4, 32),
    SymmetricGrid(2, 96),
    AsymmetricGrid(2, 32),
    *map(gguf_grid, ("q4_1", "q2_k", "q3_k", "q4_k", "iq2_xxs", "iq4_nl", "iq4_xs")),
    MinifloatGrid("nvfp4", "e2m1", 16, "e4m3_scaled", 4.5),
]


def layer(rows: int = 64, columns: int = 256) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A weight and its two factors."""
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(rows, columns, generator=generator)
    factors = []
    for size in (columns, rows):
        samples = torch.randn(3 * size, size, generator=generator) * torch.linspace(0.3, 2.0, size)
        samples += samples[:, :1]
        factors.append(samples.T @ samples / len(samples))
    return weight, factors[0], factors[1]


@pytest.mark.parametrize("two_sided", [True, False])
@pytest.mark.parametrize("grid", GRIDS, ids=[grid.name for grid in GRIDS])
def test_fitted_scales_lower_the_proxy_and_fit_the_container(grid: Grid, two_sided: bool) -> None:
    weight, hessian_input, hessian_output = layer()
    output = hessian_output if two_sided else None
    fixed = grid.fit(weight)
    codes = fixed.nearest(weight)
    fitted = rescale(weight, fixed, codes, hessian_input, output)
    before = proxy_error(weight, fixed.decode(codes), hessian_input, output)
    assert proxy_error(weight, fitted.decode(codes), hessian_input, output) < before
    order = ("shared", "float16", "float32")
    for key, value in fixed.stored.items():
        if value.dtype == torch.int16:
            assert torch.equal(fitted.stored[key], value)
        else:
            assert order.index(precision_of(fitted.stored[key])) <= order.index(precision_of(value))
    assert torch.equal(rescale(weight, fixed, codes, hessian_input, output).scale, fitted.scale)


def test_one_scale_is_the_least_squares_solution() -> None:
    weight, hessian_input, hessian_output = layer(1, 32)
    codes = SymmetricGrid(3, 32).fit(weight).nearest(weight)
    start = torch.tensor([[0.8]])
    fixed = FixedGrid(start, torch.zeros(1, 1), 32, -4, 3, {"scale": start})
    values = codes.to(torch.float32)
    best = (values @ hessian_input @ weight.T) / (values @ hessian_input @ values.T)
    fitted = rescale(weight, fixed, codes, hessian_input, hessian_output)
    assert float(fitted.scale) == pytest.approx(float(best), rel=1e-3)


def test_scales_that_cannot_improve_stay_as_they_are() -> None:
    _, hessian_input, hessian_output = layer(8, 64)
    scale = torch.full((8, 2), 0.5)
    scale[3] = 0
    fixed = FixedGrid(scale, torch.zeros(8, 2), 32, -8, 7, {"scale": scale})
    codes = torch.randint(-8, 8, (8, 64), generator=torch.Generator().manual_seed(0)).to(torch.int16)
    assert rescale(fixed.decode(codes), fixed, codes, hessian_input, hessian_output) is fixed


def test_rescale_iterations_of_scales_and_codes_lower_the_proxy_further() -> None:
    weight, hessian_input, hessian_output = layer()
    factors = prepare_factor(hessian_input, 0.01), prepare_factor(hessian_output, 0.1)
    fixed = SymmetricGrid(2, 32).fit(weight, factors[0].diagonal)
    plain, rescaled = round_layers(
        [RoundingTask(str(count), weight, fixed, *factors, 2, count) for count in (0, 2)],
        workers=1,
    )
    assert plain.grid is fixed
    assert rescaled.proxy < 0.99 * plain.proxy
    found = proxy_error(weight, rescaled.grid.decode(rescaled.codes), factors[0].hessian, factors[1].hessian)
    assert found == pytest.approx(rescaled.proxy)
