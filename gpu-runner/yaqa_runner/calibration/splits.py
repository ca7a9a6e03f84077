"""The three splits of a job: calibration, selection and report, disjoint from each other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from yaqa_runner.calibration.overlap import HeldOut
from yaqa_runner.calibration.self_sample import sample_sequences, sequence_seed
from yaqa_runner.calibration.text import Warn, calibration_from_text, evaluation_from_text, leading_token
from yaqa_runner.calibration.tokens import TokenSet
from yaqa_runner.model.load import SourceModel
from yaqa_runner.monitor import SILENT, Monitor
from yaqa_runner.protocol.failures import InvalidSpec
from yaqa_runner.protocol.job_spec import Calibration, Evaluation, EvaluationText, TextCalibration
from yaqa_runner.protocol.manifest import SplitName

SELF_DOMAIN = "self"


@dataclass(frozen=True)
class EvaluationSet:
    """One evaluation text as tokens."""

    split: SplitName
    domain: str
    tokens: TokenSet


@dataclass(frozen=True)
class EvaluationSize:
    """Sequences of each text, tokens a sequence, and the seed of what is sampled where there is no text."""

    sequences: int
    length: int
    seed: int


@dataclass(frozen=True)
class Splits:
    """All tokens of a job."""

    calibration: TokenSet
    selection: list[EvaluationSet]
    report: list[EvaluationSet]


def build_splits(
    source: SourceModel,
    calibration: Calibration,
    evaluation: Evaluation,
    monitor: Monitor = SILENT,
) -> Splits:
    """Tokenize or sample every split. Report text is set aside first, then selection, then calibration.

    Lengths are capped at what the model was made for, with a warning.

    Raises:
        InvalidSpec: a text cannot be read, splits repeat each other, or texts are given and there is no tokenizer.
    """
    if isinstance(calibration, TextCalibration) or evaluation.selection or evaluation.report:
        _require_tokenizer(source)
    held_out = HeldOut()
    length = capped_length(evaluation.length, source.maximum_length, monitor.warn)
    size = EvaluationSize(evaluation.sequences, length, calibration.seed)
    report = evaluation_sets(source, "report", evaluation.report, size, held_out, monitor)
    selection = evaluation_sets(source, "selection", evaluation.selection, size, held_out, monitor)
    tokens = build_calibration(source, calibration, held_out, monitor)
    return Splits(tokens, selection, report)


def build_calibration(source: SourceModel, calibration: Calibration, held_out: HeldOut, monitor: Monitor) -> TokenSet:
    """The tokens that the sketch is taken on, of texts or sampled from the model; none of ``held_out``.

    Raises:
        InvalidSpec: a text cannot be read, repeats what is held out, or there is no tokenizer for it.
    """
    if isinstance(calibration, TextCalibration):
        _require_tokenizer(source)
        return _calibration_tokens(calibration, source.tokenizer, source.maximum_length, held_out, monitor.warn)
    length = capped_length(calibration.length, source.maximum_length, monitor.warn)
    seed = sequence_seed("calibration", calibration.seed)
    with source.weights.everything():
        return sample_sequences(source.model, calibration.sequences, length, seed, first_token(source), monitor)


def calibration_without_model(
    calibration: TextCalibration, evaluation: Evaluation, tokenizer: Any, maximum_length: int | None
) -> TokenSet:
    """The calibration tokens that ``build_splits`` makes of texts, by the tokenizer alone.

    Raises:
        InvalidSpec: a text cannot be read, or splits repeat each other.
    """
    held_out = HeldOut()
    length = capped_length(evaluation.length, maximum_length, _untold)
    for text in (*evaluation.report, *evaluation.selection):
        tokens = evaluation_from_text(Path(text.path), tokenizer, evaluation.sequences, length, held_out, _untold)
        held_out.add(tokens.tokens.numpy())
    return _calibration_tokens(calibration, tokenizer, maximum_length, held_out, _untold)


def _untold(code: str, message: str) -> None:
    """The run itself warns of these texts."""


def _calibration_tokens(
    calibration: TextCalibration, tokenizer: Any, maximum_length: int | None, held_out: HeldOut, warn: Warn
) -> TokenSet:
    return calibration_from_text(
        [Path(file) for file in calibration.files],
        tokenizer,
        calibration.sequences,
        capped_length(calibration.length, maximum_length, warn),
        calibration.seed,
        held_out,
        warn,
    )


def evaluation_sets(
    source: SourceModel,
    split: SplitName,
    texts: list[EvaluationText],
    size: EvaluationSize,
    held_out: HeldOut,
    monitor: Monitor,
) -> list[EvaluationSet]:
    """The sets of one split: one of each text, or one of sequences that are sampled from the model.

    Raises:
        InvalidSpec: a text cannot be read, repeats what is in ``held_out``, or there is no tokenizer for it.
    """
    if texts:
        _require_tokenizer(source)
    domains = [text.domain for text in texts]
    if len(set(domains)) < len(domains):
        raise InvalidSpec(f"Two {split} texts have the same domain.", "Name every domain once in a split.")
    if not texts:
        quiet = replace(monitor, progress=SILENT.progress)
        seed = sequence_seed(split, size.seed)
        with source.weights.everything():
            sampled = sample_sequences(source.model, size.sequences, size.length, seed, first_token(source), quiet)
        return [EvaluationSet(split, SELF_DOMAIN, sampled)]
    sets = []
    for text in texts:
        tokens = evaluation_from_text(
            Path(text.path), source.tokenizer, size.sequences, size.length, held_out, monitor.warn
        )
        held_out.add(tokens.tokens.numpy())
        sets.append(EvaluationSet(split, text.domain, tokens))
    return sets


def _require_tokenizer(source: SourceModel) -> None:
    if source.tokenizer is None:
        raise InvalidSpec("The repo has no tokenizer, so texts cannot be used.", 'Use calibration kind "self".')


def first_token(source: SourceModel) -> int | None:
    """What sequences that are sampled from ``source`` start with, where its tokenizer or config says."""
    if source.tokenizer is not None:
        leading = leading_token(source.tokenizer)
        if leading is not None:
            return leading
        if source.tokenizer.bos_token_id is not None:
            return int(source.tokenizer.bos_token_id)
    bos = getattr(source.model.config, "bos_token_id", None)
    return bos if isinstance(bos, int) and 0 <= bos < source.vocabulary else None


def capped_length(length: int, maximum: int | None, warn: Warn) -> int:
    """``length``, or ``maximum`` with a warning where that is less."""
    if maximum is None or length <= maximum:
        return length
    warn("length-capped", f"The model was made for {maximum} tokens; sequences of {length} are cut to that.")
    return maximum
