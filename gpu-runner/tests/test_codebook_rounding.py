"""Rounding onto codebooks: the fast search finds what trying every word does, and no step raises the proxy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from yaqa_runner.grids.codebooks import CODEBOOK_NAMES, codebook
from yaqa_runner.grids.gguf import gguf_grid
from yaqa_runner.grids.grid import FixedGrid
from yaqa_runner.pipeline.codes_file import keep_grid_in_file
from yaqa_runner.rounding.adaptive import proxy_error, round_adaptive, round_nearest
from yaqa_runner.rounding.layers import RoundingTask, round_layers
from yaqa_runner.rounding.linalg.factor import PreparedFactor, identity_factor, prepare_factor
from yaqa_runner.rounding.refine import refine, refine_sub_scales
from yaqa_runner.rounding.words_reference import reference_refine_words, reference_round_words

ROWS, COLUMNS = 2, 16


def correlated(size: int, seed: int) -> PreparedFactor:
    generator = torch.Generator().manual_seed(seed)
    samples = torch.randn(2 * size + 3, size, generator=generator)
    samples = samples * torch.linspace(0.2, 3.0, size) + samples[:, :1]
    return prepare_factor(samples.T @ samples, 0.05)


def weight_of(rows: int, columns: int) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))


def narrow_grid(name: str) -> FixedGrid:
    """A codebook's grid of fewer columns than a file's block has, some scales small enough to clip."""
    book = codebook(name)
    table = torch.from_numpy(book.table)
    scale = torch.linspace(1.2, 3.6, ROWS * COLUMNS // 8).view(ROWS, -1) / table[-1]
    return FixedGrid(scale, 0 * scale, 8, 0, len(table) - 1, {}, table, book)


def assert_words(codes: torch.Tensor, name: str) -> None:
    codebook(name).places(codes.numpy())


@pytest.mark.parametrize("sided", ["two", "one"])
@pytest.mark.parametrize("name", CODEBOOK_NAMES)
def test_codes_equal_the_reference(name: str, sided: str) -> None:
    weight, grid = weight_of(ROWS, COLUMNS), narrow_grid(name)
    inputs, outputs = correlated(COLUMNS, 1), correlated(ROWS, 2)
    lower = outputs.lower if sided == "two" else None
    expected = reference_round_words(weight, grid, inputs.lower, inputs.pivots, lower)
    for tile, threads in ((8, 1), (16, 2)):
        codes = round_adaptive(
            weight, grid, inputs.unit_lower, lower, pivots_input=inputs.pivots, tile=tile, threads=threads
        )
        assert torch.equal(grid.decode(codes), grid.decode(expected))
        assert_words(codes, name)


@pytest.mark.parametrize(("name", "sided"), [*((name, "two") for name in CODEBOOK_NAMES), ("iq3_s", "one")])
def test_refinement_equals_its_reference(name: str, sided: str) -> None:
    weight, grid = weight_of(ROWS, COLUMNS), narrow_grid(name)
    inputs, outputs = correlated(COLUMNS, 1), correlated(ROWS, 2)
    metric = outputs.hessian if sided == "two" else None
    grid.stored.update(d=torch.ones(ROWS, 1), sc=torch.ones(ROWS, COLUMNS // 8, dtype=torch.int16))
    start = round_nearest(weight, grid)
    kept = start.clone()
    expected = reference_refine_words(weight, grid, start, inputs.hessian, metric, 2)
    assert not torch.equal(expected, start)
    assert torch.equal(refine(weight, grid, start, inputs.hessian, metric, 2), expected)
    assert torch.equal(start, kept)


@pytest.mark.parametrize("name", CODEBOOK_NAMES)
def test_each_step_lowers_the_proxy_and_gives_what_a_file_can_store(name: str) -> None:
    weight = weight_of(24, 256)
    inputs, outputs = correlated(256, 1), correlated(24, 2)
    grid = gguf_grid(name).fit(weight, inputs.diagonal)

    def proxy(codes: torch.Tensor, grid: FixedGrid = grid) -> float:
        assert_words(codes, name)
        return proxy_error(weight, grid.decode(codes), inputs.square, outputs.square)

    one_sided = round_adaptive(weight, grid, inputs.unit_lower, None, pivots_input=inputs.pivots)
    codes = round_adaptive(weight, grid, inputs.unit_lower, outputs.unit_lower, pivots_input=inputs.pivots)
    steps = [proxy(round_nearest(weight, grid)), proxy(one_sided), proxy(codes)]
    codes = refine(weight, grid, codes, inputs.square, outputs.square, 1)
    steps.append(proxy(codes))
    settled, codes = refine_sub_scales(weight, grid, codes, inputs.square, outputs.square)
    steps.append(proxy(codes, settled))
    assert steps == sorted(steps, reverse=True)
    assert steps[-1] < 0.75 * steps[0]
    sub_scales = settled.stored["sc"]
    assert not torch.equal(sub_scales, grid.stored["sc"])
    assert bool((sub_scales % 2 == 1).all()) and 1 <= int(sub_scales.min()) <= int(sub_scales.max()) <= 31
    spread = settled.stored["d"].repeat_interleave(256 // settled.group, dim=1)
    assert torch.equal(settled.scale, spread * sub_scales)


def test_a_layer_is_rounded_onto_words_in_flight_as_alone(tmp_path: Path) -> None:
    weight = weight_of(24, 256)
    inputs, outputs = correlated(256, 1), correlated(24, 2)
    grid = gguf_grid("iq3_xxs").fit(weight, inputs.diagonal)
    task = RoundingTask("layer", weight, grid, inputs, outputs, 2, 2)
    (alone,) = round_layers([task], workers=1)
    flying = list(round_layers([task, task], workers=2))
    assert all(torch.equal(one.codes, alone.codes) and torch.equal(one.grid.scale, alone.grid.scale) for one in flying)
    kept = keep_grid_in_file(alone.grid, tmp_path / "grid")
    assert kept.codebook is alone.grid.codebook
    assert torch.equal(kept.decode(alone.codes), alone.grid.decode(alone.codes))


@pytest.mark.parametrize("name", CODEBOOK_NAMES)
def test_words_and_signs_go_to_numbers_and_come_back(name: str) -> None:
    book = codebook(name)
    codes = round_nearest(weight_of(3, 256) * 9, gguf_grid(name).fit(weight_of(3, 256)))
    words, signs = book.places(codes.numpy())
    negative = np.unpackbits(signs[..., None], axis=-1, bitorder="little").reshape(3, 256) == 1
    magnitudes = book.words[words].reshape(3, 256)
    half = len(book.magnitudes)
    assert np.array_equal(np.where(negative, half - 1 - magnitudes, half + magnitudes), codes.numpy())


def test_what_does_not_fit_a_codebook_is_refused() -> None:
    weight, grid, factor = weight_of(ROWS, COLUMNS), narrow_grid("iq3_s"), correlated(COLUMNS, 1)
    with pytest.raises(ValueError, match="takes the input factor's pivots"):
        round_adaptive(weight, grid, factor.unit_lower, None)
    with pytest.raises(ValueError, match="not all positive"):
        round_adaptive(weight, grid, factor.unit_lower, None, pivots_input=0 * factor.pivots)
    narrow = weight[:, :14]
    with pytest.raises(ValueError, match="no whole words of 4"):
        round_adaptive(narrow, grid, factor.unit_lower[:14, :14], None, pivots_input=factor.pivots[:14])
    with pytest.raises(ValueError, match="multiple of 256"):
        gguf_grid("iq2_s").fit(weight)


def test_identity_factors_round_to_nearest() -> None:
    weight, factor = weight_of(8, 256), identity_factor(256)
    grid = gguf_grid("iq2_xs").fit(weight)
    codes = round_adaptive(weight, grid, factor.unit_lower, None, pivots_input=factor.pivots)
    assert torch.equal(codes, round_nearest(weight, grid))
