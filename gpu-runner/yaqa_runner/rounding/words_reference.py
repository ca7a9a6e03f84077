"""Two-sided rounding onto codebooks and its refinement, every word tried: slow, literal, the fast versions' check."""

from __future__ import annotations

from functools import cache
from itertools import product

import torch

from yaqa_runner.grids.codebooks import Codebook
from yaqa_runner.grids.grid import FixedGrid
from yaqa_runner.rounding.kernels.numba_tiles import REFINE_MARGIN
from yaqa_runner.rounding.linalg.factor import SymmetricUpper, UnitLower, whole_symmetric, whole_unit_lower

# Tried at once with every earlier word.
_LATER_WORDS = 16


def reference_round_words(
    weight: torch.Tensor,
    grid: FixedGrid,
    factor_input: UnitLower,
    pivots_input: torch.Tensor,
    factor_output: UnitLower | None,
) -> torch.Tensor:
    """Round ``weight`` onto a codebook, from the last row and word to the first; codes int16 ``[out, in]``.

    With ``H = L D Lᵀ`` the proxy error is ``Σ d_i d_j (L_Oᵀ E L_I)_ij²`` (arXiv 2505.22988, section 4). A word settles
    the terms of its row and columns once what comes after it is rounded; the one is taken for which they add up to the
    least. In float64.

    Args:
        weight: ``[out, in]``.
        grid: Frozen grid, of a codebook.
        factor_input: ``L_I`` ``[in, in]``.
        pivots_input: ``D_I`` ``[in]``.
        factor_output: ``L_O`` ``[out, out]``; ``None`` for the identity (one-sided).
    """
    book = _codebook_of(grid)
    rows, columns = weight.shape
    exact, scale = weight.to(torch.float64), grid.expand(columns)[0].to(torch.float64)
    pivots = pivots_input.to(torch.float64)
    lower_input = whole_unit_lower(UnitLower(factor_input.to(torch.float64)))
    lower_output = (
        torch.eye(rows, dtype=torch.float64)
        if factor_output is None
        else whole_unit_lower(UnitLower(factor_output.to(torch.float64)))
    )
    error = torch.zeros_like(exact)
    codes = torch.zeros(rows, columns, dtype=torch.int16)
    for first in range(columns - book.width, -1, -book.width):
        own = slice(first, first + book.width)
        for row in range(rows - 1, -1, -1):
            fed_back = lower_output[row:, row] @ error[row:, first:] @ lower_input[first:, own]
            codes[row, own], _ = _best_word(
                book, exact[row, own], fed_back, lower_input[own, own], pivots[own], scale[row, first]
            )
            error[row, own] = exact[row, own] - scale[row, first] * _levels(grid, codes[row, own])
    return codes


def reference_refine_words(
    weight: torch.Tensor,
    grid: FixedGrid,
    codes: torch.Tensor,
    hessian_input: SymmetricUpper,
    hessian_output: SymmetricUpper | None,
    sweeps: int,
) -> torch.Tensor:
    """Coordinate descent on ``tr(H_O E H_I Eᵀ)`` over the words ``[out, in]``, one at a time, in float64.

    The order is the fast version's: words from last to first, rows from last to first in each.
    """
    book = _codebook_of(grid)
    rows, columns = weight.shape
    exact, scale = weight.to(torch.float64), grid.expand(columns)[0].to(torch.float64)
    metric_input = whole_symmetric(SymmetricUpper(hessian_input.to(torch.float64)))
    metric_output = (
        torch.eye(rows, dtype=torch.float64)
        if hessian_output is None
        else whole_symmetric(SymmetricUpper(hessian_output.to(torch.float64)))
    )
    codes = codes.clone()
    error = exact - scale * _levels(grid, codes)
    for _ in range(sweeps):
        for first in range(columns - book.width, -1, -book.width):
            own = slice(first, first + book.width)
            root = torch.linalg.cholesky(metric_input[own, own])
            lower, pivots = root / root.diagonal(), root.diagonal().square()
            for row in range(rows - 1, -1, -1):
                gradient = metric_output[row] @ error @ metric_input[:, own]
                wish = torch.linalg.solve(metric_input[own, own], gradient) / metric_output[row, row]
                wanted = exact[row, own] - error[row, own] + wish
                nothing = torch.zeros_like(wanted)
                word, cost = _best_word(book, wanted, nothing, lower, pivots, scale[row, first])
                now = ((wish @ lower).square() * pivots).sum()
                margin = REFINE_MARGIN * grid.least_gap * scale[row, first] * pivots.max().sqrt()
                if cost.sqrt() < now.sqrt() - margin:
                    codes[row, own] = word
                    error[row, own] = exact[row, own] - scale[row, first] * _levels(grid, word)
    return codes


def _best_word(
    book: Codebook,
    exact: torch.Tensor,
    fed_back: torch.Tensor,
    lower: torch.Tensor,
    pivots: torch.Tensor,
    scale: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes int16 ``[width]`` of least ``Σ_j pivots_j r_j²``, ``r = fed_back + (exact − value) lower``; and the sum."""
    signed = _signed_words(book)
    levels = torch.from_numpy(book.table).to(torch.float64)[signed]
    even = _even(book, signed)
    last = slice(book.width - book.word, book.width)
    error = exact[last] - scale * levels
    costs = ((fed_back[last] + error @ lower[last, last]).square() * pivots[last]).sum(-1)
    if book.word == book.width:
        if book.even_signs:
            costs[~even] = torch.inf
        return signed[costs.argmin()].to(torch.int16), costs.min()
    # Two words, whose signs are even together: the later one in the order of what it costs by itself.
    start = slice(0, book.word)
    best, found = torch.tensor(torch.inf, dtype=torch.float64), signed[:1].repeat(1, 2)[0]
    for late in torch.split(costs.argsort(), _LATER_WORDS):
        if costs[late[0]] >= best:
            break
        fed = fed_back[start] + error[late] @ lower[last, start]
        early = (exact[start] - scale * levels) @ lower[start, start]
        both = costs[late, None] + ((fed[:, None] + early).square() * pivots[start]).sum(-1)
        both[even[late, None] != even] = torch.inf
        if both.min() < best:
            best = both.min()
            place = int(both.argmin())
            found = torch.cat([signed[place % len(signed)], signed[late[place // len(signed)]]])
    return found.to(torch.int16), best


@cache
def _signed_words(book: Codebook) -> torch.Tensor:
    """Codes of every word with every choice of signs, int64 ``[words · 2^columns, columns of a word]``."""
    words = torch.from_numpy(book.words)
    half = len(book.magnitudes)
    signs = torch.tensor(list(product((False, True), repeat=book.word)))
    both = torch.where(signs[:, None], half - 1 - words, half + words)
    return both.reshape(-1, book.word)


def _even(book: Codebook, codes: torch.Tensor) -> torch.Tensor:
    """Whether the signs of ``codes`` ``[…, columns]`` are even in number."""
    return (codes < len(book.magnitudes)).sum(-1) % 2 == 0


def _levels(grid: FixedGrid, codes: torch.Tensor) -> torch.Tensor:
    return grid.levels(codes).to(torch.float64)


def _codebook_of(grid: FixedGrid) -> Codebook:
    if grid.codebook is None:
        raise ValueError("the grid is no codebook's")
    return grid.codebook
