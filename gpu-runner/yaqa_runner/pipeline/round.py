"""The round stage: types for the recipes that mix them, then codes of every linear for every recipe."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from yaqa_runner.machine.host_memory import host_memory
from yaqa_runner.monitor import Monitor
from yaqa_runner.pipeline.allocate import MixedPlan, allocate_types
from yaqa_runner.pipeline.planned_recipe import PlannedRecipe, PlannedVariant
from yaqa_runner.pipeline.round_recipes import RecipeRounder
from yaqa_runner.pipeline.rounded_recipe import RoundedRecipe
from yaqa_runner.pipeline.run_context import RunContext
from yaqa_runner.protocol.failures import InvalidSpec
from yaqa_runner.protocol.manifest import ProxyError
from yaqa_runner.rounding.memory import layers_in_flight, layers_on_gpu
from yaqa_runner.rounding.settings import RoundingSettings
from yaqa_runner.sketches.store import Sketch, SketchUnreadable


@dataclass(frozen=True)
class RoundedJob:
    """What was rounded of a job.

    Attributes:
        plans: The recipes that were rounded: those asked for, and the single types that mixes are held against.
        recipes: Their codes, by canonical name.
        mixes: The mixes that were chosen, by canonical name.
    """

    plans: list[PlannedRecipe]
    recipes: dict[str, RoundedRecipe]
    mixes: dict[str, MixedPlan]


def round_variants(*, context: RunContext, variants: list[PlannedVariant], sketch: Sketch) -> RoundedJob:
    """Round every linear for every one of ``variants``.

    Raises:
        InvalidSpec: the sketch is of another model.
        Interrupted: a signal came.
    """
    if not variants:
        return RoundedJob([], {}, {})
    settings = _settings(context)
    with context.monitor.stage("round", "layers") as monitor:
        try:
            mixes = _mixes(context, variants, sketch, settings)
            plans = [mixes[item.canonical].plan if item.canonical in mixes else item.plan for item in variants]
            asked = {plan.recipe.canonical for plan in plans}
            baselines = {mix.baseline.recipe.canonical: mix.baseline for mix in mixes.values()}
            plans.extend(plan for canonical, plan in baselines.items() if canonical not in asked)
            return RoundedJob(plans, _rounded(context, plans, asked, sketch, settings, monitor), mixes)
        except SketchUnreadable as error:
            raise InvalidSpec(f"The sketch does not fit the model: {error}", "Run without sketch.reuse.") from error


def _settings(context: RunContext) -> RoundingSettings:
    source, limits = context.source, context.spec.limits
    shapes = [(layer.rows, layer.columns) for layer in source.linears]
    free: int | None = None
    if source.device.type == "cuda":
        free = torch.cuda.get_device_properties(source.device).total_memory - source.parameter_bytes
        workers = layers_on_gpu(shapes, free)
    else:
        workers = layers_in_flight(shapes, context.threads, host_memory(limits.memory_bytes))
    return RoundingSettings(context.spec.sketch.sigma_input, context.spec.sketch.sigma_output, workers, free)


def _mixes(
    context: RunContext, variants: list[PlannedVariant], sketch: Sketch, settings: RoundingSettings
) -> dict[str, MixedPlan]:
    return {
        item.canonical: allocate_types(
            layers=context.source.linears,
            variant=item,
            sketch=sketch,
            settings=settings,
            monitor=context.monitor.within("round", "types tried"),
        )
        for item in variants
        if item.budget is not None
    }


def _rounded(
    context: RunContext,
    plans: list[PlannedRecipe],
    asked: set[str],
    sketch: Sketch,
    settings: RoundingSettings,
    monitor: Monitor,
) -> dict[str, RoundedRecipe]:
    def report(name: str, recipe: str, errors: ProxyError) -> None:
        if recipe in asked:
            context.monitor.reporter.layer(name, recipe, errors)

    rounder = RecipeRounder(context.source.linears, sketch, settings, context.work / "codes", monitor)
    return rounder.round(plans, report)
