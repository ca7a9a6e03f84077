"""Runs a job: from its spec to the folders of its variants, stage by stage."""

from __future__ import annotations

import shutil
from pathlib import Path

from yaqa_runner.formats import ExportError
from yaqa_runner.pipeline.calibrate import make_splits
from yaqa_runner.pipeline.finish import JobOutcome, finish_job, finish_variant, is_finished
from yaqa_runner.pipeline.measure import MeasuringReference, measure_variant, prepare_reference
from yaqa_runner.pipeline.plan import plan_variants, recipes_of
from yaqa_runner.pipeline.planned_recipe import PlannedVariant, RefusedVariant
from yaqa_runner.pipeline.round import RoundedJob, round_variants
from yaqa_runner.pipeline.run_context import RunContext, load_run
from yaqa_runner.pipeline.run_monitor import RunMonitor
from yaqa_runner.pipeline.settle_mix import settle_variant
from yaqa_runner.pipeline.sketch import ObtainedSketch, obtain_sketch
from yaqa_runner.pipeline.tune import tune_recipes
from yaqa_runner.pipeline.variant_manifest import MeasuredWork
from yaqa_runner.pipeline.write import write_variant
from yaqa_runner.protocol.failures import UnsupportedModel
from yaqa_runner.protocol.interrupt import InterruptFlag
from yaqa_runner.protocol.job_spec import JobSpec
from yaqa_runner.protocol.reporter import Reporter


def run_job(
    spec: JobSpec, output: Path, reporter: Reporter, interrupt: InterruptFlag, label_samples: int = 1
) -> JobOutcome:
    """Run ``spec`` and leave its variants, its sketch and the verification tensors under ``output``.

    What is finished stays when the run is interrupted; the same call takes it up again. Emits every event but the
    failing result.

    Raises:
        RunnerFailure: with one of the fixed codes.
    """
    recipes = recipes_of(spec)
    output.mkdir(parents=True, exist_ok=True)
    monitor = RunMonitor(reporter, interrupt)
    context = load_run(spec=spec, output=output, monitor=monitor, label_samples=label_samples)
    planned = plan_variants(context=context, recipes=recipes)
    refused = list(planned.refused)
    splits = make_splits(context=context)
    sketch = obtain_sketch(context=context, calibration=splits.calibration)
    todo = [item for item in planned.variants if not is_finished(context=context, variant=item, sketch=sketch.sketch)]
    rounded = round_variants(context=context, variants=todo, sketch=sketch.sketch)
    tune_recipes(context=context, rounded=rounded, tokens=splits.calibration.tokens)
    reference = prepare_reference(context=context, splits=splits, is_measured=bool(todo))
    for variant in todo:
        try:
            make_variant(context=context, sketch=sketch, reference=reference, variant=variant, rounded=rounded)
        except UnsupportedModel as failure:
            refused.append(RefusedVariant(variant.request, failure))
            context.monitor.warn("variant-refused", failure.message)
    unmade = {item.request.id for item in refused}
    made = [item for item in planned.variants if item.request.id not in unmade]
    if not made:
        raise refused[0].failure
    return finish_job(context=context, variants=made, refused=refused, sketch=sketch)


def make_variant(
    *,
    context: RunContext,
    sketch: ObtainedSketch,
    reference: MeasuringReference,
    variant: PlannedVariant,
    rounded: RoundedJob,
) -> None:
    """Write, measure and finish one variant; nothing of it is left where that cannot be done.

    Raises:
        UnsupportedModel: its container cannot write the model after all.
    """
    folder = context.output / f".{variant.directory}.work"
    try:
        settled = settle_variant(context=context, reference=reference, variant=variant, rounded=rounded)
        written = write_variant(context=context, plan=settled.plan, rounded=settled.rounded, folder=folder)
        measured = measure_variant(context=context, reference=reference, written=written)
        done = MeasuredWork(variant, written, measured, settled.mixed)
        finish_variant(context=context, sketch=sketch, reference=reference, done=done)
    except ExportError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise UnsupportedModel(f"{variant.canonical} cannot be written: {error}", "Ask for another recipe.") from error
