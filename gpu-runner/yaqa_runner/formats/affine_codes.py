"""What integer containers need of a frozen grid: unsigned codes, scales, zero points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from yaqa_runner.formats.container import QuantizedLinear
from yaqa_runner.formats.source import ExportError


@dataclass(frozen=True)
class AffineScales:
    """``value = scale · (code − zero)``, without the codes.

    Attributes:
        scale: Float32 ``[out, groups]``.
        zero: ``[out, groups]``, ``0 … 2^bits − 1``; ``None`` where it is ``2^(bits−1)`` everywhere.
        lift: Added to the grid's codes to make them unsigned.
    """

    scale: torch.Tensor
    zero: npt.NDArray[np.uint8] | None
    lift: int


def affine_scales(linear: QuantizedLinear, bits: int, group: int) -> AffineScales:
    """Scales and zero points as an integer container of ``bits`` and ``group`` stores them.

    A grid with longer groups has its scales repeated; one with fewer bits fits into wider codes.

    Raises:
        ExportError: The grid's values are not ``scale · (integer − zero)`` in this width and group.
    """
    middle = 1 << (bits - 1)
    highest = (1 << bits) - 1
    grid = linear.grid
    columns = linear.codes.shape[1]
    groups = -(-columns // group)
    scale, offset = grid.scale.to(torch.float32).cpu(), grid.offset.to(torch.float32).cpu()
    if not bool(torch.isfinite(scale).all()):
        raise ExportError(f"{linear.name}: a scale is not finite.")
    if grid.group >= columns:
        scale, offset = scale.expand(-1, groups).contiguous(), offset.expand(-1, groups).contiguous()
    elif grid.group != group:
        if grid.group % group:
            raise ExportError(f"{linear.name}: groups of {grid.group} cannot be stored in groups of {group}.")
        scale = scale.repeat_interleave(grid.group // group, dim=1)[:, :groups]
        offset = offset.repeat_interleave(grid.group // group, dim=1)[:, :groups]
    lift = 0 if grid.minimum >= 0 else middle
    if grid.minimum + lift < 0 or grid.maximum + lift > highest:
        raise ExportError(f"{linear.name}: codes {grid.minimum} to {grid.maximum} do not fit {bits} bits.")
    if lift and not bool((offset != 0).any()):
        return AffineScales(scale, None, lift)
    zero = _zero_points(linear, scale, offset) + lift
    if zero.min() < 0 or zero.max() > highest:
        raise ExportError(f"{linear.name}: a zero point does not fit {bits} bits.")
    return AffineScales(scale, zero.astype(np.uint8), lift)


def unsigned_codes(linear: QuantizedLinear, bits: int) -> npt.NDArray[np.uint8]:
    """Codes ``[out, in]``, ``0 … 2^bits − 1``.

    Raises:
        ExportError: A code lies outside the grid, or the grid outside the width.
    """
    grid = linear.grid
    codes = linear.codes.cpu().numpy()
    if codes.min() < grid.minimum or codes.max() > grid.maximum:
        raise ExportError(f"{linear.name}: a code lies outside {grid.minimum}..{grid.maximum}.")
    lift = 0 if grid.minimum >= 0 else 1 << (bits - 1)
    if grid.minimum + lift < 0 or grid.maximum + lift >= 1 << bits:
        raise ExportError(f"{linear.name}: codes {grid.minimum} to {grid.maximum} do not fit {bits} bits.")
    return (codes + np.int16(lift)).astype(np.uint8)


def _zero_points(linear: QuantizedLinear, scale: torch.Tensor, offset: torch.Tensor) -> npt.NDArray[Any]:
    safe = torch.where(scale == 0, torch.ones_like(scale), scale)
    zero = torch.round(-offset / safe)
    if bool((-zero * scale != offset).any()):
        raise ExportError(f"{linear.name}: an offset is no integer multiple of its scale.")
    return zero.to(torch.int32).numpy()


def exact_cast(linear_name: str, scale: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """``scale`` in ``dtype``.

    Raises:
        ExportError: A value changes.
    """
    cast = scale.to(dtype)
    if not torch.equal(cast.to(torch.float32), scale):
        raise ExportError(f"{linear_name}: a scale is not exact in {str(dtype).removeprefix('torch.')}.")
    return cast
