"""Grids of small floating-point numbers: FP4 (E2M1) and FP8 (E4M3) under scales that are small numbers themselves.

Both have a sign and so two zeros; a value has one code here, and the container maps codes to bits.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch

from yaqa_runner.grids.affine_search import group_extremes, round_scale, validated
from yaqa_runner.grids.grid import FixedGrid
from yaqa_runner.grids.table_kernel import table_errors
from yaqa_runner.grids.table_tensors import tensor_table_errors

ElementName: TypeAlias = Literal["e2m1", "e4m3"]
ScaleFamily: TypeAlias = Literal["e8m0", "e4m3", "e4m3_scaled", "shared"]
"""What a group's scale may be: a power of two; a number of E4M3; the like under a power of two of the whole weight;
any number that float16 and bfloat16 both hold."""

_MAGNITUDES: dict[ElementName, torch.Tensor] = {
    "e2m1": torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]),
    "e4m3": torch.arange(127, dtype=torch.uint8).view(torch.float8_e4m3fn).to(torch.float32),
}
_SIGN: dict[ElementName, int] = {"e2m1": 8, "e4m3": 128}
SCALE_OCTAVES = 10
"""How far below the largest scale of a weight others lie at most, where they are E4M3 under a power of two. E4M3 itself
has 14 octaves; the others are for weights that share the power and are smaller on the whole."""
E8M0_BIAS = 127
_LOWEST_EXPONENT = -126
# Steps of a scale's own precision that are tried from the one of the group's largest value, which clips nothing.
# For E2M1 under E4M3 they reach from 2/3 of it to twice, "four over six" (the largest value as 4) among them.
_STEPS: dict[ScaleFamily, tuple[int, int, int]] = {
    "e8m0": (-1, 3, 1),
    "e4m3": (-5, 8, 1),
    "e4m3_scaled": (-5, 8, 1),
    # An octave of eighths of a bfloat16's last digit: numbers of floating point look alike in every octave.
    "shared": (-16, 129, 8),
}
_MANTISSA_BITS: dict[ScaleFamily, int] = {"e8m0": 0, "e4m3": 3, "e4m3_scaled": 3, "shared": 7}
_FLOAT32_MANTISSA_BITS = 23


def levels_of(element: ElementName) -> torch.Tensor:
    """Every value of ``element``, rising, float32: 15 of E2M1, 253 of E4M3."""
    magnitudes = _MAGNITUDES[element]
    return torch.cat([-magnitudes[1:].flip(0), magnitudes])


class MinifloatGrid:
    """``value = scale * level``, a level being a number of ``element`` and ``scale`` one of ``scales``.

    Args:
        name: The container's own word for it.
        element: What the codes stand for.
        group: Input columns that share a scale; ``None``: all of a row.
        scales: What a scale may be.
        bits_per_weight: Stored bits a weight, scales counted.
        largest_scale: Of the whole weight; without it, of the rows that are fitted. Told by :meth:`within`.
    """

    def __init__(
        self,
        name: str,
        element: ElementName,
        group: int | None,
        scales: ScaleFamily,
        bits_per_weight: float,
        largest_scale: float | None = None,
    ) -> None:
        self.name = name
        self.element: ElementName = element
        self.group = group
        self.scales: ScaleFamily = scales
        self.bits_per_weight = bits_per_weight
        self.largest_scale = largest_scale
        self._table = levels_of(element)

    def supports(self, rows: int, columns: int) -> bool:
        """Rows of whole groups."""
        return rows > 0 and columns > 0 and (self.group is None or columns % self.group == 0)

    def within(self, weight: torch.Tensor) -> MinifloatGrid:
        """The same grid for some rows of ``weight`` ``[out, in]``: the range of scales is that of all of it."""
        largest = float(weight.abs().max()) / float(self._table[-1])
        return MinifloatGrid(self.name, self.element, self.group, self.scales, self.bits_per_weight, largest)

    def fit(self, weight: torch.Tensor, input_importance: torch.Tensor | None = None) -> FixedGrid:
        """Choose a scale for every group of ``weight`` ``[out, in]`` among those that can be stored.

        ``stored`` has it under the name of its family, float32 ``[out, groups]``.

        Raises:
            ValueError: ``weight`` is empty, not a matrix, not finite, too large for the scales, or its rows are no
                whole groups.
        """
        weight, importance = validated(weight, input_importance)
        rows, columns = weight.shape
        if not self.supports(rows, columns):
            raise ValueError(f"{columns} input columns are not a multiple of {self.group}, the group of {self.name}")
        group = self.group or columns
        lowest, highest = group_extremes(weight, group)
        full = torch.maximum(-lowest, highest) / self._table[-1].item()
        candidates = self._candidates(full)
        table = self._table.to(weight.device)
        if weight.is_cuda:
            errors = tensor_table_errors(weight, importance, group, candidates, table)
        else:
            arrays = weight.numpy(), importance.numpy(), group, candidates.numpy(), table.numpy()
            errors = torch.from_numpy(table_errors(*arrays))
        scale = candidates.gather(2, errors.argmin(dim=2, keepdim=True)).squeeze(2).contiguous()
        key = "scale" if self.scales == "shared" else self.scales
        return FixedGrid(scale, torch.zeros_like(scale), group, 0, len(table) - 1, {key: scale}, table)

    def decode_bits(self, bits: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
        """Float32 ``[out, in]`` of E2M1's ``bits`` ``[out, in]`` under the bytes of ``scales`` ``[out, groups]``."""
        places = bits.to(torch.int64)
        magnitudes = _MAGNITUDES["e2m1"][places & (_SIGN["e2m1"] - 1)]
        signed = torch.where(places >= _SIGN["e2m1"], -magnitudes, magnitudes)
        if self.scales == "e8m0":
            scale = torch.ldexp(torch.ones(scales.shape), scales.to(torch.int32) - E8M0_BIAS)
        else:
            scale = scales.view(torch.float8_e4m3fn).to(torch.float32)
        return signed * scale.repeat_interleave(bits.shape[1] // scales.shape[1], 1)

    def _candidates(self, full: torch.Tensor) -> torch.Tensor:
        """Scales ``[out, groups, candidates]`` near ``full`` ``[out, groups]``, all of the family, none negative."""
        largest = float(full.max()) if self.largest_scale is None else self.largest_scale
        if largest > largest_storable(self.scales):
            raise ValueError(f"the weight's largest value is beyond what {self.name} can hold")
        smallest = 2.0**_LOWEST_EXPONENT
        if self.scales == "e4m3_scaled":
            smallest = max(smallest, largest * 2.0**-SCALE_OCTAVES)
        # The lowest bits of a float32 are those that the scale does not have: its neighbours are whole steps away.
        shift = _FLOAT32_MANTISSA_BITS - _MANTISSA_BITS[self.scales]
        steps = torch.arange(*_STEPS[self.scales], dtype=torch.int32, device=full.device) << shift
        bounded = full.clamp_min(smallest).contiguous()
        near = ((bounded.view(torch.int32) >> shift << shift)[..., None] + steps).view(torch.float32)
        near = near.clamp(smallest, largest_storable(self.scales))
        candidates = round_scale(near, self.scales)
        if self.scales == "e4m3_scaled":
            # What would be rounded to 0 whole needs no scale, and asks nothing of those that share the power of two.
            dead = full * self._table[-1].item() < smallest * self._table.abs()[self._table > 0].min().item() / 2
            candidates.masked_fill_(dead[..., None], 0.0)
        return candidates.contiguous()


def largest_storable(scales: ScaleFamily) -> float:
    """The largest scale of a family."""
    return {"e8m0": 2.0**120, "e4m3": 448.0, "e4m3_scaled": 2.0**120, "shared": 65280.0}[scales]


def element_bits(codes: torch.Tensor, element: ElementName) -> torch.Tensor:
    """The bits of ``codes`` of any shape, uint8: the sign above the place among the magnitudes; one zero, the positive.

    Raises:
        ValueError: a code outside of the levels.
    """
    middle = len(_MAGNITUDES[element]) - 1
    place = codes.to(torch.int16) - middle
    if bool((place.abs() > middle).any()):
        raise ValueError(f"a code lies outside 0..{2 * middle}")
    return torch.where(place < 0, _SIGN[element] - place, place).to(torch.uint8)
