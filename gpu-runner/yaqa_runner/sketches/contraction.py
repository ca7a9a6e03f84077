"""The products that sketches are sums of, in the cheapest order for the shape.

Inputs ``x`` are ``[tokens, in]`` (A) or ``[sequences, tokens, in]`` (B), output gradients ``g`` likewise with ``out``.
All results are float32 sums, not means. Sums that are symmetric matrices are gathered on and above the diagonal of a
total that the caller keeps, and mirrored once at the end.
"""

from __future__ import annotations

from typing import Literal

import torch

from yaqa_runner.machine.precision import Precision, cpu_multiplies_bfloat16

# Rows of a temporary [rows, n] in the token-wise products: bounds memory, wide enough for full speed.
CHUNK_TOKENS = {"cpu": 2048, "cuda": 16_384}
# Symmetry is used in blocks: (1 + block / n) / 2 of the work is done. On the CPU 192 was the fastest of 64 to 384,
# and in bfloat16 384 of 192 to 1536, measured; on CUDA narrower blocks leave multiprocessors idle and save nothing.
SYMMETRY_BLOCK = {"cpu": 192, "cuda": 2048}
_BFLOAT16_BLOCK = {"cpu": 384, "cuda": 2048}
_MIRROR_BLOCK = 1024

Order = Literal["direct", "gram"]


def multiply(left: torch.Tensor, right: torch.Tensor, precision: Precision = "float32") -> torch.Tensor:
    """``left @ right`` in float32; with ``bfloat16``, of rounded operands with float32 accumulation.

    Tensor cores do that on a GPU; elsewhere rounding comes first and the product is float32, with the same result,
    except that a CPU with bfloat16 instructions (four times as fast) rounds the product once more.
    """
    if precision == "float32":
        return left @ right
    left, right = left.to(torch.bfloat16), right.to(torch.bfloat16)
    if left.device.type != "cuda":
        return (left @ right).float() if cpu_multiplies_bfloat16() else left.float() @ right.float()
    if left.ndim == 2 and right.ndim == 2:
        return torch.mm(left, right, out_dtype=torch.float32)
    batch = max(left.shape[0] if left.ndim == 3 else 1, right.shape[0] if right.ndim == 3 else 1)
    return torch.bmm(
        left.expand(batch, *left.shape[-2:]), right.expand(batch, *right.shape[-2:]), out_dtype=torch.float32
    )


def rounded(values: torch.Tensor, precision: Precision) -> torch.Tensor:
    """``values`` as large products take them: float32, or bfloat16 once and for all products of them."""
    return values.to(torch.float32 if precision == "float32" else torch.bfloat16)


def add_symmetric_product(total: torch.Tensor, left: torch.Tensor, right: torch.Tensor, precision: Precision) -> None:
    """Add ``leftᵀ right``, known to be symmetric, to the blocks of ``total`` ``[n, n]`` on and above its diagonal.

    What lies below is left alone until :func:`mirror`.
    """
    left, right = rounded(left, precision), rounded(right, precision)
    block = (SYMMETRY_BLOCK if precision == "float32" else _BFLOAT16_BLOCK)[total.device.type]
    for start in range(0, total.shape[0], block):
        rows, columns = left[:, start : start + block].T, right[:, start:]
        if precision == "float32":
            total[start : start + block, start:].addmm_(rows, columns)
        else:
            total[start : start + block, start:] += multiply(rows, columns, precision)


def add_weighted_moment(
    total: torch.Tensor, values: torch.Tensor, weights: torch.Tensor | None, precision: Precision = "float32"
) -> None:
    """Add ``Σ_t weights_t values_t values_tᵀ`` to ``total`` ``[n, n]`` on and above its diagonal; ``None`` for ones."""
    chunk = CHUNK_TOKENS[values.device.type]
    for start in range(0, len(values), chunk):
        part = values[start : start + chunk]
        weighed = part if weights is None else part * weights[start : start + chunk, None]
        add_symmetric_product(total, weighed, part, precision)


def mirror(total: torch.Tensor) -> torch.Tensor:
    """Give ``total`` ``[n, n]``, gathered on and above its diagonal, its lower half, in place."""
    size = total.shape[0]
    for start in range(0, size, _MIRROR_BLOCK):
        stop = min(start + _MIRROR_BLOCK, size)
        diagonal = total[start:stop, start:stop]
        diagonal.copy_(diagonal.triu() + diagonal.triu(1).T)
        total[stop:, start:stop] = total[start:stop, stop:].T
    return total


def quadratic_forms(x: torch.Tensor, factor: torch.Tensor, precision: Precision = "float32") -> torch.Tensor:
    """``x_tᵀ factor x_t`` of every token, ``[tokens]``, for a symmetric ``factor`` ``[n, n]``.

    Only the blocks on and above the diagonal are multiplied, those above counting twice.
    """
    size = x.shape[1]
    block = (SYMMETRY_BLOCK if precision == "float32" else _BFLOAT16_BLOCK)[x.device.type]
    starts = range(0, size, block)
    doubled = [factor[start : start + block, start:].clone() for start in starts]
    for part in doubled:
        part[:, block:] *= 2
    doubled = [rounded(part, precision) for part in doubled]
    forms = torch.zeros(len(x), dtype=torch.float32, device=x.device)
    chunk = CHUNK_TOKENS[x.device.type]
    for first in range(0, len(x), chunk):
        tokens = rounded(x[first : first + chunk], precision)
        for start, part in zip(starts, doubled, strict=True):
            left, right = tokens[:, start : start + block], tokens[:, start:]
            # On CUDA memory traffic is what this takes, and the rounding of each term to bfloat16 averages out.
            narrow = precision == "bfloat16" and x.is_cuda
            weighed = torch.mm(left, part) if narrow else multiply(left, part, precision)
            forms[first : first + chunk] += weighed.mul_(right).sum(dim=1, dtype=torch.float32)
    return forms


def cheapest_order(tokens: int, rows: int, columns: int) -> Order:
    """The cheaper way to ``GᵀG`` and ``GGᵀ`` of one sequence's ``G [rows, columns]``, by FLOP."""
    direct = 2 * tokens * rows * columns + 2 * rows * columns * (rows + columns)
    gram = 4 * tokens**2 * (rows + columns) + 2 * tokens * (rows**2 + columns**2)
    return "direct" if direct <= gram else "gram"


def add_sequence_moments(
    total_input: torch.Tensor,
    total_output: torch.Tensor,
    x: torch.Tensor,
    g: torch.Tensor,
    order: Order | None = None,
    precision: Precision = "float32",
) -> None:
    """Add ``Σ_s GᵀG`` ``[in, in]`` and ``Σ_s GGᵀ`` ``[out, out]``, ``G = gᵀ x`` of a sequence, above the diagonals."""
    _, tokens, columns = x.shape
    rows = g.shape[2]
    x, g = rounded(x, precision), rounded(g, precision)
    if (order or cheapest_order(tokens, rows, columns)) == "direct":
        gradients = rounded(multiply(g.transpose(1, 2), x, precision), precision)
        by_column = gradients.reshape(-1, columns)
        by_row = gradients.transpose(1, 2).reshape(-1, rows)
        add_symmetric_product(total_input, by_column, by_column, precision)
        add_symmetric_product(total_output, by_row, by_row, precision)
        return
    gram_x = rounded(multiply(x, x.transpose(1, 2), precision), precision)
    gram_g = rounded(multiply(g, g.transpose(1, 2), precision), precision)
    through_g = multiply(gram_g, x, precision).reshape(-1, columns)
    add_symmetric_product(total_input, x.reshape(-1, columns), through_g, precision)
    through_x = multiply(gram_x, g, precision).reshape(-1, rows)
    add_symmetric_product(total_output, g.reshape(-1, rows), through_x, precision)


def add_sequence_moments_through(
    total_input: torch.Tensor,
    total_output: torch.Tensor,
    x: torch.Tensor,
    g: torch.Tensor,
    factor_input: torch.Tensor,
    factor_output: torch.Tensor,
    precision: Precision = "float32",
) -> None:
    """Add ``Σ_s Gᵀ H_O G`` and ``Σ_s G H_I Gᵀ``, ``G = gᵀ x`` of a sequence, above the diagonals."""
    columns, rows = x.shape[2], g.shape[2]
    x, g = rounded(x, precision), rounded(g, precision)
    gradients = rounded(multiply(g.transpose(1, 2), x, precision), precision)
    left = multiply(factor_output, gradients, precision).reshape(-1, columns)
    add_symmetric_product(total_input, gradients.reshape(-1, columns), left, precision)
    right = multiply(gradients, factor_input, precision)
    by_row = gradients.transpose(1, 2).reshape(-1, rows)
    add_symmetric_product(total_output, right.transpose(1, 2).reshape(-1, rows), by_row, precision)
