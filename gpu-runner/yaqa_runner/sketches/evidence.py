"""How good a sketch is: effective ranks, and the cosine similarity to the true Fisher."""

from __future__ import annotations

import math

import torch

# Enough pairs (n (n − 1) / 2 = 120) for two digits of the cosine at a few per cent of the sketch's cost.
COSINE_SEQUENCES = 16
COSINE_BYTES = 512 * 1024 * 1024


def effective_rank(factor: torch.Tensor) -> float:
    """Participation ratio ``tr(H)² / ‖H‖²``: ``n`` for the identity, 1 for one direction, 0 for a zero matrix."""
    exact = factor.double()
    norm = float(exact.square().sum())
    return 0.0 if norm == 0 else float(exact.trace()) ** 2 / norm


def cosine_sequences(rows: int, columns: int, available: int) -> int:
    """How many sequences the estimate takes for a weight ``[rows, columns]``; 0 when it does not fit in memory."""
    affordable = COSINE_BYTES // (4 * rows * columns)
    count = min(COSINE_SEQUENCES, affordable, available)
    return count if count >= 4 else 0


def estimate_cosine(gradients: torch.Tensor, factor_input: torch.Tensor, factor_output: torch.Tensor) -> float | None:
    """Estimated cosine of the Fisher and ``H_O ⊗ H_I`` from per-sequence gradients ``[S, out, in]``.

    ``⟨H, H_O ⊗ H_I⟩`` is the mean of ``tr(Gᵀ H_O G H_I)``; ``‖H‖²`` the mean of ``⟨G_s, G_r⟩²`` over ``s ≠ r``, which
    is unbiased where the plain mean would count each sample's own square. ``None`` where that is not positive.
    """
    count = len(gradients)
    if count < 2:
        return None
    flat = gradients.flatten(1)
    # Gradients can be tiny; scaled to unit mean square, their fourth powers stay inside float32.
    scale = float(flat.square().sum(dim=1).mean().sqrt())
    if scale == 0 or not math.isfinite(scale):
        return None
    flat = flat / scale
    products = (flat @ flat.T).double().square()
    square = float((products.sum() - products.diagonal().sum()) / (count * (count - 1)))
    norms = float(factor_input.double().norm() * factor_output.double().norm())
    if square <= 0 or norms == 0:
        return None
    scaled = flat.reshape(gradients.shape)
    inner = float(((factor_output @ scaled) * (scaled @ factor_input)).double().sum()) / count
    cosine = inner / (math.sqrt(square) * norms)
    return min(1.0, max(0.0, cosine)) if math.isfinite(cosine) else None
