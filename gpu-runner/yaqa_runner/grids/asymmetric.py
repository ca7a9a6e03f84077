"""Unsigned codes with an integer zero point a group."""

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


class AsymmetricGrid:
    """``value = scale * (code − zero)`` with ``code`` and ``zero`` in ``0 … 2^bits − 1``.

    Args:
        bits: 2 to 8.
        group: Input columns that share a scale and a zero point.
        precision: What the container keeps a scale in.
    """

    def __init__(self, bits: int, group: int, precision: ScalePrecision = "shared") -> None:
        if not 2 <= bits <= 8:
            raise ValueError(f"an asymmetric grid has 2 to 8 bits, not {bits}")
        if group < 1:
            raise ValueError(f"a group has at least one column, not {group}")
        self.bits = bits
        self.group = group
        self.precision: ScalePrecision = precision
        self.minimum = 0
        self.maximum = (1 << bits) - 1
        self.name = f"asymmetric-{bits}-g{group}"
        self.bits_per_weight = bits + ((32 if precision == "float32" else 16) + bits) / group

    def supports(self, rows: int, columns: int) -> bool:
        """Every weight with at least one element; containers ask for more where they need it."""
        return rows > 0 and columns > 0

    def fit(self, weight: torch.Tensor, input_importance: torch.Tensor | None = None) -> FixedGrid:
        """Choose a scale and a zero point a group for ``weight`` ``[out, in]``.

        The range always holds 0, as the zero point is one of the codes. Tried are ranges shrunk by clip ratios, with
        the zero point rounded either way. ``stored``: ``scale`` ``[out, groups]`` float32 exact in the container's
        precision, ``zero`` ``[out, groups]`` int16.

        Raises:
            ValueError: ``weight`` is empty, not a matrix, or holds values that are not finite.
        """
        weight, importance = validated(weight, input_importance)
        group = min(self.group, weight.shape[1])
        lowest, highest = group_extremes(weight, group)
        lowest, highest = lowest.clamp(max=0), highest.clamp(min=0)
        ratios = clip_ratios(self.bits).to(weight.device)
        scales = round_scale((highest - lowest)[..., None] / self.maximum * ratios, self.precision)
        safe = torch.where(scales > 0, scales, torch.ones_like(scales))
        # The unclipped range decides where 0 lies; a shrunk one keeps that share below 0.
        below = (-lowest[..., None] * ratios / safe).clamp(0, self.maximum)
        zeros = torch.cat([below.round(), below.floor(), below.ceil()], dim=2)
        scale, zero = best_scales(
            weight, importance, group, scales.repeat(1, 1, 3), zeros, self.minimum, self.maximum, self.precision
        )
        return FixedGrid(
            scale=scale,
            offset=-scale * zero,
            group=group,
            minimum=self.minimum,
            maximum=self.maximum,
            stored={"scale": scale, "zero": zero.to(torch.int16)},
        )
