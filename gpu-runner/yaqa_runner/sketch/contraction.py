"""The products that sketches are sums of, in the cheapest order for the shape.

Inputs ``x`` are ``[tokens, in]`` (A) or ``[sequences, tokens, in]`` (B), output gradients ``g`` likewise with ``out``.
All results are float32 sums, not means.
"""

from __future__ import annotations

from typing import Literal

import torch

# Rows of a temporary [rows, n] in the token-wise products: bounds memory, wide enough for full BLAS speed.
CHUNK_TOKENS = 2048
# Symmetry is used in blocks: (1 + 192 / n) / 2 of the work is done. 192 was the fastest of 64 to 384, measured.
SYMMETRY_BLOCK = 192

Order = Literal["direct", "gram"]
Precision = Literal["float32", "bfloat16"]
"""Of the operands of large products; sums are float32 always."""


def multiply(left: torch.Tensor, right: torch.Tensor, precision: Precision = "float32") -> torch.Tensor:
    """``left @ right`` in float32; with ``bfloat16``, of rounded operands with float32 accumulation.

    Tensor cores do that on a GPU; elsewhere rounding comes first and the product is float32, with the same result.
    """
    if precision == "float32":
        return left @ right
    left, right = left.to(torch.bfloat16), right.to(torch.bfloat16)
    if left.device.type != "cuda":
        return left.float() @ right.float()
    if left.ndim == 2 and right.ndim == 2:
        return torch.mm(left, right, out_dtype=torch.float32)
    batch = max(left.shape[0] if left.ndim == 3 else 1, right.shape[0] if right.ndim == 3 else 1)
    return torch.bmm(
        left.expand(batch, *left.shape[-2:]), right.expand(batch, *right.shape[-2:]), out_dtype=torch.float32
    )


def input_moment(x: torch.Tensor, precision: Precision = "float32") -> torch.Tensor:
    """``Σ_t x xᵀ`` ``[in, in]``."""
    return weighted_moment(x, torch.ones(len(x), dtype=torch.float32, device=x.device), precision)


def quadratic_forms(x: torch.Tensor, factor: torch.Tensor, precision: Precision = "float32") -> torch.Tensor:
    """``x_tᵀ factor x_t`` of every token, ``[tokens]``, for a symmetric ``factor`` ``[n, n]``.

    Only the blocks on and above the diagonal are multiplied, those above counting twice.
    """
    size = x.shape[1]
    starts = range(0, size, SYMMETRY_BLOCK)
    doubled = [factor[start : start + SYMMETRY_BLOCK, start:].clone() for start in starts]
    for block in doubled:
        block[:, SYMMETRY_BLOCK:] *= 2
    forms = []
    for part in torch.split(x, CHUNK_TOKENS):
        form = torch.zeros(len(part), dtype=torch.float32, device=x.device)
        for start, block in zip(starts, doubled, strict=True):
            weighed = multiply(part[:, start : start + SYMMETRY_BLOCK], block, precision)
            form += weighed.mul_(part[:, start:]).sum(dim=1)
        forms.append(form)
    return torch.cat(forms)


def weighted_moment(values: torch.Tensor, weights: torch.Tensor, precision: Precision = "float32") -> torch.Tensor:
    """``Σ_t weights_t values_t values_tᵀ`` ``[n, n]``; the blocks below the diagonal are mirrored, not multiplied."""
    size = values.shape[1]
    total = torch.zeros(size, size, dtype=torch.float32, device=values.device)
    for part, share in zip(torch.split(values, CHUNK_TOKENS), torch.split(weights, CHUNK_TOKENS), strict=True):
        weighed = part * share[:, None]
        for start in range(0, size, SYMMETRY_BLOCK):
            left, right = weighed[:, start : start + SYMMETRY_BLOCK].T, part[:, start:]
            if precision == "float32":
                total[start : start + SYMMETRY_BLOCK, start:].addmm_(left, right)
            else:
                total[start : start + SYMMETRY_BLOCK, start:] += multiply(left, right, precision)
    upper = total.triu()
    return upper + upper.triu(1).T


def cheapest_order(tokens: int, rows: int, columns: int) -> Order:
    """The cheaper way to ``GᵀG`` and ``GGᵀ`` of one sequence's ``G [rows, columns]``, by FLOP."""
    direct = 2 * tokens * rows * columns + 2 * rows * columns * (rows + columns)
    gram = 4 * tokens**2 * (rows + columns) + 2 * tokens * (rows**2 + columns**2)
    return "direct" if direct <= gram else "gram"


def sequence_moments(
    x: torch.Tensor, g: torch.Tensor, order: Order | None = None, precision: Precision = "float32"
) -> tuple[torch.Tensor, torch.Tensor]:
    """``Σ_s GᵀG`` ``[in, in]`` and ``Σ_s GGᵀ`` ``[out, out]`` with ``G = gᵀ x`` of each sequence."""
    _, tokens, columns = x.shape
    rows = g.shape[2]
    if (order or cheapest_order(tokens, rows, columns)) == "direct":
        gradients = multiply(g.transpose(1, 2), x, precision)
        by_column = gradients.reshape(-1, columns)
        by_row = gradients.transpose(1, 2).reshape(-1, rows)
        return multiply(by_column.T, by_column, precision), multiply(by_row.T, by_row, precision)
    gram_x = multiply(x, x.transpose(1, 2), precision)
    gram_g = multiply(g, g.transpose(1, 2), precision)
    return (
        multiply(x.reshape(-1, columns).T, multiply(gram_g, x, precision).reshape(-1, columns), precision),
        multiply(g.reshape(-1, rows).T, multiply(gram_x, g, precision).reshape(-1, rows), precision),
    )


def sequence_moments_through(
    x: torch.Tensor,
    g: torch.Tensor,
    factor_input: torch.Tensor,
    factor_output: torch.Tensor,
    precision: Precision = "float32",
) -> tuple[torch.Tensor, torch.Tensor]:
    """``Σ_s Gᵀ H_O G`` and ``Σ_s G H_I Gᵀ`` with ``G = gᵀ x`` of each sequence."""
    columns, rows = x.shape[2], g.shape[2]
    gradients = multiply(g.transpose(1, 2), x, precision)
    left = multiply(factor_output, gradients, precision).reshape(-1, columns)
    right = multiply(gradients, factor_input, precision)
    return (
        multiply(gradients.reshape(-1, columns).T, left, precision),
        multiply(right.transpose(1, 2).reshape(-1, rows).T, gradients.transpose(1, 2).reshape(-1, rows), precision),
    )
