"""The gate: the best quantizer on the selection split is published."""

from __future__ import annotations

import torch

from yaqa_runner.evaluate.statistics import clustered_estimate, not_negative
from yaqa_runner.protocol.manifest import Estimate, Gate, GateRow, QuantizerName

ORDER: tuple[QuantizerName, ...] = ("rtn", "one-sided", "two-sided-cautious", "two-sided", "two-sided-tuned")
"""From the simplest to the one that took most from the calibration text."""
SKETCHED: tuple[QuantizerName, ...] = ORDER[2:]
WORDS: dict[QuantizerName, str] = {
    "rtn": "round-to-nearest",
    "one-sided": "one-sided rounding (GPTQ)",
    "two-sided-cautious": "two-sided rounding that trusts the sketch less",
    "two-sided": "two-sided rounding",
    "two-sided-tuned": "two-sided rounding with tuned scales",
}


def choose(selection: dict[QuantizerName, list[torch.Tensor]]) -> Gate:
    """The quantizer of least KL on the selection split, with the reason in words.

    Where two are equal to the last bit, the simpler one is published. Where one that rests on the sketch has the least,
    others that do tie with it if they are behind by no more than the standard error of the difference, sequence by
    sequence; then the one that took most from the calibration text is published, for there is more of that than of the
    selection text. What is not better than rounding without the sketch ties with nothing.

    Args:
        selection: KL in nats of every position, ``[sequences, length]`` of each selection text, by quantizer.

    Raises:
        ValueError: nothing was measured.
    """
    if not selection:
        raise ValueError("the gate needs at least one measurement")
    estimates = {name: _estimate(texts) for name, texts in selection.items()}
    ranked = sorted(selection, key=lambda name: (estimates[name].mean, ORDER.index(name)))
    least = ranked[0]
    tied = [name for name in ranked[: _first_without(ranked)] if _ties(selection[name], selection[least])]
    winner = max([least, *tied], key=ORDER.index)
    best = estimates[winner]
    if winner == least:
        reason = f"{WORDS[winner]} has the least KL on the selection split: {_figure(best)} nats"
    else:
        reason = (
            f"{WORDS[winner]} has {_figure(best)} nats on the selection split, which does not tell it from the least "
            "KL, and took more from the calibration text"
        )
    for other in ranked:
        if other == winner:
            continue
        row = estimates[other]
        share = f", {100 * (1 - best.mean / row.mean):.0f} % less" if row.mean > best.mean else ""
        reason += f"; {WORDS[other]} {_figure(row)}{share}"
    return Gate(
        selection=[GateRow(quantizer=name, kl_nats=estimates[name]) for name in ORDER if name in selection],
        winner=winner,
        reason=reason,
    )


def _first_without(ranked: list[QuantizerName]) -> int:
    """The place of the best that does not rest on the sketch."""
    return next((place for place, name in enumerate(ranked) if name not in SKETCHED), len(ranked))


def _estimate(texts: list[torch.Tensor]) -> Estimate:
    mean, error = clustered_estimate(texts)
    return Estimate(mean=not_negative(mean), standard_error=error)


def _ties(behind: list[torch.Tensor], least: list[torch.Tensor]) -> bool:
    """Whether it is behind, and by no more than chance: 0 is no tie, but the same files."""
    pairs = zip(behind, least, strict=True)
    difference, error = clustered_estimate([one.double() - other.double() for one, other in pairs])
    return 0 < difference <= error


def _figure(estimate: Estimate) -> str:
    return f"{estimate.mean:.5f} ± {estimate.standard_error:.5f}"
