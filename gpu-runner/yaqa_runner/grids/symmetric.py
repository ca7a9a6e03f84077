"""Signed codes around a fixed middle: the grid that GGUF, ONNX, compressed-tensors and GPTQ share."""

from __future__ import annotations

import torch

from yaqa_runner.grids.affine_search import ScalePrecision, best_scales, clip_ratios, group_extremes, validated
from yaqa_runner.grids.grid import FixedGrid


class SymmetricGrid:
    """``value = scale * code`` with ``code`` in ``−2^(bits−1) … 2^(bits−1) − 1`` and one positive scale a group.

    With the default ``precision`` every scale is exact in both float16 and bfloat16, so one set of codes decodes to
    the same weights from every container, whatever the model's dtype.

    Args:
        bits: 2 to 8.
        group: Input columns that share a scale; a row that is no multiple of it ends in a shorter group.
        precision: What the container keeps a scale in.
    """

    def __init__(self, bits: int, group: int, precision: ScalePrecision = "shared") -> None:
        if not 2 <= bits <= 8:
            raise ValueError(f"a symmetric grid has 2 to 8 bits, not {bits}")
        if group < 1:
            raise ValueError(f"a group has at least one column, not {group}")
        self.bits = bits
        self.group = group
        self.precision: ScalePrecision = precision
        self.minimum = -(1 << (bits - 1))
        self.maximum = (1 << (bits - 1)) - 1
        self.name = f"symmetric-{bits}-g{group}"
        self.bits_per_weight = bits + (32 if precision == "float32" else 16) / group

    def supports(self, rows: int, columns: int) -> bool:
        """Every weight with at least one element; containers ask for more where they need it."""
        return rows > 0 and columns > 0

    def fit(self, weight: torch.Tensor, input_importance: torch.Tensor | None = None) -> FixedGrid:
        """Choose one scale a group for ``weight`` ``[out, in]`` by clip search and a least-squares step.

        ``stored["scale"]`` is the scale ``[out, groups]`` float32, exact in the container's precision.

        Raises:
            ValueError: ``weight`` is empty, not a matrix, or holds values that are not finite.
        """
        weight, importance = validated(weight, input_importance)
        columns = weight.shape[1]
        group = min(self.group, columns)
        lowest, highest = group_extremes(weight, group)
        absolute = torch.maximum(-lowest, highest)
        full = absolute / self.maximum
        ratios = clip_ratios(self.bits).to(weight.device)
        candidates = full[..., None] * ratios
        zeros = torch.zeros_like(candidates)
        scale, _ = best_scales(weight, importance, group, candidates, zeros, self.minimum, self.maximum, self.precision)
        return FixedGrid(
            scale=scale,
            offset=torch.zeros_like(scale),
            group=group,
            minimum=self.minimum,
            maximum=self.maximum,
            stored={"scale": scale},
        )
