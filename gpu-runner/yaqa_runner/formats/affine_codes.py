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
class AffineCodes:
    """``value = scale · (code − zero)`` with unsigned codes.

    Attributes:
        codes: ``[out, in]``, ``0 … 2^bits − 1``.
        scale: Float32 ``[out, groups]``.
        zero: ``[out, groups]``, ``0 … 2^bits − 1``; ``None`` where it is ``2^(bits−1)`` everywhere.
    """

    codes: npt.NDArray[np.uint8]
    scale: torch.Tensor
    zero: npt.NDArray[np.uint8] | None


def affine_codes(linear: QuantizedLinear, bits: int, group: int) -> AffineCodes:
    """``linear`` as an integer container of ``bits`` and ``group`` stores it.

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
    if grid.group != group and grid.scale.shape[1] > 1:
        if grid.group % group:
            raise ExportError(f"{linear.name}: groups of {grid.group} cannot be stored in groups of {group}.")
        scale = scale.repeat_interleave(grid.group // group, dim=1)[:, :groups]
        offset = offset.repeat_interleave(grid.group // group, dim=1)[:, :groups]
    elif grid.group != group:
        if groups > 1 and grid.group < columns:
            raise ExportError(f"{linear.name}: groups of {grid.group} cannot be stored in groups of {group}.")
        scale, offset = scale.expand(-1, groups).contiguous(), offset.expand(-1, groups).contiguous()
    if not bool(torch.isfinite(scale).all()):
        raise ExportError(f"{linear.name}: a scale is not finite.")
    signed = linear.codes.cpu().numpy().astype(np.int32)
    if not bool((offset != 0).any()) and signed.min() >= -middle and signed.max() < middle:
        return AffineCodes((signed + middle).astype(np.uint8), scale, None)
    zero = _zero_points(linear, scale, offset)
    lift = 0 if signed.min() >= 0 else middle
    codes, shifted = signed + lift, zero + lift
    if min(codes.min(), shifted.min()) < 0 or max(codes.max(), shifted.max()) > highest:
        raise ExportError(f"{linear.name}: a code or zero point does not fit {bits} bits.")
    return AffineCodes(codes.astype(np.uint8), scale, shifted.astype(np.uint8))


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
