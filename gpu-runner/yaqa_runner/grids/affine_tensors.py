"""The inner loops of the scale search on whole tensors: what CUDA runs, and the reference of the compiled ones."""

from __future__ import annotations

import torch


def tensor_affine_errors(
    weight: torch.Tensor,
    importance: torch.Tensor,
    group: int,
    scales: torch.Tensor,
    zeros: torch.Tensor,
    minimum: int,
    maximum: int,
) -> torch.Tensor:
    """``affine_kernel.affine_errors``: weighted squared error of every candidate, ``[out, groups, candidates]``."""
    values, weights = _in_groups(weight, group), _in_groups(importance[None], group)
    errors = torch.empty_like(scales)
    for candidate in range(scales.shape[2]):
        scale, zero = scales[..., candidate, None], zeros[..., candidate, None]
        steps = _codes(values, scale, zero, minimum, maximum) - zero
        errors[..., candidate] = (values - scale * steps).square_().mul_(weights).sum(-1)
    return errors


def tensor_least_squares_scales(
    weight: torch.Tensor,
    importance: torch.Tensor,
    group: int,
    scale: torch.Tensor,
    zero: torch.Tensor,
    minimum: int,
    maximum: int,
) -> torch.Tensor:
    """``affine_kernel.least_squares_scales``: the best scale for the codes that ``scale`` gives, ``[out, groups]``."""
    values, weights = _in_groups(weight, group), _in_groups(importance[None], group)
    steps = _codes(values, scale[..., None], zero[..., None], minimum, maximum) - zero[..., None]
    weighed = weights * steps
    square = (weighed * steps).sum(-1)
    fitted = (weighed * values).sum(-1) / square.where(square > 0, torch.ones_like(square))
    return torch.where(square > 0, fitted, scale)


def _in_groups(matrix: torch.Tensor, group: int) -> torch.Tensor:
    """``[out, groups, group]``; what a shorter last group lacks is 0, of no importance too."""
    rows, columns = matrix.shape
    return torch.nn.functional.pad(matrix, (0, -columns % group)).view(rows, -1, group)


def _codes(values: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, minimum: int, maximum: int) -> torch.Tensor:
    inverse = torch.where(scale == 0, torch.zeros_like(scale), scale.reciprocal())
    return torch.addcmul(zero, values, inverse).round_().clamp_(minimum, maximum)
