"""What containers of FP4 and FP8 need of a frozen grid: the bits of its codes, and of scales that are powers of two."""

from __future__ import annotations

import torch

from yaqa_runner.formats.container import QuantizedLinear
from yaqa_runner.formats.source import ExportError
from yaqa_runner.grids.minifloat import E8M0_BIAS, MinifloatGrid, element_bits, levels_of


def minifloat_codes(linear: QuantizedLinear, minifloat: MinifloatGrid) -> torch.Tensor:
    """The bits ``[out, in]`` uint8 of ``linear``'s codes.

    Raises:
        ExportError: the grid's levels or groups are not those of ``minifloat``, or a scale is negative or not finite.
    """
    grid = linear.grid
    levels = levels_of(minifloat.element)
    if grid.table is None or not torch.equal(grid.table.cpu(), levels) or bool((grid.offset != 0).any()):
        raise ExportError(f"{linear.name}: the grid's levels are not those of {minifloat.name}.")
    if grid.group != (minifloat.group or linear.codes.shape[1]):
        raise ExportError(f"{linear.name}: groups of {grid.group} cannot be stored as {minifloat.name}.")
    if not bool(torch.isfinite(grid.scale).all()) or bool((grid.scale < 0).any()):
        raise ExportError(f"{linear.name}: a scale is negative or not finite.")
    return element_bits(linear.codes.cpu(), minifloat.element)


def e8m0_exponents(name: str, scale: torch.Tensor) -> torch.Tensor:
    """E8M0 of powers of two, uint8.

    Raises:
        ExportError: a scale of linear ``name`` is another number, or out of range.
    """
    mantissa, exponent = torch.frexp(scale)
    biased = exponent - 1 + E8M0_BIAS
    if bool((mantissa != 0.5).any()) or bool((biased < 0).any()) or bool((biased > 2 * E8M0_BIAS).any()):
        raise ExportError(f"{name}: a scale is no power of two that E8M0 holds.")
    return biased.to(torch.uint8)
