"""The gate: the best quantizer on the selection split is published."""

from __future__ import annotations

from yaqa_runner.protocol.manifest import Estimate, Gate, GateRow, QuantizerName

# Where two are equal to the last bit, the simpler one is published.
ORDER: tuple[QuantizerName, ...] = ("rtn", "one-sided", "two-sided-cautious", "two-sided", "two-sided-tuned")
WORDS: dict[QuantizerName, str] = {
    "rtn": "round-to-nearest",
    "one-sided": "one-sided rounding (GPTQ)",
    "two-sided-cautious": "two-sided rounding that trusts the sketch less",
    "two-sided": "two-sided rounding",
    "two-sided-tuned": "two-sided rounding with tuned scales",
}


def choose(selection: dict[QuantizerName, Estimate]) -> Gate:
    """The quantizer of least mean KL on the selection split, with the reason in words.

    Raises:
        ValueError: nothing was measured.
    """
    if not selection:
        raise ValueError("the gate needs at least one measurement")
    ranked = sorted(selection, key=lambda name: (selection[name].mean, ORDER.index(name)))
    winner = ranked[0]
    best = selection[winner]
    reason = f"{WORDS[winner]} has the least KL on the selection split: {_figure(best)} nats"
    for other in ranked[1:]:
        row = selection[other]
        share = f", {100 * (1 - best.mean / row.mean):.0f} % less" if row.mean > 0 else ""
        reason += f"; {WORDS[other]} {_figure(row)}{share}"
    return Gate(
        selection=[
            GateRow(
                quantizer=name,
                kl_nats=Estimate(mean=selection[name].mean, standard_error=selection[name].standard_error),
            )
            for name in ORDER
            if name in selection
        ],
        winner=winner,
        reason=reason,
    )


def _figure(estimate: Estimate) -> str:
    return f"{estimate.mean:.5f} ± {estimate.standard_error:.5f}"
