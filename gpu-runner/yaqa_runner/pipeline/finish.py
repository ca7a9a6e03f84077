"""The finish stage: the winner gets its manifest and its place, and the job its result."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from yaqa_runner.evaluate.gate import choose
from yaqa_runner.pipeline.importance import add_importance
from yaqa_runner.pipeline.measure import VERIFICATION_FILE, MeasuringReference
from yaqa_runner.pipeline.planned_recipe import PlannedVariant, RefusedVariant
from yaqa_runner.pipeline.publish_folder import MANIFEST_NAME, read_manifest
from yaqa_runner.pipeline.run_context import RunContext
from yaqa_runner.pipeline.sketch import ObtainedSketch
from yaqa_runner.pipeline.variant_manifest import MeasuredWork, describe_variant
from yaqa_runner.protocol.events import ResultRefusal, ResultSketch, ResultVariant
from yaqa_runner.protocol.failures import InvalidSpec
from yaqa_runner.protocol.job_spec import VariantRequest
from yaqa_runner.protocol.manifest import Manifest
from yaqa_runner.sketches.store import SKETCH_DIRECTORY, Sketch


@dataclass(frozen=True)
class JobOutcome:
    """What a job gave."""

    output: Path
    variants: list[tuple[VariantRequest, str]]
    refused: list[RefusedVariant]
    manifests: list[Manifest]
    sketch: Sketch


def is_finished(*, context: RunContext, variant: PlannedVariant, sketch: Sketch) -> bool:
    """Whether an interrupted run of this very attempt finished the variant."""
    try:
        manifest = read_manifest(context.output / variant.directory)
    except InvalidSpec:
        return False
    return (
        manifest.job == context.spec.job
        and manifest.fence == context.spec.fence
        and manifest.variant == variant.request.id
        and manifest.sketch.key == sketch.key
    )


def finish_variant(
    *, context: RunContext, sketch: ObtainedSketch, reference: MeasuringReference, done: MeasuredWork
) -> Manifest:
    """Choose by the selection split; the winner's files and ``manifest.json`` get their place, whole or not at all.

    Raises:
        Interrupted: a signal came.
    """
    variant, written, measured = done.variant, done.written, done.measured
    with context.monitor.reporter.stage("gate", variant.canonical):
        gate = choose({name: [text.kl for text in found.selection] for name, found in measured.quantizers.items()})
    winner = written.of(gate.winner)
    for quantizer in written.rounded.quantizers:
        if quantizer != gate.winner:
            shutil.rmtree(written.of(quantizer))
    add_importance(context=context, sketch=sketch.sketch, plan=written.plan, folder=winner)
    manifest = describe_variant(context=context, sketch=sketch, reference=reference, done=done, gate=gate)
    with (winner / MANIFEST_NAME).open("w", encoding="utf-8") as stream:
        stream.write(json.dumps(manifest.to_wire(), indent="\t", allow_nan=False) + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    target = context.output / variant.directory
    if target.exists():
        shutil.rmtree(target)
    winner.rename(target)
    shutil.rmtree(written.folder)
    return manifest


def finish_job(
    *, context: RunContext, variants: list[PlannedVariant], refused: list[RefusedVariant], sketch: ObtainedSketch
) -> JobOutcome:
    """Read back every variant's manifest, clear up, and report the result, which is the job's last event."""
    with context.monitor.reporter.stage("finish"):
        manifests = [read_manifest(context.output / variant.directory) for variant in variants]
        shutil.rmtree(context.work)
    context.monitor.reporter.succeed(
        [
            ResultVariant(id=variant.request.id, recipe=variant.canonical, directory=variant.directory)
            for variant in variants
        ],
        [
            ResultRefusal(
                id=item.request.id,
                recipe=item.request.recipe.canonical,
                message=item.failure.message,
                remedy=item.failure.remedy,
            )
            for item in refused
        ],
        ResultSketch(key=sketch.sketch.key, directory=SKETCH_DIRECTORY),
        VERIFICATION_FILE,
    )
    made = [(variant.request, variant.directory) for variant in variants]
    return JobOutcome(context.output, made, refused, manifests, sketch.sketch)
