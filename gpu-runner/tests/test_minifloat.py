"""FP4 and FP8 grids hold the numbers that engines decode, under scales that containers store, chosen by the error."""

from __future__ import annotations

import pytest
import torch
from compressed_tensors.compressors.nvfp4.helpers import unpack_fp4_from_uint8

from yaqa_runner.grids.affine_search import round_scale
from yaqa_runner.grids.fit_rows import fit_rows
from yaqa_runner.grids.minifloat import (
    SCALE_OCTAVES,
    ElementName,
    MinifloatGrid,
    element_bits,
    levels_of,
)
from yaqa_runner.grids.table_kernel import table_errors
from yaqa_runner.grids.table_tensors import tensor_table_errors
from yaqa_runner.rounding.adaptive import round_adaptive
from yaqa_runner.rounding.reference import reference_round_adaptive

NVFP4 = MinifloatGrid("nvfp4", "e2m1", 16, "e4m3_scaled", 4.5)
MXFP4 = MinifloatGrid("mxfp4", "e2m1", 32, "e8m0", 4.25)
FP8 = MinifloatGrid("fp8", "e4m3", None, "shared", 8.0)
UNSCALED = MinifloatGrid("nvfp4", "e2m1", 16, "e4m3", 4.5)
ALL = [NVFP4, MXFP4, FP8, UNSCALED]
NAMES = ["nvfp4", "mxfp4", "fp8", "nvfp4-unscaled"]


def weight_of(rows: int = 24, columns: int = 96) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(rows, columns, generator=generator) * 0.02
    return weight * torch.where(torch.rand(rows, columns, generator=generator) < 0.02, 5.0, 1.0)


def importance_of(columns: int) -> torch.Tensor:
    return torch.rand(columns, generator=torch.Generator().manual_seed(1)) ** 3 + 1e-3


def test_every_level_is_what_the_libraries_decode_from_its_bits() -> None:
    codes = torch.arange(15, dtype=torch.int16)[None]
    bits = element_bits(codes, "e2m1")
    packed = torch.cat([bits, bits[:, :1]], dim=1)
    bytes_ = packed[:, 0::2] | (packed[:, 1::2] << 4)
    decoded = unpack_fp4_from_uint8(bytes_, 1, 16, torch.float32)
    assert torch.equal(decoded[0, :15], levels_of("e2m1"))
    codes = torch.arange(253, dtype=torch.int16)
    assert torch.equal(element_bits(codes, "e4m3").view(torch.float8_e4m3fn).float(), levels_of("e4m3"))
    with pytest.raises(ValueError, match=r"outside 0\.\.14"):
        element_bits(torch.tensor([15]), "e2m1")


@pytest.mark.parametrize("element", ["e2m1", "e4m3"])
def test_the_compiled_search_agrees_with_whole_tensors(element: ElementName) -> None:
    weight, importance, table = weight_of(), importance_of(96), levels_of(element)
    scales = torch.rand(24, 6, 5, generator=torch.Generator().manual_seed(2)) * 0.02
    scales[3] = 0.0
    fast = torch.from_numpy(table_errors(weight.numpy(), importance.numpy(), 16, scales.numpy(), table.numpy()))
    torch.testing.assert_close(fast, tensor_table_errors(weight, importance, 16, scales, table), rtol=2e-4, atol=1e-9)


@pytest.mark.parametrize("grid", ALL, ids=NAMES)
def test_scales_are_storable_and_never_worse_than_the_largest_values(grid: MinifloatGrid) -> None:
    weight, importance = weight_of(), importance_of(96)
    weight[5] = 0.0
    fixed = fit_rows(grid, weight, importance)
    assert torch.equal(round_scale(fixed.scale, grid.scales), fixed.scale)
    assert bool((fixed.decode(fixed.nearest(weight))[5] == 0).all())
    largest = weight.view(24, -1, grid.group or 96).abs().amax(-1) / levels_of(grid.element).max()
    plain = round_scale(largest, grid.scales)

    def error(scale: torch.Tensor) -> torch.Tensor:
        table = levels_of(grid.element)
        return tensor_table_errors(weight, importance, grid.group or 96, scale[..., None], table)

    # Rounded up, the scale of the largest value may be what no clipping means: both are there to be beaten.
    assert bool((error(fixed.scale) <= error(plain) * (1 + 1e-5)).all())
    assert float(error(fixed.scale).sum()) < 0.98 * float(error(plain).sum())


def test_the_largest_value_becomes_four_where_that_is_exact() -> None:
    weight = torch.tensor([[1.0, 0.75, 0.5, 0.25, -1.0, -0.75, 0.375, 0.125] * 2])
    fixed = NVFP4.fit(weight)
    assert float(fixed.scale) == 0.25
    assert torch.equal(fixed.decode(fixed.nearest(weight)), weight)


def test_the_range_of_scales_is_the_whole_weights_however_few_rows_are_fitted() -> None:
    weight = weight_of()
    weight[3] *= 2.0**-9
    weight[4] *= 2.0**-30
    fixed = fit_rows(NVFP4, weight)
    lowest = float(weight.abs().max()) / 6 * 2.0**-SCALE_OCTAVES
    live = fixed.scale[fixed.scale > 0]
    assert float(live.min()) >= lowest / 1.07
    assert bool((fixed.scale[3] > 0).any()) and bool((fixed.scale[4] == 0).all())
    assert torch.equal(NVFP4.within(weight).fit(weight[3:5]).scale, fixed.scale[3:5])


def test_weights_beyond_the_scales_and_rows_of_other_widths_are_refused() -> None:
    with pytest.raises(ValueError, match="beyond what mxfp4 can hold"):
        MXFP4.fit(torch.full((1, 32), 3e38))
    with pytest.raises(ValueError, match="beyond what nvfp4 can hold"):
        UNSCALED.fit(torch.full((1, 16), 3000.0))
    with pytest.raises(ValueError, match="not a multiple of 16"):
        NVFP4.fit(torch.ones(2, 24))
    assert not MXFP4.supports(8, 48) and NVFP4.supports(8, 48) and FP8.supports(8, 47)


@pytest.mark.parametrize("grid", [NVFP4, FP8], ids=["nvfp4", "fp8"])
def test_rounding_on_them_equals_the_reference(grid: MinifloatGrid) -> None:
    weight = weight_of(20, 32)
    generator = torch.Generator().manual_seed(4)
    lower_input, lower_output = (
        torch.tril(torch.randn(size, size, generator=generator) * 0.1, -1) + torch.eye(size) for size in (32, 20)
    )
    fixed = grid.fit(weight)
    codes = round_adaptive(weight, fixed, lower_input, lower_output)
    assert torch.equal(codes, reference_round_adaptive(weight, fixed, lower_input, lower_output))
