"""Measures a model that was loaded from finished files against the original."""

from __future__ import annotations

import torch

from yaqa_runner.calibration.splits import EvaluationSet
from yaqa_runner.evaluate.reference import OriginalReference, evaluation_batch
from yaqa_runner.evaluate.statistics import Comparison, compare, join
from yaqa_runner.formats.container import ReferenceModel
from yaqa_runner.monitor import SILENT, Monitor
from yaqa_runner.protocol.failures import RunnerFailure

CONVENTION = (
    "KL(original || quantized) in nats a token, natural log, mean over every position of every sequence; "
    "standard errors cluster by sequence; figures come from the finished files, loaded by their format's library"
)


def measure(
    model: ReferenceModel, item: EvaluationSet, reference: OriginalReference, monitor: Monitor = SILENT
) -> Comparison:
    """Compare ``model`` with the original on one text, a batch at a time; progress is in sequences.

    Raises:
        RunnerFailure: the file gives another vocabulary than the original, or values that are not finite.
    """
    parts: list[Comparison] = []
    step = evaluation_batch(item.tokens.length, reference.vocabulary)
    for start in range(0, item.tokens.sequences, step):
        monitor.check()
        tokens = item.tokens.tokens[start : start + step]
        stop = start + len(tokens)
        quantized = checked_log_probabilities(model, tokens, reference.vocabulary)
        parts.append(compare(tokens, reference.log_probabilities(item, start, stop), quantized))
        monitor.progress(stop, item.tokens.sequences)
    return join(parts)


def checked_log_probabilities(model: ReferenceModel, tokens: torch.Tensor, vocabulary: int) -> torch.Tensor:
    """``[b, T, V]`` of ``model`` on ``tokens`` ``[b, T]``.

    Raises:
        RunnerFailure: another vocabulary, or values that are not finite.
    """
    values = model.log_probabilities(tokens)
    if values.shape[-1] != vocabulary:
        raise RunnerFailure(
            "internal",
            f"The finished file predicts {values.shape[-1]} tokens, the original {vocabulary}.",
            "This is a bug in the container.",
        )
    if not bool(torch.isfinite(values).all()):
        raise RunnerFailure(
            "internal", "The finished file gives values that are not finite.", "This is a bug in the container."
        )
    return values
