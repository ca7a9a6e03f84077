"""Codes from 0 with an offset of their own: the grid of GGUF's Q4_1 and Q5_1, and of MLX."""

from __future__ import annotations

import torch

from yaqa_runner.grids.affine_search import (
    ScalePrecision,
    best_scales,
    clip_ratios,
    group_extremes,
    round_scale,
    validated,
)
from yaqa_runner.grids.grid import FixedGrid


class OffsetGrid:
    """``value = d * code + m`` with ``code`` in ``0 … 2^bits − 1``; a group stores ``d`` and ``m`` as numbers.

    Args:
        name: The container's own word for it.
        bits: 2 to 8.
        group: Input columns that share ``d`` and ``m``; a row that is no multiple of it ends in a shorter group.
        precision: What the container keeps both in.
    """

    def __init__(self, name: str, bits: int, group: int, precision: ScalePrecision) -> None:
        if not 2 <= bits <= 8:
            raise ValueError(f"a grid with offsets has 2 to 8 bits, not {bits}")
        if group < 1:
            raise ValueError(f"a group has at least one column, not {group}")
        self.name = name
        self.bits = bits
        self.group = group
        self.precision: ScalePrecision = precision
        self.bits_per_weight = bits + 2 * (32 if precision == "float32" else 16) / group

    def supports(self, rows: int, columns: int) -> bool:
        """Every weight with at least one element; containers ask for more where they need it."""
        return rows > 0 and columns > 0

    def fit(self, weight: torch.Tensor, input_importance: torch.Tensor | None = None) -> FixedGrid:
        """Choose ``d`` and ``m`` for every group of ``weight`` ``[out, in]``.

        ``stored``: ``d`` and ``m`` ``[out, groups]`` float32, exact in the container's precision.

        Raises:
            ValueError: ``weight`` is empty, not a matrix, or holds values that are not finite.
        """
        weight, importance = validated(weight, input_importance)
        group = min(self.group, weight.shape[1])
        lowest, highest = group_extremes(weight, group)
        top = (1 << self.bits) - 1
        ratios = clip_ratios(self.bits).to(weight.device)
        spread = (highest - lowest)[..., None] * ratios
        scales = round_scale(spread / top, self.precision)
        # A shrunk range is tried at the bottom, in the middle and at the top of the full one.
        slack = (highest - lowest)[..., None] - spread
        offsets = torch.cat([lowest[..., None] + slack * share for share in (0.5, 0.25, 0.75)], dim=2)
        offsets = round_scale(offsets, self.precision)
        scales = scales.repeat(1, 1, 3)
        constant = scales == 0
        safe = torch.where(constant, torch.ones_like(scales), scales)
        zeros = torch.where(constant, torch.zeros_like(scales), -offsets / safe)
        scale, zero = best_scales(weight, importance, group, scales, zeros, 0, top, self.precision)
        # Least squares may have moved the scale, and a group of equal values has none: m is settled last.
        offset = round_scale(torch.where(scale == 0, lowest, -scale * zero), self.precision)
        return FixedGrid(scale, offset, group, 0, top, {"d": scale, "m": offset})
