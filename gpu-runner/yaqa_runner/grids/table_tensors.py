"""The scale search's inner loop on tables in whole tensors: what CUDA runs, and the reference of the compiled one."""

from __future__ import annotations

import torch


def tensor_table_errors(
    weight: torch.Tensor, importance: torch.Tensor, group: int, scales: torch.Tensor, table: torch.Tensor
) -> torch.Tensor:
    """``table_kernel.table_errors``: weighted squared error of every candidate, ``[out, groups, candidates]``."""
    rows, columns = weight.shape
    missing = -columns % group
    values = torch.nn.functional.pad(weight, (0, missing)).view(rows, -1, group)
    weights = torch.nn.functional.pad(importance, (0, missing)).view(-1, group)
    middles = (table[1:] + table[:-1]) / 2
    errors = torch.empty_like(scales)
    for candidate in range(scales.shape[2]):
        scale = scales[..., candidate, None]
        inverse = torch.where(scale == 0, torch.zeros_like(scale), scale.reciprocal())
        nearest = table[torch.bucketize(values * inverse, middles)]
        errors[..., candidate] = (values - scale * nearest).square_().mul_(weights).sum(-1)
    return errors
