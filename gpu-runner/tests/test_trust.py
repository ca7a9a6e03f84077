"""Tokens weigh in a sketch what rounding noise costs them, and held-out tokens say how far it is to be trusted."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_checkpoints import save_checkpoint

from yaqa_runner.calibration.tokens import TokenSet
from yaqa_runner.model.load import load_source_model
from yaqa_runner.model.snapshot import inspect_snapshot
from yaqa_runner.monitor import SILENT
from yaqa_runner.sketches.compute import SketchInputs, compute_sketch
from yaqa_runner.sketches.evidence import Concentration, TokenShares, few_tokens_warning
from yaqa_runner.sketches.iteration import FactorPlace, IterationA
from yaqa_runner.sketches.memory import plan_memory
from yaqa_runner.sketches.noise import damped_cholesky, gradient_shares, noise_kernel, whitened
from yaqa_runner.sketches.parallel import ALONE
from yaqa_runner.sketches.reference import damped_ldl, sketch_a
from yaqa_runner.sketches.regularize import regularize, regularized_moment
from yaqa_runner.sketches.settings import SketchSettings
from yaqa_runner.sketches.store import LayerFactors, Sketch, SketchTrust
from yaqa_runner.sketches.triangle import Triangle, pack_triangle, packed_triangle
from yaqa_runner.sketches.trust import (
    INPUT_DAMPINGS,
    LEAST_INPUT_DAMPING,
    OUTPUT_DAMPINGS,
    UNTRUSTED,
    Trust,
    choose_trust,
    held_out_sequences,
)

CPU = torch.device("cpu")
ROWS, COLUMNS = 12, 16


def pairs(tokens: int, seed: int, mix: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs ``[tokens, COLUMNS]`` and gradients ``[tokens, ROWS]``; ``mix`` says how they are correlated."""
    shape = torch.Generator().manual_seed(1000 + mix)
    own = torch.Generator().manual_seed(seed)
    by_input = torch.randn(COLUMNS, COLUMNS, generator=shape)
    by_output = torch.randn(ROWS, ROWS, generator=shape) * torch.logspace(0, -1.5, ROWS)
    return (
        torch.randn(tokens, COLUMNS, generator=own) @ by_input,
        torch.randn(tokens, ROWS, generator=own) @ by_output,
    )


def factors_of(x: torch.Tensor, g: torch.Tensor, half_steps: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """``H_I`` and ``H_O`` of sketch A."""
    iteration = IterationA(g.shape[1], x.shape[1], FactorPlace(CPU))
    iteration.start(x.T @ x / len(x))
    for step in range(1, half_steps):
        iteration.begin(step)
        iteration.add(x[None], g[None])
        iteration.finish()
    return iteration.scaled_factors()


def cost(x: torch.Tensor, g: torch.Tensor, factor_input: torch.Tensor, factor_output: torch.Tensor | None) -> float:
    """Mean ``|L_O⁻¹ g|² |L_I⁻¹ x|²``, literally."""
    seen = x.double() @ torch.linalg.inv(damped_ldl(factor_input)[0]).T
    lower = torch.eye(g.shape[1]).double() if factor_output is None else damped_ldl(factor_output)[0]
    weighed = g.double() @ torch.linalg.inv(lower).T
    return float((seen.square().sum(1) * weighed.square().sum(1)).mean())


def stored(matrix: torch.Tensor) -> Triangle:
    packed = pack_triangle(matrix)
    return packed_triangle(lambda start, stop: packed[start:stop], len(packed))


def test_the_kernel_is_the_inverse_of_the_unit_factors() -> None:
    x, _ = pairs(200, 1)
    factor = x.T @ x / len(x)
    lower, pivots = damped_ldl(factor)
    kernel = noise_kernel(factor)
    expected = torch.linalg.inv(lower @ lower.T)
    assert torch.allclose(kernel.matrix.double(), expected, rtol=1e-4, atol=1e-5)
    assert kernel.pivots == pytest.approx(float(pivots.sum()), rel=1e-5)
    cholesky = damped_cholesky(factor, 0.1)
    assert cholesky is not None
    forms = torch.einsum("ti,ij,tj->t", x.double(), expected, x.double())
    assert torch.allclose(whitened(cholesky, x).double(), forms, rtol=1e-3)


@pytest.mark.parametrize("factor", [torch.zeros(4, 4), torch.full((4, 4), float("nan")), -torch.eye(4)])
def test_a_factor_that_says_nothing_weighs_all_directions_alike(factor: torch.Tensor) -> None:
    assert torch.equal(noise_kernel(factor).matrix, torch.eye(4))


def test_rounding_noise_costs_less_under_the_sketch_than_under_the_second_moment() -> None:
    x, g = pairs(4000, 1)
    factor_input, factor_output = factors_of(x, g)
    fresh_x, fresh_g = pairs(4000, 2)
    one_sided = cost(fresh_x, fresh_g, x.T @ x, None)
    assert cost(fresh_x, fresh_g, factor_input, factor_output) < 0.95 * one_sided


def test_one_token_with_a_huge_gradient_does_not_become_the_factor() -> None:
    x, g = pairs(2000, 1)
    plain_input, plain_output = factors_of(x, g)
    g[7] *= 300
    factor_input, factor_output = factors_of(x, g)
    fresh_x, fresh_g = pairs(2000, 2)
    without = cost(fresh_x, fresh_g, plain_input, plain_output)
    assert cost(fresh_x, fresh_g, factor_input, factor_output) < 1.3 * without
    literal = sketch_a(x, g, 3)
    assert torch.allclose(factor_input.double(), literal[0], rtol=1e-3, atol=1e-4 * float(literal[0].abs().max()))
    # What the squares would have made of it.
    weights = (g.double() @ (g.double().T @ g.double()) * g.double()).sum(1)
    assert float(weights.max() / weights.sum()) > 0.95


def test_tokens_without_a_gradient_have_no_share() -> None:
    shares = gradient_shares(torch.tensor([[0.0, 0.0], [3.0, 4.0]]))
    assert shares.tolist() == pytest.approx([0.0, 0.2])


def test_shares_of_the_heaviest_tokens() -> None:
    gathered = TokenShares()
    gathered.add(torch.tensor([6.0, 1.0, 1.0]))
    gathered.add(torch.ones(2))
    found = gathered.finish(ALONE)
    assert found is not None
    assert (found.top_one, found.top_ten, found.tokens) == (pytest.approx(0.6), pytest.approx(1.0), 5)
    assert found.effective_tokens == pytest.approx(100 / 40)
    assert TokenShares().finish(ALONE) is None


def trust_on(x: torch.Tensor, g: torch.Tensor, seed: int, mix: int) -> Trust:
    factor_input, factor_output = factors_of(x, g)
    held_x, held_g = pairs(800, seed, mix)
    found = choose_trust(
        factor_input, factor_output, x.T @ x / len(x), held_x.reshape(8, 100, -1), held_g.reshape(8, 100, -1)
    )
    assert found is not None
    return found


def test_factors_of_many_tokens_are_trusted_more_than_factors_of_few() -> None:
    many, few = trust_on(*pairs(8000, 1), seed=2, mix=0), trust_on(*pairs(10, 1), seed=2, mix=0)
    assert many.predicted_loss < 0.95
    assert many.sigma_output < few.sigma_output
    assert many.tokens == 800


def test_factors_of_other_text_are_damped_until_they_do_little() -> None:
    found = trust_on(*pairs(8000, 1), seed=2, mix=1)
    same = trust_on(*pairs(8000, 1), seed=2, mix=0)
    assert found.sigma_output > same.sigma_output
    assert found.sigma_input > same.sigma_input


def test_the_chosen_dampings_are_the_best_of_all(seed: int = 3) -> None:
    x, g = pairs(60, seed)
    factor_input, factor_output = factors_of(x, g)
    held_x, held_g = pairs(400, seed + 1)
    found = choose_trust(factor_input, factor_output, x.T @ x, held_x[None], held_g[None])
    assert found is not None
    literal = {}
    for sigma_input in INPUT_DAMPINGS:
        for sigma_output in OUTPUT_DAMPINGS:
            seen = held_x.double() @ torch.linalg.inv(damped_ldl(factor_input, sigma_input)[0]).T
            weighed = held_g.double() @ torch.linalg.inv(damped_ldl(factor_output, sigma_output)[0]).T
            costs = seen.square().sum(1) * weighed.square().sum(1) / held_g.double().norm(dim=1)
            literal[sigma_input, sigma_output] = float(costs.sum())
    assert (found.sigma_input, found.sigma_output) == min(literal, key=lambda pair: literal[pair])


def test_no_gradients_and_dead_factors_leave_nothing_to_trust() -> None:
    x, g = pairs(50, 1)
    eye_in, eye_out = torch.eye(COLUMNS), torch.eye(ROWS)
    assert choose_trust(eye_in, eye_out, eye_in, x[None], torch.zeros_like(g)[None]) is None
    assert choose_trust(eye_in, torch.zeros(ROWS, ROWS), eye_in, x[None], g[None]) is None


@pytest.mark.parametrize(("sequences", "expected"), [(0, 0), (1, 0), (15, 0), (16, 2), (64, 8), (4096, 16)])
def test_sequences_are_held_out_where_there_are_enough(sequences: int, expected: int) -> None:
    assert held_out_sequences(sequences) == expected


def take(tokens: TokenSet, directory: Path, budget: int) -> Sketch:
    checkpoint = save_checkpoint(directory / "model", "llama")
    source = load_source_model(inspect_snapshot(checkpoint), CPU)
    settings = SketchSettings("a", 3, 0)
    plan = plan_memory(source.linears, tokens.sequences, tokens.length, settings, budget, CPU)
    inputs = SketchInputs(source, "0" * 64, tokens, settings)
    return compute_sketch(inputs, directory=directory / "sketch", plan=plan, monitor=SILENT)


@pytest.mark.parametrize("budget", [1 << 40, 1 << 20])
def test_a_sketch_keeps_its_last_sequences_for_its_trust(tmp_path: Path, budget: int) -> None:
    tokens = torch.randint(2, 300, (16, 12), generator=torch.Generator().manual_seed(1))
    whole = take(TokenSet(tokens), tmp_path / "whole", budget)
    first = take(TokenSet(tokens[:14]), tmp_path / "first", budget)
    for name, layer in whole.layers.items():
        assert layer.tokens == 14 * 12
        assert layer.trust is not None and layer.trust.tokens > 0 and layer.trust.predicted_loss > 0
        assert layer.concentration_input is not None and layer.concentration_input.tokens == 14 * 12
        assert whole.factors(name).trust == layer.trust
        expected = first.factors(name).output.whole()
        assert torch.allclose(whole.factors(name).output.whole(), expected, rtol=1e-3, atol=1e-4 * expected.max())
    assert all(layer.trust is None for layer in first.layers.values())


def test_one_repeated_line_gives_a_sketch_that_is_known_to_say_little(tmp_path: Path) -> None:
    line = torch.randint(2, 300, (1, 12), generator=torch.Generator().manual_seed(1))
    sketch = take(TokenSet(line.repeat(16, 1)), tmp_path, 1 << 40)
    for layer in sketch.layers.values():
        assert layer.concentration_output is not None
        # Twelve different inputs, each of them fourteen times with labels of its own.
        assert layer.effective_rank_input <= 12
    assert few_tokens_warning(list(sketch.layers.values()), 192) is not None


def test_dampings_come_from_the_settings_else_from_trust_else_from_caution() -> None:
    x, g = pairs(500, 1)
    parts = [stored(part) for part in (*factors_of(x, g), x.T @ x)]
    trusted = LayerFactors(
        *parts, SketchTrust(sigma_input=0.3, sigma_output=3.0, predicted_loss=0.7, standard_error=0.1, tokens=800)
    )
    assert regularize(trusted, 0.01, 0.1).input.sigma == pytest.approx(0.01)
    chosen = regularize(trusted, None, None)
    assert chosen.output is not None
    assert (chosen.input.sigma, chosen.output.sigma) == (pytest.approx(0.3), pytest.approx(3.0))
    cautious = regularize(trusted, None, None, caution=8.0)
    assert cautious.output is not None and cautious.output.sigma == pytest.approx(24.0)
    untold = regularize(LayerFactors(*parts), None, None)
    assert untold.output is not None
    assert (untold.input.sigma, untold.output.sigma) == pytest.approx(UNTRUSTED)
    assert regularized_moment(trusted, None).sigma == pytest.approx(0.1)
    # Held-out tokens do not see what the quantized layers before add to a linear's inputs.
    bold = LayerFactors(
        *parts, SketchTrust(sigma_input=0.01, sigma_output=0.1, predicted_loss=0.7, standard_error=0.1, tokens=800)
    )
    assert regularize(bold, None, None).input.sigma == pytest.approx(LEAST_INPUT_DAMPING)
    assert regularize(bold, 0.02, None).input.sigma == pytest.approx(0.02)


def test_few_tokens_are_told_of() -> None:
    class Entry:
        def __init__(self, effective: float) -> None:
            self.concentration_input: Concentration | None = Concentration(
                top_one=0.1, top_ten=0.2, top_hundred=0.3, effective_tokens=effective, tokens=20_000
            )
            self.concentration_output: Concentration | None = None

    assert few_tokens_warning([Entry(5000.0)], 20_000) is None
    assert "300 calibration tokens" in (few_tokens_warning([Entry(5000.0)], 300) or "")
    assert "in the median linear, 12 equal ones" in (few_tokens_warning([Entry(12.0)] * 3, 20_000) or "")
    assert few_tokens_warning([], 20_000) is None
