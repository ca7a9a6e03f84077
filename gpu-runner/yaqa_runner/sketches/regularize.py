"""From a stored sketch to what rounding works with: regularised factors, one-sided where a factor says nothing."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch

from yaqa_runner.rounding.linalg.factor import PreparedFactor, prepare_rows
from yaqa_runner.sketches.store import LayerFactors
from yaqa_runner.sketches.triangle import Triangle
from yaqa_runner.sketches.trust import LEAST_INPUT_DAMPING, ONE_SIDED_DAMPING, UNTRUSTED

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class RegularizedLayer:
    """One linear's two factors, normalised to mean diagonal 1, with σI added.

    Attributes:
        input: ``H_I`` of the sketch.
        output: ``H_O``, or ``None`` where it holds no information: rounding is then one-sided.
        scale: What a proxy error under ``input`` and ``output`` is multiplied by to be nats a token (times one half).
        reason: Why rounding falls back, where it does.
    """

    input: PreparedFactor
    output: PreparedFactor | None
    scale: float
    reason: str | None


def regularize(
    factors: LayerFactors,
    sigma_input: float | None,
    sigma_output: float | None,
    device: torch.device = _CPU,
    caution: float = 1.0,
) -> RegularizedLayer:
    """Prepare a linear's factors (algorithm: mean diagonal 1, add σI, float64 Cholesky, double σ until it succeeds).

    An input factor that says nothing gives way to ``E[x xᵀ]``, an output factor to one-sided rounding.

    Args:
        factors: The linear's.
        sigma_input: Share of the identity that is added to ``H_I``; ``None`` for the one that held-out tokens chose, or
            ``LEAST_INPUT_DAMPING`` where that is more.
        sigma_output: The same of ``H_O``.
        device: Where to compute.
        caution: What both shares are multiplied by: above 1, the sketch is trusted less.
    """
    sigma_input, sigma_output = (caution * sigma for sigma in _dampings(factors, sigma_input, sigma_output))
    reasons = []
    prepared_input = _prepared(factors.input, sigma_input, device)
    if prepared_input.reason is not None:
        reasons.append(f"input factor: {prepared_input.reason}")
        prepared_input = regularized_moment(factors, sigma_input, device)
    prepared_output: PreparedFactor | None = _prepared(factors.output, sigma_output, device)
    output_mean = 1.0
    if prepared_output is not None and prepared_output.reason is not None:
        reasons.append(f"output factor: {prepared_output.reason}")
        prepared_output = None
    elif prepared_output is not None:
        output_mean = prepared_output.mean_diagonal
    return RegularizedLayer(
        prepared_input,
        prepared_output,
        prepared_input.mean_diagonal * output_mean,
        "; ".join(reasons) or None,
    )


def regularized_moment(factors: LayerFactors, sigma_input: float | None, device: torch.device = _CPU) -> PreparedFactor:
    """``E[x xᵀ]``, the metric of one-sided GPTQ, prepared like the others."""
    return _prepared(factors.second_moment, ONE_SIDED_DAMPING if sigma_input is None else sigma_input, device)


def _dampings(factors: LayerFactors, sigma_input: float | None, sigma_output: float | None) -> tuple[float, float]:
    trust = factors.trust
    chosen = UNTRUSTED if trust is None else (max(LEAST_INPUT_DAMPING, trust.sigma_input), trust.sigma_output)
    return (
        chosen[0] if sigma_input is None else sigma_input,
        chosen[1] if sigma_output is None else sigma_output,
    )


def _prepared(triangle: Triangle, sigma: float, device: torch.device) -> PreparedFactor:
    return prepare_rows(partial(triangle.rows, device=device), triangle.size, sigma, device)
