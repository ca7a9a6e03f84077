"""The plan stage: recipes, containers and budgets, asked before anything expensive is computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from yaqa_runner.allocation.budget import LinearBudget
from yaqa_runner.formats import ExportError, container_for
from yaqa_runner.formats.gguf.container import GgufContainer
from yaqa_runner.formats.gguf.converter import end_converter, keep_layouts_in
from yaqa_runner.model.load import SourceModel
from yaqa_runner.model.snapshot import link_snapshot
from yaqa_runner.monitor import SILENT
from yaqa_runner.pipeline.fit_group import describe_fitted_group, fit_group
from yaqa_runner.pipeline.plan_budget import linear_budget
from yaqa_runner.pipeline.planned_recipe import PlannedRecipe, PlannedVariant, RefusedVariant
from yaqa_runner.pipeline.run_context import RunContext
from yaqa_runner.protocol.failures import InvalidSpec, UnsupportedModel
from yaqa_runner.protocol.job_spec import JobSpec
from yaqa_runner.protocol.recipes import Recipe, recipe_directory


@dataclass(frozen=True)
class PlannedJob:
    """The variants that can be made, at least one, and those that cannot."""

    variants: list[PlannedVariant]
    refused: list[RefusedVariant]


def plan_variants(*, context: RunContext, recipes: list[Recipe]) -> PlannedJob:
    """What each variant of the job needs, ``recipes`` being those of its requests.

    Raises:
        UnsupportedModel: none of the variants can be made: no container writes this architecture, or any of its
            linears, or the smallest types do not fit a budget.
    """
    link_snapshot(context.snapshot, context.linked)
    keep_layouts_in(context.work / "layouts")
    job = PlannedJob([], [])
    for request, recipe in zip(context.spec.variants, recipes, strict=True):
        try:
            plan = plan_recipe(recipe, context.linked, context.source, context.monitor.warn)
            job.variants.append(PlannedVariant(request, plan, _budget(plan, context)))
        except UnsupportedModel as failure:
            job.refused.append(RefusedVariant(request, failure))
    end_converter()
    if not job.variants:
        raise job.refused[0].failure
    for refused in job.refused:
        context.monitor.warn("variant-refused", refused.failure.message)
    return job


def recipes_of(spec: JobSpec) -> list[Recipe]:
    """The recipes of all variants.

    Raises:
        InvalidSpec: two would share a folder.
    """
    recipes = [variant.recipe for variant in spec.variants]
    directories = [recipe_directory(recipe.canonical) for recipe in recipes]
    for index, directory in enumerate(directories):
        if directory in directories[:index]:
            raise InvalidSpec(
                f'The recipe "{recipes[index].canonical}" is asked for twice.', "Ask for every recipe once."
            )
    return recipes


def plan_recipe(
    recipe: Recipe, linked: Path, source: SourceModel, warn: Callable[[str, str], None] = SILENT.warn
) -> PlannedRecipe:
    """Its container, and the linears that it can store; ``warn`` is told of groups that do not fit, with a code.

    Raises:
        UnsupportedModel: the container cannot write this architecture, or none of its linears.
    """
    try:
        # The recipe stays what was asked for: it is the variant's identity.
        stored_recipe, fitted = fit_group(recipe, source.linears)
        container = container_for(stored_recipe)
        grid = container.grid()
        fitting = {layer.name for layer in source.linears if grid.supports(layer.rows, layer.columns)}
        storable = container.storable(linked, fitting)
        if isinstance(container, GgufContainer):
            container = container.composed(linked, storable)
        container.unquantized(linked, set(storable))
    except ExportError as error:
        raise UnsupportedModel(
            f"{recipe.canonical} cannot be written: {error}", "Ask for another recipe, or another model."
        ) from error
    if not storable:
        raise UnsupportedModel(
            f"{recipe.canonical} can store none of the model's linears (their widths do not fit its groups).",
            "Ask for a recipe with a smaller group.",
        )
    columns = {name: order for name, order in storable.items() if order is not None}
    if fitted is not None:
        told = describe_fitted_group(recipe, fitted, len(storable), len(source.linears))
        warn("group-fitted", told)
    return PlannedRecipe(recipe, container, frozenset(storable), columns, fitted)


def _budget(plan: PlannedRecipe, context: RunContext) -> LinearBudget | None:
    if not plan.recipe.is_mixed:
        return None
    assert isinstance(plan.container, GgufContainer)
    members = [layer for layer in context.source.linears if layer.name in plan.linears]
    return linear_budget(plan.recipe, plan.container, members, context.linked)
