"""The manifest of a variant: where it comes from, what was measured, which files it has."""

from __future__ import annotations

from dataclasses import dataclass

from yaqa_runner.calibration.splits import EvaluationSet
from yaqa_runner.evaluate.measure import CONVENTION
from yaqa_runner.evaluate.statistics import Comparison, summarize
from yaqa_runner.evaluate.verification import Verification, VerificationKl
from yaqa_runner.pipeline.measure import MeasuredVariant, MeasuringReference
from yaqa_runner.pipeline.planned_recipe import PlannedRecipe, PlannedVariant
from yaqa_runner.pipeline.provenance import describe_device, library_versions
from yaqa_runner.pipeline.publish_folder import hash_files
from yaqa_runner.pipeline.run_context import RunContext
from yaqa_runner.pipeline.sketch import ObtainedSketch
from yaqa_runner.pipeline.write import WrittenVariant
from yaqa_runner.protocol.events import timestamp
from yaqa_runner.protocol.manifest import (
    Gate,
    Generator,
    Manifest,
    ManifestCalibration,
    ManifestEvaluation,
    ManifestSketch,
    ManifestSource,
    ManifestVerification,
    ManifestWindow,
    Measured,
    MixedTypes,
    QuantizerName,
    TextRecord,
    UnquantizedWeight,
)
from yaqa_runner.sketches.evidence import few_tokens_warning, median_effective_tokens
from yaqa_runner.version import __version__


@dataclass(frozen=True)
class MeasuredWork:
    """All that was done for one variant; ``mixed`` records how a mix was settled."""

    variant: PlannedVariant
    written: WrittenVariant
    measured: MeasuredVariant
    mixed: MixedTypes | None


def describe_variant(
    *, context: RunContext, sketch: ObtainedSketch, reference: MeasuringReference, done: MeasuredWork, gate: Gate
) -> Manifest:
    """The whole record. One long call: it fills in a form, field by field, and does nothing else."""
    spec, splits = context.spec, reference.splits
    written, measured, plan = done.written, done.measured, done.written.plan
    is_tuned = "two-sided-tuned" in written.rounded.quantizers
    seeded = ("calibration", "labels") + (("tuning",) if is_tuned else ())
    winner = gate.winner
    return Manifest(
        job=spec.job,
        fence=spec.fence,
        variant=done.variant.request.id,
        recipe=plan.recipe.canonical,
        created_at=timestamp(),
        source=ManifestSource(
            repo=spec.source.repo,
            revision=spec.source.revision,
            license=context.original.license,
            stored=context.original.stored,
            base=context.original.base,
        ),
        files=hash_files(written.of(winner), context.monitor.check),
        generator=Generator(version=__version__),
        versions=library_versions(),
        device=describe_device(context.source.device),
        seeds={name: spec.calibration.seed for name in seeded},
        calibration=ManifestCalibration(
            kind=spec.calibration.kind,
            sha256=splits.calibration.sha256,
            sequences=splits.calibration.sequences,
            length=splits.calibration.length,
            tokens=splits.calibration.count,
        ),
        sketch=ManifestSketch(
            kind=spec.sketch.kind,
            key=sketch.sketch.key,
            iterations=spec.sketch.iterations,
            reused=sketch.reused,
            effective_tokens=median_effective_tokens(sketch.sketch.record.layers),
            warning=few_tokens_warning(sketch.sketch.record.layers, splits.calibration.count),
        ),
        seconds=_seconds(context, written, measured, is_tuned),
        quantizer=winner,
        gate=gate,
        mixed=done.mixed,
        fitted_group=plan.fitted_group,
        evaluation=ManifestEvaluation(
            convention=CONVENTION,
            texts=[_text_record(item) for item in reference.sets],
            measured=[
                _measured(quantizer, written.size, splits.report, measured.quantizers[quantizer].report)
                for quantizer in reversed(written.rounded.quantizers)
            ],
        ),
        verification=_verification_record(reference.verification, measured.quantizers[winner].verification),
        layers=written.rounded.evidence,
        unquantized=_unquantized(context, plan),
    )


def _unquantized(context: RunContext, plan: PlannedRecipe) -> list[UnquantizedWeight]:
    """What the container keeps, with the model's reason where the container has none of its own."""
    reasons = {weight.name: weight.reason for weight in context.source.unquantized}
    return [
        weight.model_copy(update={"reason": f"not quantized: {reasons[weight.name]}"})
        if weight.reason == "not quantized" and weight.name in reasons
        else weight
        for weight in plan.container.unquantized(context.linked, set(plan.linears))
    ]


def _seconds(
    context: RunContext, written: WrittenVariant, measured: MeasuredVariant, is_tuned: bool
) -> dict[str, float]:
    stages = ("load", "calibrate", "sketch", "round") + (("tune",) if is_tuned else ())
    seconds = {stage: context.monitor.reporter.seconds.get(stage, 0.0) for stage in stages}
    seconds |= {"export": written.seconds, "evaluate": measured.seconds}
    return {stage: round(value, 3) for stage, value in seconds.items()}


def _measured(
    quantizer: QuantizerName, size: int, sets: list[EvaluationSet], comparisons: list[Comparison]
) -> Measured:
    return Measured(
        quantizer=quantizer,
        bytes=size,
        report=summarize(comparisons),
        by_domain={item.domain: summarize([comparison]) for item, comparison in zip(sets, comparisons, strict=True)},
    )


def _text_record(item: EvaluationSet) -> TextRecord:
    return TextRecord(
        split=item.split,
        domain=item.domain,
        sha256=item.tokens.sha256,
        sequences=item.tokens.sequences,
        length=item.tokens.length,
        tokens=item.tokens.count,
    )


def _verification_record(verification: Verification, kl: VerificationKl) -> ManifestVerification:
    window = verification.window
    return ManifestVerification(
        kl_nats=kl.mean,
        sequences=len(verification.input_ids),
        positions=verification.positions.shape[1],
        standard_error=kl.standard_error,
        window=None
        if window is None
        else ManifestWindow(
            tokens=window.window, length=window.input_ids.shape[1] if window.reached else None, kl_nats=kl.window
        ),
    )
