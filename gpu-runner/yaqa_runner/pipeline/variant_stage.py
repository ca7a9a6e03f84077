"""One variant: every quantizer written, loaded back and measured; the winner gets its manifest and its place."""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from yaqa_runner.calibration.splits import EvaluationSet, Splits
from yaqa_runner.evaluate.gate import choose
from yaqa_runner.evaluate.measure import CONVENTION, measure
from yaqa_runner.evaluate.reference import OriginalReference
from yaqa_runner.evaluate.statistics import Comparison, summarize
from yaqa_runner.evaluate.verification import Verification, VerificationKl, verification_kl
from yaqa_runner.model.load import SourceModel
from yaqa_runner.model.snapshot import Snapshot
from yaqa_runner.pipeline.provenance import describe_device, library_versions
from yaqa_runner.pipeline.publish_folder import MANIFEST_NAME, hash_files, published_bytes
from yaqa_runner.pipeline.rounding_stage import PlannedRecipe, RoundedRecipe
from yaqa_runner.protocol.events import timestamp
from yaqa_runner.protocol.failures import RunnerFailure
from yaqa_runner.protocol.interrupt import InterruptFlag
from yaqa_runner.protocol.job_spec import JobSpec, VariantRequest
from yaqa_runner.protocol.manifest import (
    Estimate,
    Generator,
    Manifest,
    ManifestCalibration,
    ManifestEvaluation,
    ManifestSketch,
    ManifestSource,
    ManifestVerification,
    ManifestWindow,
    Measured,
    Metrics,
    MixedTypes,
    QuantizerName,
    TextRecord,
    UntouchedWeight,
)
from yaqa_runner.protocol.reporter import Reporter
from yaqa_runner.sketch.store import Sketch
from yaqa_runner.version import __version__


@dataclass(frozen=True)
class VariantContext:
    """What every variant of a job shares."""

    spec: JobSpec
    snapshot: Snapshot
    linked: Path
    """The snapshot's folder of links, named after the model."""
    source: SourceModel
    splits: Splits
    sketch: Sketch
    sketch_reused: bool
    reference: OriginalReference
    verification: Verification
    reporter: Reporter
    interrupt: InterruptFlag


def make_variant(
    context: VariantContext,
    request: VariantRequest,
    planned: PlannedRecipe,
    rounded: RoundedRecipe,
    target: Path,
    mixed: MixedTypes | None = None,
) -> Manifest:
    """Write, measure and choose; leaves the winner's files and ``manifest.json`` at ``target``, whole or not at all.

    Raises:
        RunnerFailure: the quantizers' files differ in size, or a container wrote something that does not load.
        Interrupted: a signal came.
    """
    started = time.monotonic()
    work = target.with_name(f".{target.name}.work")
    if work.exists():
        shutil.rmtree(work)
    work.mkdir(parents=True)
    canonical = planned.recipe.canonical
    reporter = context.reporter
    quantizers = rounded.quantizers
    with reporter.stage("export", canonical):
        for number, quantizer in enumerate(quantizers):
            context.interrupt.check()
            planned.container.write(context.linked, rounded.linears[quantizer], work / quantizer)
            reporter.progress("export", number + 1, len(quantizers), "files")
    export_seconds = time.monotonic() - started
    bytes_of = {quantizer: published_bytes(work / quantizer) for quantizer in quantizers}
    if len(set(bytes_of.values())) != 1:
        raise RunnerFailure(
            "internal", f"The quantizers' files differ in size: {bytes_of}.", "This is a bug in the container."
        )
    comparisons: dict[QuantizerName, dict[str, list[Comparison]]] = {}
    checks: dict[QuantizerName, VerificationKl] = {}
    with reporter.stage("evaluate", canonical):
        sets = context.splits.selection + context.splits.report
        total = len(quantizers) * sum(item.tokens.sequences for item in sets)
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            reporter.progress("evaluate", done, total, "sequences")

        for quantizer in quantizers:
            model = planned.container.load(work / quantizer, context.source.device.type)
            comparisons[quantizer] = {
                split: [
                    measure(model, item, context.reference, advance, context.interrupt.check)
                    for item in sets
                    if item.split == split
                ]
                for split in ("selection", "report")
            }
            selection = summarize(comparisons[quantizer]["selection"]).kl_nats
            report = summarize(comparisons[quantizer]["report"]).kl_nats
            reporter.metric(canonical, quantizer, "selection", selection)
            reporter.metric(canonical, quantizer, "report", report)
            checks[quantizer] = verification_kl(model, context.verification)
            del model
    with reporter.stage("gate", canonical):
        gate = choose({name: _estimate(summarize(found["selection"])) for name, found in comparisons.items()})
    winner = gate.winner
    for quantizer in quantizers:
        if quantizer != winner:
            shutil.rmtree(work / quantizer)
    stages = ("load", "calibrate", "sketch", "round") + (("tune",) if "two-sided-tuned" in quantizers else ())
    seconds = {stage: context.reporter.seconds.get(stage, 0.0) for stage in stages}
    seconds["export"] = export_seconds
    seconds["evaluate"] = time.monotonic() - started - export_seconds
    seeded = ("calibration", "labels") + (("tuning",) if "two-sided-tuned" in quantizers else ())
    manifest = Manifest(
        job=context.spec.job,
        fence=context.spec.fence,
        variant=request.id,
        recipe=canonical,
        created_at=timestamp(),
        source=ManifestSource(
            repo=context.spec.source.repo,
            revision=context.spec.source.revision,
            license=context.snapshot.license,
        ),
        files=hash_files(work / winner, context.interrupt.check),
        generator=Generator(version=__version__),
        versions=library_versions(),
        device=describe_device(context.source.device),
        seeds={name: context.spec.calibration.seed for name in seeded},
        calibration=ManifestCalibration(
            kind=context.spec.calibration.kind,
            sha256=context.splits.calibration.sha256,
            sequences=context.splits.calibration.sequences,
            length=context.splits.calibration.length,
            tokens=context.splits.calibration.count,
        ),
        sketch=ManifestSketch(
            kind=context.spec.sketch.kind,
            key=context.sketch.key,
            iterations=context.spec.sketch.iterations,
            reused=context.sketch_reused,
        ),
        seconds={stage: round(value, 3) for stage, value in seconds.items()},
        quantizer=winner,
        gate=gate,
        mixed=mixed,
        evaluation=ManifestEvaluation(
            convention=CONVENTION,
            texts=[_text_record(item) for item in sets],
            measured=[
                _measured(quantizer, bytes_of[quantizer], context.splits.report, comparisons[quantizer]["report"])
                for quantizer in reversed(quantizers)
            ],
        ),
        verification=_verification_record(context.verification, checks[winner]),
        layers=rounded.evidence,
        untouched=[
            UntouchedWeight(name=weight.name, reason=weight.reason, type=weight.type)
            for weight in planned.container.untouched(context.linked, set(planned.linears))
        ],
    )
    with (work / winner / MANIFEST_NAME).open("w", encoding="utf-8") as stream:
        stream.write(json.dumps(manifest.to_wire(), indent="\t", allow_nan=False) + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    if target.exists():
        shutil.rmtree(target)
    (work / winner).rename(target)
    shutil.rmtree(work)
    return manifest


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


def _estimate(metrics: Metrics) -> Estimate:
    return Estimate(mean=metrics.kl_nats.mean, standard_error=metrics.kl_nats.standard_error)


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
