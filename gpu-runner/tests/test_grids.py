"""Grids keep what containers store exactly, and their scales are never worse than the plain choice."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from yaqa_runner.grids import fit_rows as fit_rows_module
from yaqa_runner.grids.affine_kernel import affine_errors, least_squares_scales
from yaqa_runner.grids.affine_search import round_scale
from yaqa_runner.grids.affine_tensors import tensor_affine_errors, tensor_least_squares_scales
from yaqa_runner.grids.asymmetric import AsymmetricGrid
from yaqa_runner.grids.fit_rows import fit_rows
from yaqa_runner.grids.gguf import GGUF_GRID_NAMES, gguf_grid, gguf_type_for
from yaqa_runner.grids.grid import FixedGrid, Grid
from yaqa_runner.grids.half_kernel import to_half
from yaqa_runner.grids.symmetric import SymmetricGrid

SUPER_BLOCK_NAMES = tuple(name for name in GGUF_GRID_NAMES if name.endswith(("_k", "s")))
ALL_GRIDS: list[Grid] = [
    *(SymmetricGrid(bits, 32) for bits in range(2, 9)),
    *(AsymmetricGrid(bits, 32) for bits in range(2, 9)),
    *(gguf_grid(name) for name in GGUF_GRID_NAMES),
]
NAMES = [grid.name for grid in ALL_GRIDS]


def heavy_tailed(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator) * 0.02
    return weight * torch.where(torch.rand(rows, columns, generator=generator) < 0.02, 5.0, 1.0)


def importance_of(columns: int, seed: int = 1) -> torch.Tensor:
    return torch.rand(columns, generator=torch.Generator().manual_seed(seed)) ** 3 + 1e-3


def weighted_error(weight: torch.Tensor, grid: FixedGrid, importance: torch.Tensor) -> float:
    return float((((weight - grid.decode(grid.nearest(weight))) ** 2) * importance).sum())


def is_exact(values: torch.Tensor, dtype: torch.dtype) -> bool:
    return torch.equal(values.to(dtype).to(torch.float32), values)


@pytest.mark.parametrize("grid", ALL_GRIDS, ids=NAMES)
def test_codes_come_back_from_their_own_values(grid: Grid) -> None:
    weight = heavy_tailed(8, 512)
    fixed = grid.fit(weight, importance_of(512))
    codes = fixed.nearest(weight)
    assert codes.dtype == torch.int16
    assert fixed.minimum <= int(codes.min()) <= int(codes.max()) <= fixed.maximum
    assert torch.equal(fixed.nearest(fixed.decode(codes)), codes)


@pytest.mark.parametrize("grid", ALL_GRIDS, ids=NAMES)
@pytest.mark.parametrize("scale", [1e-4, 1.0, 300.0])
def test_error_is_bounded_by_the_bits_at_any_magnitude(grid: Grid, scale: float) -> None:
    weight = torch.randn(16, 512, generator=torch.Generator().manual_seed(0)) * scale
    fixed = grid.fit(weight)
    relative = weighted_error(weight, fixed, torch.ones(512)) / float((weight**2).sum())
    codes = fixed.maximum - fixed.minimum + 1
    bits = codes.bit_length() - 1 if fixed.codebook is None else int(grid.bits_per_weight)
    # Noise of a uniform quantizer over ±4 standard deviations, with room for what half precision of tiny scales costs.
    assert relative < 1.3 * (8 / 2**bits) ** 2 / 12


@pytest.mark.parametrize("grid", ALL_GRIDS, ids=NAMES)
def test_zero_rows_and_blocks_decode_to_zero(grid: Grid) -> None:
    weight = heavy_tailed(4, 512)
    weight[1] = 0
    weight[2, 256:] = 0
    fixed = grid.fit(weight)
    decoded = fixed.decode(fixed.nearest(weight))
    assert bool((decoded[1] == 0).all())
    assert bool((decoded[2, 256:] == 0).all())
    assert bool(torch.isfinite(decoded).all())
    everything = grid.fit(torch.zeros(4, 512))
    assert bool((everything.decode(everything.nearest(torch.zeros(4, 512))) == 0).all())


@pytest.mark.parametrize("grid", ALL_GRIDS, ids=NAMES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused(grid: Grid, bad: float) -> None:
    weight = heavy_tailed(2, 256)
    weight[1, 7] = bad
    with pytest.raises(ValueError, match="not finite"):
        grid.fit(weight)


@pytest.mark.parametrize("grid", ALL_GRIDS, ids=NAMES)
def test_useless_importance_does_not_harm(grid: Grid) -> None:
    weight = heavy_tailed(4, 256)
    plain = grid.fit(weight)
    for importance in (torch.zeros(256), torch.full((256,), torch.nan), torch.full((256,), -1.0)):
        assert torch.equal(grid.fit(weight, importance).scale, plain.scale)
    half_dead = torch.ones(256)
    half_dead[::2] = 0
    assert bool(torch.isfinite(grid.fit(weight, half_dead).scale).all())
    with pytest.raises(ValueError, match="importance"):
        grid.fit(weight, torch.ones(255))


@pytest.mark.parametrize("grid", ALL_GRIDS, ids=NAMES)
def test_fitting_is_repeatable_and_leaves_the_weight_alone(grid: Grid) -> None:
    weight = heavy_tailed(4, 256)
    kept = weight.clone()
    first, second = grid.fit(weight, importance_of(256)), grid.fit(weight, importance_of(256))
    assert torch.equal(first.scale, second.scale)
    assert torch.equal(first.offset, second.offset)
    assert torch.equal(weight, kept)


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("columns", [1, 31, 32, 100, 256])
def test_clip_search_is_never_worse_than_the_largest_magnitude(bits: int, columns: int) -> None:
    weight, importance = heavy_tailed(16, columns), importance_of(columns)
    fixed = SymmetricGrid(bits, 32).fit(weight, importance)
    top = 2 ** (bits - 1) - 1
    groups = -(-columns // 32)
    padded = torch.nn.functional.pad(weight, (0, groups * 32 - columns)).view(16, groups, 32)
    scale = round_scale(padded.abs().amax(dim=2) / top, "shared")
    plain = FixedGrid(scale, torch.zeros_like(scale), fixed.group, -top - 1, top)
    assert weighted_error(weight, fixed, importance) <= weighted_error(weight, plain, importance) * (1 + 1e-5)


def test_clip_search_helps_where_few_bits_meet_heavy_tails() -> None:
    weight = heavy_tailed(64, 256)
    fixed = SymmetricGrid(3, 128).fit(weight)
    scale = round_scale(weight.view(64, 2, 128).abs().amax(dim=2) / 3, "shared")
    plain = FixedGrid(scale, torch.zeros_like(scale), 128, -4, 3)
    assert weighted_error(weight, fixed, torch.ones(256)) < 0.8 * weighted_error(weight, plain, torch.ones(256))


def test_importance_moves_the_scales_where_it_matters() -> None:
    weight, importance = heavy_tailed(64, 256), importance_of(256)
    informed = SymmetricGrid(3, 64).fit(weight, importance)
    plain = SymmetricGrid(3, 64).fit(weight)
    assert weighted_error(weight, informed, importance) < weighted_error(weight, plain, importance)


@pytest.mark.parametrize("magnitude", [1e-7, 1e-5, 1e-3, 1.0, 1e3, 1e6])
@pytest.mark.parametrize("grid", [SymmetricGrid(4, 32), AsymmetricGrid(4, 32), gguf_grid("q4_0"), gguf_grid("q8_0")])
def test_shared_scales_are_exact_in_float16_and_bfloat16(grid: Grid, magnitude: float) -> None:
    fixed = grid.fit(torch.randn(8, 128, generator=torch.Generator().manual_seed(3)) * magnitude)
    assert is_exact(fixed.scale, torch.float16)
    assert is_exact(fixed.scale, torch.bfloat16)
    assert bool((fixed.scale >= 0).all())
    assert bool(torch.isfinite(fixed.scale).all())


def test_every_float16_rounds_to_a_shared_scale() -> None:
    every = torch.from_numpy(np.arange(0, 0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32))
    shared = round_scale(every, "shared")
    assert is_exact(shared, torch.float16)
    assert is_exact(shared, torch.bfloat16)
    normal = every >= 2.0**-14
    assert float(((shared - every)[normal] / every[normal]).abs().max()) <= 2.0**-8


def test_decoding_with_half_precision_scales_gives_the_same_weights() -> None:
    weight = heavy_tailed(8, 128)
    for grid in (SymmetricGrid(4, 32), AsymmetricGrid(4, 32)):
        fixed = grid.fit(weight)
        codes = fixed.nearest(weight)
        for dtype in (torch.float16, torch.bfloat16):
            scale = fixed.stored["scale"].to(dtype).to(torch.float32).repeat_interleave(32, dim=1)
            zero = fixed.stored.get("zero", torch.zeros_like(fixed.scale)).to(torch.float32)
            value = scale * (codes.to(torch.float32) - zero.repeat_interleave(32, dim=1))
            assert torch.equal(value, fixed.decode(codes))


def test_zero_points_are_codes_and_zero_is_on_the_grid() -> None:
    for shift in (-0.05, 0.0, 0.05):
        fixed = AsymmetricGrid(3, 32).fit(heavy_tailed(8, 128) + shift)
        zero = fixed.stored["zero"]
        assert zero.dtype == torch.int16
        assert 0 <= int(zero.min()) <= int(zero.max()) <= 7
        assert torch.equal(fixed.scale * zero.to(torch.float32) + fixed.offset, torch.zeros_like(fixed.scale))


def test_asymmetric_beats_symmetric_on_shifted_weights() -> None:
    weight = heavy_tailed(32, 256) + 0.04
    ones = torch.ones(256)
    asymmetric = weighted_error(weight, AsymmetricGrid(4, 32).fit(weight), ones)
    assert asymmetric < 0.6 * weighted_error(weight, SymmetricGrid(4, 32).fit(weight), ones)


def test_group_larger_than_the_row_is_one_group() -> None:
    weight = heavy_tailed(4, 20)
    for grid in (SymmetricGrid(4, 128), AsymmetricGrid(4, 128)):
        fixed = grid.fit(weight)
        assert list(fixed.scale.shape) == [4, 1]
        assert list(fixed.decode(fixed.nearest(weight)).shape) == [4, 20]


@pytest.mark.parametrize("bits", [1, 9, 0])
def test_impossible_bits_and_groups_are_refused(bits: int) -> None:
    for family in (SymmetricGrid, AsymmetricGrid):
        with pytest.raises(ValueError, match="bits"):
            family(bits, 32)
        with pytest.raises(ValueError, match="group"):
            family(4, 0)


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (4,)])
def test_weights_without_elements_are_refused(shape: tuple[int, ...]) -> None:
    for grid in (SymmetricGrid(4, 32), AsymmetricGrid(4, 32)):
        with pytest.raises(ValueError, match="matrix"):
            grid.fit(torch.zeros(shape))


@pytest.mark.parametrize("name", SUPER_BLOCK_NAMES)
def test_super_blocks_decode_from_what_is_stored(name: str) -> None:
    fixed = gguf_grid(name).fit(heavy_tailed(6, 768), importance_of(768))
    d, sc = fixed.stored["d"], fixed.stored["sc"]
    assert list(d.shape) == [6, 3]
    assert is_exact(d, torch.float16)
    subs = 256 // fixed.group
    assert torch.equal(fixed.scale, d.repeat_interleave(subs, dim=1) * sc)
    if "dmin" in fixed.stored:
        dmin, mn = fixed.stored["dmin"], fixed.stored["mn"]
        assert is_exact(dmin, torch.float16)
        assert torch.equal(fixed.offset, -(dmin.repeat_interleave(subs, dim=1) * mn))
        assert int(mn.min()) >= 0
    else:
        assert bool((fixed.offset == 0).all())


# Relative squared error that the search reached when this was written, and five percent.
GAUSSIAN_LIMITS = {
    "q2_k": 0.0724,
    "q3_k": 0.0216,
    "q4_k": 0.00525,
    "q5_k": 0.00127,
    "q6_k": 0.000312,
    "iq2_xxs": 0.1132,
    "iq2_xs": 0.0855,
    "iq2_s": 0.0599,
    "iq3_xxs": 0.0332,
    "iq3_s": 0.0178,
    "iq4_xs": 0.0058,
}


@pytest.mark.parametrize("name", SUPER_BLOCK_NAMES)
def test_super_blocks_are_accurate_on_gaussian_weights(name: str) -> None:
    weight = torch.randn(16, 1024, generator=torch.Generator().manual_seed(0)) * 0.02
    fixed = gguf_grid(name).fit(weight)
    relative = weighted_error(weight, fixed, torch.ones(1024)) / float((weight**2).sum())
    assert relative < GAUSSIAN_LIMITS[name]


def test_rows_that_do_not_fill_blocks_are_refused_or_given_another_type() -> None:
    for name, columns in (("q4_k", 320), ("q4_0", 40), ("q4_1", 40)):
        assert not gguf_grid(name).supports(4, columns)
        with pytest.raises(ValueError, match="multiple"):
            gguf_grid(name).fit(torch.zeros(4, columns))
    assert gguf_type_for("q4_k", 4, 512) == "q4_k"
    assert gguf_type_for("q4_k", 4, 320) == "q5_0"
    assert gguf_type_for("q6_k", 4, 320) == "q8_0"
    assert gguf_type_for("q5_k", 4, 320) == "q5_1"
    assert gguf_type_for("q2_k", 4, 320) == gguf_type_for("q3_k", 4, 320) == "q4_0"
    assert gguf_type_for("iq4_xs", 4, 320) == gguf_type_for("iq3_s", 4, 320) == "iq4_nl"
    assert gguf_type_for("q4_k", 4, 40) is None
    with pytest.raises(ValueError, match="q9_z"):
        gguf_grid("q9_z")


def test_offset_blocks_keep_constant_blocks_exactly() -> None:
    weight = torch.full((2, 64), 0.375)
    fixed = gguf_grid("q4_1").fit(weight)
    assert torch.equal(fixed.decode(fixed.nearest(weight)), weight)


def test_half_rounding_is_that_of_numpy() -> None:
    generator = np.random.default_rng(0)
    values = np.concatenate(
        [
            generator.standard_normal(2000) * 10.0 ** generator.integers(-9, 5, 2000),
            [0.0, 1.0, -1.0, 65504.0, 65519.0, 2.0**-24, 2.0**-25, 3 * 2.0**-25, 2.0**-14, 1 + 2.0**-11],
        ]
    ).astype(np.float32)
    expected = np.clip(values, -65504, 65504).astype(np.float16).astype(np.float32)
    assert np.array_equal(np.array([to_half(value) for value in values], dtype=np.float32), expected)


@pytest.mark.parametrize(("columns", "group"), [(96, 32), (75, 32), (20, 20)])
def test_compiled_searches_agree_with_those_on_tensors(columns: int, group: int) -> None:
    weight, importance = heavy_tailed(16, columns), importance_of(columns)
    generator = torch.Generator().manual_seed(2)
    groups = -(-columns // group)
    scales = torch.rand(16, groups, 5, generator=generator) * 0.02
    scales[0, 0] = 0
    zeros = torch.randint(0, 8, (16, groups, 5), generator=generator).float()
    compiled = affine_errors(weight.numpy(), importance.numpy(), group, scales.numpy(), zeros.numpy(), 0, 7)
    assert np.allclose(tensor_affine_errors(weight, importance, group, scales, zeros, 0, 7), compiled, rtol=1e-4)
    scale, zero = scales[..., 0].contiguous(), zeros[..., 0].contiguous()
    fitted = least_squares_scales(weight.numpy(), importance.numpy(), group, scale.numpy(), zero.numpy(), 0, 7)
    own = tensor_least_squares_scales(weight, importance, group, scale, zero, 0, 7)
    assert np.allclose(own, fitted, rtol=1e-4)
    assert torch.equal(own[0, 0], scale[0, 0])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="skipped: no CUDA")
@pytest.mark.parametrize("grid", ALL_GRIDS, ids=NAMES)
def test_scales_found_on_cuda_are_as_good(grid: Grid) -> None:
    weight, importance = heavy_tailed(64, 512), importance_of(512)
    here = weighted_error(weight, grid.fit(weight, importance), importance)
    found = grid.fit(weight.cuda(), importance.cuda())
    assert found.scale.is_cuda and all(tensor.is_cuda for tensor in found.stored.values())
    assert weighted_error(weight, found.to("cpu"), importance) == pytest.approx(here, rel=1e-3)


@pytest.mark.parametrize("name", [*GGUF_GRID_NAMES, "symmetric", "asymmetric"])
def test_grids_fitted_a_few_rows_at_a_time_are_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    grid: Grid = {"symmetric": SymmetricGrid(3, 40), "asymmetric": AsymmetricGrid(4, 40)}.get(name) or gguf_grid(name)
    generator = torch.Generator().manual_seed(7)
    weight = torch.randn(23, 512, generator=generator)
    weight[4] = 0
    importance = torch.rand(512, generator=generator)
    whole = grid.fit(weight, importance)
    monkeypatch.setattr(fit_rows_module, "_ELEMENTS", 5 * 512)
    parts = fit_rows(grid, weight, importance)
    assert torch.equal(parts.scale, whole.scale) and torch.equal(parts.offset, whole.offset)
    assert parts.stored.keys() == whole.stored.keys()
    for key, value in whole.stored.items():
        assert torch.equal(parts.stored[key], value)
        assert (parts.stored[key] is parts.scale) == (value is whole.scale)
    some = whole.rows(5, 9)
    codes = whole.nearest(weight)
    assert torch.equal(some.decode(codes[5:9]), whole.decode(codes)[5:9])
