"""Searching scales and zero points under the diagonal of the proxy metric."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch

from yaqa_runner.grids.affine_kernel import affine_errors, least_squares_scales
from yaqa_runner.grids.affine_tensors import tensor_affine_errors, tensor_least_squares_scales

ScalePrecision: TypeAlias = Literal["shared", "float16", "float32", "e4m3", "e4m3_scaled", "e8m0"]
"""``shared``: exact in float16 and in bfloat16 alike (at most 8 significant bits). ``e4m3_scaled``: E4M3 under a power
of two that is chosen when the file is written, so of 4 significant bits. ``e8m0``: powers of two."""

_LARGEST_SHARED = 65280.0
_LARGEST_E4M3 = 448.0
_LEAST_SQUARES_STEPS = 2


def round_scale(scale: torch.Tensor, precision: ScalePrecision) -> torch.Tensor:
    """``scale`` as the container gives it back, float32, any shape.

    Rounding to bfloat16 first and to float16 second is exact in both: below float16's normal range the second step
    leaves multiples of 2⁻²⁴ with at most 8 significant bits.
    """
    match precision:
        case "shared":
            bounded = scale.clamp(-_LARGEST_SHARED, _LARGEST_SHARED)
            return bounded.to(torch.bfloat16).to(torch.float16).to(torch.float32)
        case "float16":
            largest = torch.finfo(torch.float16).max
            return scale.clamp(-largest, largest).to(torch.float16).to(torch.float32)
        case "float32":
            return scale.to(torch.float32)
        case "e4m3":
            return scale.clamp(0.0, _LARGEST_E4M3).to(torch.float8_e4m3fn).to(torch.float32)
        case "e4m3_scaled":
            return _with_significant_bits(scale, 4)
        case "e8m0":
            return _with_significant_bits(scale, 1)


def _with_significant_bits(values: torch.Tensor, bits: int) -> torch.Tensor:
    mantissa, exponent = torch.frexp(values.to(torch.float32))
    return torch.ldexp((mantissa * 2.0**bits).round_(), exponent - bits)


def clip_ratios(bits: int) -> torch.Tensor:
    """Shares of the unclipped scale to try, float32, the unclipped one first. Fewer bits clip harder."""
    lowest, count = {2: (0.30, 36), 3: (0.45, 32), 4: (0.55, 28)}.get(bits, (0.75, 16))
    return torch.linspace(1.0, lowest, count, dtype=torch.float32)


def validated(weight: torch.Tensor, importance: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """``weight`` ``[out, in]`` and ``importance`` ``[in]`` as contiguous float32 on the weight's device.

    An importance that is missing, zero, negative or not finite counts as a small positive one, so that no column is
    without a say in its scale.

    Raises:
        ValueError: ``weight`` is empty, not a matrix, or not finite; or the shapes do not fit.
    """
    if weight.ndim != 2 or weight.numel() == 0:
        raise ValueError(f"a weight is a matrix with at least one element, not one of shape {list(weight.shape)}")
    weight = weight.detach().to(torch.float32).contiguous()
    if not bool(torch.isfinite(weight).all()):
        raise ValueError("the weight holds values that are not finite")
    columns = weight.shape[1]
    if importance is None:
        return weight, torch.ones(columns, device=weight.device)
    importance = importance.detach().to(weight.device, torch.float32).flatten()
    if importance.shape[0] != columns:
        raise ValueError(f"the importance has {importance.shape[0]} entries for {columns} input columns")
    importance = torch.nan_to_num(importance, nan=0.0, posinf=0.0, neginf=0.0).clamp(min=0)
    mean = float(importance.mean())
    if mean <= 0:
        return weight, torch.ones(columns, device=weight.device)
    return weight, (importance / mean).clamp(min=1e-4).contiguous()


def group_extremes(weight: torch.Tensor, group: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Smallest and largest value of every group, each ``[out, groups]``; a shorter last group counts zeros too."""
    rows, columns = weight.shape
    groups = -(-columns // group)
    padded = torch.nn.functional.pad(weight, (0, groups * group - columns)).view(rows, groups, group)
    return padded.amin(dim=2), padded.amax(dim=2)


def best_scales(
    weight: torch.Tensor,
    importance: torch.Tensor,
    group: int,
    scales: torch.Tensor,
    zeros: torch.Tensor,
    minimum: int,
    maximum: int,
    precision: ScalePrecision,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The candidate of least ``Σ importance_j (w_ij − ŵ_ij)²`` in every group, then least-squares steps on its scale.

    Args:
        weight: ``[out, in]`` float32.
        importance: ``[in]`` float32, positive.
        group: Columns a group.
        scales: Candidate scales ``[out, groups, candidates]``; rounded to ``precision`` here.
        zeros: Candidate zero points, same shape, whole numbers; ``value = scale (code − zero)``.
        minimum: Smallest code.
        maximum: Largest code.
        precision: What the container keeps a scale in.

    Returns:
        Scale and zero point ``[out, groups]`` float32. Never worse than the first candidate.
    """
    scales = round_scale(scales, precision).contiguous()
    zeros = zeros.contiguous()
    errors = _errors(weight, importance, group, scales, zeros, minimum, maximum)
    best = errors.argmin(dim=2, keepdim=True)
    error = errors.gather(2, best).squeeze(2)
    scale = scales.gather(2, best).squeeze(2).contiguous()
    zero = zeros.gather(2, best).squeeze(2).contiguous()
    for _ in range(_LEAST_SQUARES_STEPS):
        trial = round_scale(_fitted(weight, importance, group, scale, zero, minimum, maximum), precision)
        candidate = trial[..., None].contiguous()
        trial_error = _errors(weight, importance, group, candidate, zero[..., None], minimum, maximum).squeeze(2)
        better = (trial_error < error) & (trial > 0)
        if not bool(better.any()):
            break
        scale = torch.where(better, trial, scale).contiguous()
        error = torch.where(better, trial_error, error)
    return scale, zero


def _errors(
    weight: torch.Tensor,
    importance: torch.Tensor,
    group: int,
    scales: torch.Tensor,
    zeros: torch.Tensor,
    minimum: int,
    maximum: int,
) -> torch.Tensor:
    if weight.is_cuda:
        return tensor_affine_errors(weight, importance, group, scales, zeros, minimum, maximum)
    arrays = weight.numpy(), importance.numpy(), group, scales.numpy(), zeros.contiguous().numpy(), minimum, maximum
    return torch.from_numpy(affine_errors(*arrays))


def _fitted(
    weight: torch.Tensor,
    importance: torch.Tensor,
    group: int,
    scale: torch.Tensor,
    zero: torch.Tensor,
    minimum: int,
    maximum: int,
) -> torch.Tensor:
    if weight.is_cuda:
        return tensor_least_squares_scales(weight, importance, group, scale, zero, minimum, maximum)
    arrays = weight.numpy(), importance.numpy(), group, scale.numpy(), zero.numpy(), minimum, maximum
    return torch.from_numpy(least_squares_scales(*arrays))
