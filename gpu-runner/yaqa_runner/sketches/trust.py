"""How far a linear's factors are to be trusted: dampings chosen on tokens that are not in them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from yaqa_runner.sketches.noise import damped_cholesky, gradient_shares, whitened

INPUT_DAMPINGS = (0.01, 0.03, 0.1, 0.3, 1.0)
OUTPUT_DAMPINGS = (0.1, 0.3, 1.0, 3.0, 10.0)
"""At 10 the output factor says little more than which rows matter more."""
ONE_SIDED_DAMPING = 0.1
LEAST_INPUT_DAMPING = 0.1
"""What rounding damps ``H_I`` by at least, whatever held-out tokens chose. They come with the original's inputs; a
quantized linear gets what the quantized layers before it make, and what those add lies in all directions."""
HELD_OUT_TOKENS = 2048
"""Tokens that decide a linear's dampings, evenly from those held out."""
HELD_OUT_SHARE = 8
HELD_OUT_SEQUENCES = 16
FEWEST_HELD_OUT = 2
UNTRUSTED = (1.0, 10.0)
"""Dampings of input and output factor where nothing was held out to choose them by."""


@dataclass(frozen=True)
class Trust:
    """What held-out tokens say of a pair of factors.

    Attributes:
        sigma_input: Share of the mean diagonal to damp ``H_I`` by.
        sigma_output: The same of ``H_O``.
        predicted_loss: What rounding noise costs the held-out tokens under the damped pair, as a share of what it costs
            them under ``E[x xᵀ]`` alone (one-sided rounding): below 1 where the pair is better.
        standard_error: Of ``predicted_loss``, over sequences.
        tokens: Held-out tokens it rests on.
    """

    sigma_input: float
    sigma_output: float
    predicted_loss: float
    standard_error: float
    tokens: int


def held_out_sequences(sequences: int) -> int:
    """Of ``sequences``, how many (the last ones) are kept from the factors; 0 where there are too few to spare any."""
    count = min(HELD_OUT_SEQUENCES, sequences // HELD_OUT_SHARE)
    return count if count >= FEWEST_HELD_OUT else 0


def choose_trust(
    factor_input: torch.Tensor,
    factor_output: torch.Tensor,
    second_moment: torch.Tensor,
    x: torch.Tensor,
    g: torch.Tensor,
) -> Trust | None:
    """The dampings of least cost on held-out inputs ``x [S, T, in]`` and gradients ``g [S, T, out]``.

    The cost is the mean of ``|L_O⁻¹ g|² |L_I⁻¹ x|² / |g|`` (see ``sketch.noise``). ``None`` where a factor cannot be
    factored, or the tokens have no gradients.
    """
    sequences = x.shape[0]
    step = max(1, x.shape[0] * x.shape[1] // HELD_OUT_TOKENS)
    x, g = (part[:, ::step].float().reshape(-1, part.shape[-1]) for part in (x, g))
    shares = gradient_shares(g)
    if not bool((shares > 0).any()):
        return None
    plain = _whitened(second_moment, ONE_SIDED_DAMPING, x)
    inputs = [_whitened(factor_input, damping, x) for damping in INPUT_DAMPINGS]
    outputs = [_whitened(factor_output, damping, g) for damping in OUTPUT_DAMPINGS]
    if plain is None or any(costs is None for costs in (*inputs, *outputs)):
        return None
    one_sided = plain * g.square().sum(dim=1) * shares
    by_input = torch.stack([costs for costs in inputs if costs is not None]).double()
    by_output = torch.stack([costs * shares for costs in outputs if costs is not None]).double()
    losses = by_input @ by_output.T
    best = int(losses.argmin())
    row, column = divmod(best, len(OUTPUT_DAMPINGS))
    chosen = (by_input[row] * by_output[column]).reshape(sequences, -1).sum(dim=1)
    whole = one_sided.double().reshape(sequences, -1).sum(dim=1)
    ratio = float(chosen.sum() / whole.sum())
    if not ratio < float("inf"):
        return None
    spread = (chosen - ratio * whole).square().sum() * sequences / max(1, sequences - 1)
    error = float(spread.sqrt() / whole.sum())
    return Trust(INPUT_DAMPINGS[row], OUTPUT_DAMPINGS[column], ratio, error, len(x))


def _whitened(factor: torch.Tensor, damping: float, values: torch.Tensor) -> torch.Tensor | None:
    lower = damped_cholesky(factor, damping)
    return None if lower is None else whitened(lower, values)
