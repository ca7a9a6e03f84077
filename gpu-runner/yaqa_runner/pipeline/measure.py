"""The measure stage: every quantizer's finished files against the original, on the selection and the report split."""

from __future__ import annotations

import time
from dataclasses import dataclass

from yaqa_runner.calibration.splits import EvaluationSet, Splits
from yaqa_runner.evaluate.finished_model import is_measured_by_blocks, open_finished
from yaqa_runner.evaluate.measure import measure
from yaqa_runner.evaluate.reference import OriginalReference
from yaqa_runner.evaluate.statistics import Comparison, summarize
from yaqa_runner.evaluate.verification import (
    Verification,
    VerificationKl,
    choose_verification,
    complete_verification,
    texts_of,
    verification_kl,
    write_verification,
)
from yaqa_runner.formats.container import ReferenceModel
from yaqa_runner.monitor import Monitor
from yaqa_runner.pipeline.run_context import RunContext
from yaqa_runner.pipeline.write import WrittenVariant
from yaqa_runner.protocol.manifest import QuantizerName, SplitName

VERIFICATION_FILE = "verification.safetensors"


@dataclass(frozen=True)
class MeasuringReference:
    """What finished files are held against.

    Attributes:
        splits: The tokens.
        original: The original's log-probabilities on them.
        verification: Those of them that go to the control plane.
    """

    splits: Splits
    original: OriginalReference
    verification: Verification

    @property
    def sets(self) -> list[EvaluationSet]:
        """All texts that are measured on."""
        return [*self.splits.selection, *self.splits.report]


@dataclass(frozen=True)
class MeasuredQuantizer:
    """One quantizer's files, measured: a comparison for every text of a split, and the KL of the verification."""

    selection: list[Comparison]
    report: list[Comparison]
    verification: VerificationKl


@dataclass(frozen=True)
class MeasuredVariant:
    """A variant's files under every quantizer, measured in ``seconds``."""

    quantizers: dict[QuantizerName, MeasuredQuantizer]
    seconds: float


def prepare_reference(*, context: RunContext, splits: Splits, is_measured: bool) -> MeasuringReference:
    """The original on the texts of ``splits``, kept where something ``is_measured``; verification tensors are written.

    Raises:
        Interrupted: a signal came.
    """
    original = OriginalReference(context.source, context.work / "reference")
    with context.monitor.stage("evaluate", "sequences", "original") as monitor:
        original.prepare([*splits.selection, *splits.report] if is_measured else [], monitor)
        chosen = choose_verification(splits.report, original, context.spec.evaluation.verification_sequences)
        verification = complete_verification(chosen, splits.report, context.source)
        write_verification(verification, context.output / VERIFICATION_FILE)
    return MeasuringReference(splits, original, verification)


def measure_variant(*, context: RunContext, reference: MeasuringReference, written: WrittenVariant) -> MeasuredVariant:
    """Load every quantizer's files by their format's own library, and compare them with the original.

    Raises:
        RunnerFailure: a container wrote something that does not load, or gives no finite values.
        Interrupted: a signal came.
    """
    started = time.monotonic()
    canonical, quantizers = written.plan.recipe.canonical, written.rounded.quantizers
    measured: dict[QuantizerName, MeasuredQuantizer] = {}
    sequences = sum(item.tokens.sequences for item in reference.sets)
    with context.monitor.stage("evaluate", "sequences", canonical) as monitor:
        for number, quantizer in enumerate(quantizers):
            model = _loaded(context, reference, written, quantizer)
            part = monitor.part(number * sequences, len(quantizers) * sequences)
            found = measured[quantizer] = _measured(model, reference, part)
            splits: dict[SplitName, list[Comparison]] = {"selection": found.selection, "report": found.report}
            for split, comparisons in splits.items():
                context.monitor.reporter.metric(canonical, quantizer, split, summarize(comparisons).kl_nats)
            del model
    return MeasuredVariant(measured, time.monotonic() - started)


def _loaded(
    context: RunContext, reference: MeasuringReference, written: WrittenVariant, quantizer: QuantizerName
) -> ReferenceModel:
    container, device = written.plan.container, context.source.device.type
    return open_finished(
        lambda by_blocks: container.load(written.of(quantizer), device, context.linked, by_blocks),
        by_blocks=is_measured_by_blocks(context.source, context.spec.limits.memory_bytes),
        texts=[*(item.tokens.tokens for item in reference.sets), *texts_of(reference.verification)],
        folder=context.work / "states",
        check=context.monitor.check,
    )


def _measured(model: ReferenceModel, reference: MeasuringReference, monitor: Monitor) -> MeasuredQuantizer:
    comparisons: dict[SplitName, list[Comparison]] = {"selection": [], "report": []}
    total = sum(item.tokens.sequences for item in reference.sets)
    done = 0
    for item in reference.sets:
        comparisons[item.split].append(measure(model, item, reference.original, monitor.part(done, total)))
        done += item.tokens.sequences
    verification = verification_kl(model, reference.verification)
    return MeasuredQuantizer(comparisons["selection"], comparisons["report"], verification)
