"""How good a sketch is: effective ranks, and the cosine similarity to the true Fisher."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import Protocol

import torch

from yaqa_runner.sketches.parallel import Ranks
from yaqa_runner.wire_model import WireModel

# Enough pairs (n (n − 1) / 2 = 120) for two digits of the cosine at a few per cent of the sketch's cost.
COSINE_SEQUENCES = 16
COSINE_BYTES = 512 * 1024 * 1024
_ROWS = 1024


def effective_rank(factor: torch.Tensor) -> float:
    """Participation ratio ``tr(H)² / ‖H‖²``: ``n`` for the identity, 1 for one direction, 0 for a zero matrix."""
    # By rows: a square of a wide linear is gigabytes in float64.
    norm = float(sum(rows.double().square().sum() for rows in torch.split(factor, _ROWS)))
    return 0.0 if norm == 0 else float(factor.diagonal().double().sum()) ** 2 / norm


def cosine_sequences(rows: int, columns: int) -> int:
    """How many sequences the estimate takes for a weight ``[rows, columns]``; 0 when it does not fit in memory."""
    affordable = COSINE_BYTES // (4 * rows * columns)
    count = min(COSINE_SEQUENCES, affordable)
    return count if count >= 4 else 0


def estimate_cosine(gradients: torch.Tensor, factor_input: torch.Tensor, factor_output: torch.Tensor) -> float | None:
    """Estimated cosine of the Fisher and ``H_O ⊗ H_I`` from per-sequence gradients ``[S, out, in]``.

    ``⟨H, H_O ⊗ H_I⟩`` is the mean of ``tr(Gᵀ H_O G H_I)``; ``‖H‖²`` the mean of ``⟨G_s, G_r⟩²`` over ``s ≠ r``, which
    is unbiased where the plain mean would count each sample's own square. ``None`` where that is not positive.
    ``gradients`` are spent.
    """
    count = len(gradients)
    if count < 2:
        return None
    flat = gradients.flatten(1)
    # Gradients can be tiny; scaled to unit mean square, their fourth powers stay inside float32.
    scale = float(torch.stack([row.square().sum() for row in flat]).mean().sqrt())
    if scale == 0 or not math.isfinite(scale):
        return None
    flat.div_(scale)
    products = (flat @ flat.T).double().square()
    square = float((products.sum() - products.diagonal().sum()) / (count * (count - 1)))
    norms = _norm(factor_input) * _norm(factor_output)
    if square <= 0 or norms == 0:
        return None
    inner = 0.0
    # One at a time: those of all sequences are the most that a sketch of small blocks would hold.
    for gradient in gradients:
        weighed = (factor_output @ gradient).mul_(gradient @ factor_input)
        inner += float(weighed.sum(dtype=torch.float64)) / count
    cosine = inner / (math.sqrt(square) * norms)
    return min(1.0, max(0.0, cosine)) if math.isfinite(cosine) else None


def _norm(factor: torch.Tensor) -> float:
    return math.sqrt(sum(float(rows.double().square().sum()) for rows in torch.split(factor, _ROWS)))


HEAVIEST = 100
"""Tokens whose shares of a factor are kept while it is summed."""


class Concentration(WireModel):
    """On how few tokens a factor rests.

    Attributes:
        top_one: Share of the factor's trace that the heaviest token holds.
        top_ten: The same of the ten heaviest.
        top_hundred: The same of the hundred heaviest.
        effective_tokens: ``(Σ c)² / Σ c²`` of the tokens' shares ``c``: as many equal ones would estimate it as well.
        tokens: Tokens that were summed.
    """

    top_one: float
    top_ten: float
    top_hundred: float
    effective_tokens: float
    tokens: int


class TokenShares:
    """Gathers what each token adds to a factor's trace, batch by batch."""

    def __init__(self) -> None:
        self.heaviest = torch.zeros(HEAVIEST, dtype=torch.float64)
        self.sums = torch.zeros(3, dtype=torch.float64)

    def add(self, contributions: torch.Tensor) -> None:
        """Add the ``contributions`` ``[tokens]`` of one batch."""
        exact = contributions.double()
        top = exact.topk(min(HEAVIEST, len(exact))).values.cpu()
        self.heaviest = torch.cat([self.heaviest, top]).topk(HEAVIEST).values
        self.sums += torch.stack([exact.sum(), exact.square().sum(), exact.new_tensor(float(len(exact)))]).cpu()

    def finish(self, ranks: Ranks) -> Concentration | None:
        """Over all processes' tokens; ``None`` where nothing was added."""
        places = torch.zeros(ranks.count, HEAVIEST, dtype=torch.float64)
        places[ranks.rank] = self.heaviest
        heaviest = ranks.add_up(places).flatten().topk(HEAVIEST).values
        total, squares, tokens = (float(value) for value in ranks.add_up(self.sums))
        if total <= 0 or squares <= 0:
            return None
        shares = (heaviest.cumsum(0) / total).clamp(max=1.0)
        return Concentration(
            top_one=float(shares[0]),
            top_ten=float(shares[9]),
            top_hundred=float(shares[99]),
            effective_tokens=total * total / squares,
            tokens=int(tokens),
        )


FEW_TOKENS = 8192
FEW_EFFECTIVE_TOKENS = 256.0


class Evidenced(Protocol):
    """What a sketch's entry says of one linear."""

    @property
    def concentration_input(self) -> Concentration | None: ...

    @property
    def concentration_output(self) -> Concentration | None: ...


def median_effective_tokens(layers: Sequence[Evidenced]) -> float | None:
    """Of the median linear, the effective tokens of the factor with fewer; ``None`` where none were counted."""
    counted = [
        min(part.effective_tokens for part in parts)
        for layer in layers
        if (parts := [part for part in (layer.concentration_input, layer.concentration_output) if part is not None])
    ]
    return median(counted) if counted else None


def few_tokens_warning(layers: Sequence[Evidenced], tokens: int) -> str | None:
    """Why the sketch is to be trusted less, for people; ``None`` where it rests on enough."""
    effective = median_effective_tokens(layers)
    if tokens < FEW_TOKENS:
        return f"it was taken on {tokens:,} calibration tokens; {FEW_TOKENS:,} or more are advised"
    if effective is not None and effective < FEW_EFFECTIVE_TOKENS:
        return (
            f"of its {tokens:,} calibration tokens, few dominate: in the median linear, {effective:,.0f} equal ones"
            " would say as much; more varied text is advised"
        )
    return None
