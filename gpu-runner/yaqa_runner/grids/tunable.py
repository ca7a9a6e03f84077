"""A grid as a function of the continuous values that its container stores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from yaqa_runner.grids.affine_search import ScalePrecision, round_scale
from yaqa_runner.grids.grid import FixedGrid

# Scales whose numbers tell less of their precision than their name.
_FAMILIES: dict[str, ScalePrecision] = {"e4m3": "e4m3", "e4m3_scaled": "e4m3_scaled"}


class _Decode(torch.autograd.Function):
    """``scale * level + offset`` in the model's type. Keeps the codes for the way back, and no float copy of them."""

    @staticmethod
    def forward(
        ctx: Any, scale: torch.Tensor, offset: torch.Tensor, codes: torch.Tensor, grid: FixedGrid, dtype: torch.dtype
    ) -> torch.Tensor:
        ctx.save_for_backward(codes)
        ctx.grid = grid
        rows, columns = codes.shape
        blocks = _in_groups(_factors(codes, grid), grid.group)
        return (blocks * scale[..., None]).add_(offset[..., None]).reshape(rows, -1)[:, :columns].to(dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None, None, None]:
        (codes,) = ctx.saved_tensors
        return *gathered_groups(gradients[0], codes, ctx.grid), None, None, None


def _factors(codes: torch.Tensor, grid: FixedGrid) -> torch.Tensor:
    """What multiplies the scale: the codes as they are, or their levels of a table."""
    return codes if grid.table is None else grid.levels(codes)


def _in_groups(matrix: torch.Tensor, group: int) -> torch.Tensor:
    """``[out, in]`` as ``[out, groups, group]``, a shorter last group filled with zeros."""
    rows, columns = matrix.shape
    missing = -columns % group
    if missing:
        matrix = nn.functional.pad(matrix, (0, missing))
    return matrix.reshape(rows, -1, group)


class TunableGrid(nn.Module):
    """A grid whose stored scales are ``start * (1 + change)``, rounded as the container does, gradients let through."""

    def __init__(self, grid: FixedGrid, device: torch.device) -> None:
        super().__init__()
        self.grid = grid
        self.device = device
        self.starts: dict[str, torch.Tensor] = {}
        self.changes = nn.ParameterDict()
        self.precisions: dict[str, ScalePrecision] = {}
        for key in _continuous_keys(grid):
            start = grid.stored[key].to(device, torch.float32)
            self.starts[key] = start
            self.precisions[key] = _FAMILIES.get(key) or precision_of(start)
            self.changes[key] = nn.Parameter(torch.zeros_like(start))

    def stored(self) -> dict[str, torch.Tensor]:
        """The continuous parameters as the container gives them back."""
        values = {}
        for key, start in self.starts.items():
            exact = start * (1 + self.changes[key])
            values[key] = exact + (round_scale(exact, self.precisions[key]) - exact).detach()
        return values

    def scale_and_offset(self, values: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """``[out, groups]`` each, linear in ``values``."""
        fixed = self.grid.stored
        if "sc" in fixed:
            subs = fixed["sc"].shape[1] // values["d"].shape[1]
            sub_scales = fixed["sc"].to(values["d"].device, torch.float32)
            scale = values["d"].repeat_interleave(subs, dim=1) * sub_scales
            if "dmin" not in values:
                return scale, torch.zeros_like(scale)
            sub_minima = fixed["mn"].to(scale.device, torch.float32)
            return scale, -(values["dmin"].repeat_interleave(subs, dim=1) * sub_minima)
        if "m" in values:
            return values["d"], values["m"]
        if "e8m0" in fixed:
            scale = fixed["e8m0"].to(self.device, torch.float32)
            return scale, torch.zeros_like(scale)
        scale = next(values[key] for key in ("scale", *_FAMILIES) if key in values)
        if "zero" in fixed:
            return scale, -scale * fixed["zero"].to(scale.device, torch.float32)
        return scale, torch.zeros_like(scale)

    def direction(self, codes: torch.Tensor, changes: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """How the exact weight ``[out, in]`` moves with ``changes``, in which it is linear."""
        moved = {key: start * changes[key] for key, start in self.starts.items()}
        scale, offset = self.scale_and_offset(moved)
        return decode_groups(scale, offset, codes, self.grid, torch.float32)

    def gathered(self, codes: torch.Tensor, gradient: torch.Tensor) -> dict[str, torch.Tensor]:
        """The transpose of :meth:`direction`: what ``gradient`` ``[out, in]`` says of every change."""
        with torch.enable_grad():
            probe = {key: torch.zeros_like(start, requires_grad=True) for key, start in self.starts.items()}
            reached = self.scale_and_offset({key: start * probe[key] for key, start in self.starts.items()})
        pairs = zip(reached, gathered_groups(gradient, codes, self.grid), strict=True)
        given = [(values, gradients) for values, gradients in pairs if values.requires_grad]
        found = torch.autograd.grad([pair[0] for pair in given], list(probe.values()), [pair[1] for pair in given])
        return dict(zip(probe, found, strict=True))

    def decode(self, codes: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Weight ``[out, in]``, differentiable in the changes."""
        scale, offset = self.scale_and_offset(self.stored())
        return decode_groups(scale, offset, codes, self.grid, dtype)

    @torch.no_grad()
    def finished(self, changes: Mapping[str, torch.Tensor] | None = None) -> FixedGrid:
        """The grid, where it was, with what the container will store under ``changes``; its own when ``None``."""
        # Rounded from the exact product, not from the sum that lets gradients through: that one may be an ulp off.
        chosen = self.changes if changes is None else changes
        exact = {key: start * (1 + chosen[key]) for key, start in self.starts.items()}
        rounded = {key: round_scale(value, self.precisions[key]) for key, value in exact.items()}
        scale, offset = self.scale_and_offset(rounded)
        device = self.grid.scale.device
        stored = dict(self.grid.stored) | {key: value.to(device) for key, value in rounded.items()}
        return replace(self.grid, scale=scale.to(device), offset=offset.to(device), stored=stored)


def decode_groups(
    scale: torch.Tensor, offset: torch.Tensor, codes: torch.Tensor, grid: FixedGrid, dtype: torch.dtype
) -> torch.Tensor:
    """``scale * level + offset`` ``[out, in]`` of ``scale`` and ``offset`` ``[out, groups]``, differentiable in both.

    ``grid`` tells the groups and the levels.
    """
    weight: torch.Tensor = _Decode.apply(scale, offset, codes, grid, dtype)  # type: ignore[no-untyped-call]
    return weight


def gathered_groups(gradient: torch.Tensor, codes: torch.Tensor, grid: FixedGrid) -> tuple[torch.Tensor, torch.Tensor]:
    """The transpose of :func:`decode_groups`: what ``gradient`` ``[out, in]`` says of scale and offset."""
    blocks = _in_groups(gradient.float(), grid.group)
    return (blocks * _in_groups(_factors(codes, grid), grid.group)).sum(-1), blocks.sum(-1)


def precision_of(values: torch.Tensor) -> ScalePrecision:
    """The narrowest precision that holds all ``values`` exactly."""
    for precision in ("shared", "float16"):
        if torch.equal(round_scale(values, precision), values.to(torch.float32)):
            return precision
    return "float32"


def is_tunable(grid: FixedGrid) -> bool:
    """Whether the grid stores anything that a small change can move: powers of two it cannot."""
    return bool(_continuous_keys(grid))


def _continuous_keys(grid: FixedGrid) -> list[str]:
    keys: list[str] = [key for key in ("d", "dmin", "m", "scale", *_FAMILIES) if key in grid.stored]
    if not keys and "e8m0" not in grid.stored:
        raise ValueError(f"the grid stores {sorted(grid.stored)}, none of which is a scale to tune")
    return keys
