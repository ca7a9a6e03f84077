"""From a stored sketch to what rounding works with: regularised factors, one-sided where a factor says nothing."""

from __future__ import annotations

from dataclasses import dataclass

from yaqa_runner.rounding.factor import PreparedFactor, prepare_factor
from yaqa_runner.sketch.store import LayerFactors


@dataclass(frozen=True)
class RegularizedLayer:
    """One linear's factors, normalised to mean diagonal 1, with σI added.

    Attributes:
        input: ``H_I`` of the sketch.
        output: ``H_O``, or ``None`` where it holds no information: rounding is then one-sided.
        moment: ``E[x xᵀ]``, the metric of one-sided GPTQ.
        scale: What a proxy error under ``input`` and ``output`` is multiplied by to be nats a token (times one half).
        reason: Why rounding falls back, where it does.
    """

    input: PreparedFactor
    output: PreparedFactor | None
    moment: PreparedFactor
    scale: float
    reason: str | None


def regularize(factors: LayerFactors, sigma_input: float, sigma_output: float) -> RegularizedLayer:
    """Prepare a linear's factors (algorithm: mean diagonal 1, add σI, float64 Cholesky, double σ until it succeeds).

    An input factor that says nothing gives way to ``E[x xᵀ]``, an output factor to one-sided rounding.
    """
    moment = prepare_factor(factors.second_moment, sigma_input)
    prepared_input = prepare_factor(factors.input, sigma_input)
    prepared_output: PreparedFactor | None = prepare_factor(factors.output, sigma_output)
    reasons = []
    if prepared_input.reason is not None:
        reasons.append(f"input factor: {prepared_input.reason}")
        prepared_input = moment
    output_mean = 1.0
    if prepared_output is not None and prepared_output.reason is not None:
        reasons.append(f"output factor: {prepared_output.reason}")
        prepared_output = None
    elif prepared_output is not None:
        output_mean = prepared_output.mean_diagonal
    return RegularizedLayer(
        prepared_input,
        prepared_output,
        moment,
        prepared_input.mean_diagonal * output_mean,
        "; ".join(reasons) or None,
    )
