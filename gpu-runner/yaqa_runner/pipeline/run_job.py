"""Runs a job: from its spec to the folders of its variants."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError

from yaqa_runner.allocation.budget import LinearBudget
from yaqa_runner.calibration.splits import build_splits
from yaqa_runner.evaluate.reference import OriginalReference
from yaqa_runner.evaluate.verification import choose_verification, complete_verification, write_verification
from yaqa_runner.formats import ExportError, container_for
from yaqa_runner.formats.gguf.container import GgufContainer
from yaqa_runner.machine.cores import available_cores
from yaqa_runner.machine.host_memory import host_memory
from yaqa_runner.model.fetch import fetch_snapshot
from yaqa_runner.model.load import SourceModel, choose_device, load_source_model
from yaqa_runner.model.snapshot import Snapshot, fingerprint_files, inspect_snapshot, link_snapshot
from yaqa_runner.pipeline.mixed_stage import MixedPlan, choose_mixed, settle_mixed
from yaqa_runner.pipeline.plan_budget import linear_budget
from yaqa_runner.pipeline.publish_folder import MANIFEST_NAME
from yaqa_runner.pipeline.rounding_stage import PlannedRecipe, RoundedRecipe, round_recipes
from yaqa_runner.pipeline.sketch import obtain_sketch
from yaqa_runner.pipeline.tuning_stage import tune_recipes
from yaqa_runner.pipeline.variant_stage import VariantContext, make_variant
from yaqa_runner.protocol.events import ResultSketch, ResultVariant
from yaqa_runner.protocol.failures import InvalidSpec, UnsupportedModel
from yaqa_runner.protocol.interrupt import InterruptFlag
from yaqa_runner.protocol.job_spec import JobSpec, VariantRequest
from yaqa_runner.protocol.manifest import Manifest
from yaqa_runner.protocol.recipes import Recipe, recipe_directory
from yaqa_runner.protocol.reporter import Reporter
from yaqa_runner.rounding.memory import layers_in_flight, layers_on_gpu
from yaqa_runner.sketch.store import SKETCH_DIRECTORY, Sketch, SketchUnreadable

VERIFICATION_FILE = "verification.safetensors"
WORK_DIRECTORY = ".work"


@dataclass(frozen=True)
class JobOutcome:
    """What a job gave."""

    output: Path
    variants: list[tuple[VariantRequest, str]]
    manifests: list[Manifest]
    sketch: Sketch


def run_job(
    spec: JobSpec, output: Path, reporter: Reporter, interrupt: InterruptFlag, label_samples: int = 1
) -> JobOutcome:
    """Run ``spec`` and leave its variants, its sketch and the verification tensors under ``output``.

    What is finished stays when the run is interrupted; the same call takes it up again. Emits every event but the
    failing result.

    Raises:
        RunnerFailure: with one of the fixed codes.
    """
    recipes = parse_recipes(spec)
    output.mkdir(parents=True, exist_ok=True)
    work = output / WORK_DIRECTORY
    work.mkdir(exist_ok=True)
    threads = spec.limits.threads or available_cores()
    torch.set_num_threads(threads)
    torch.manual_seed(spec.calibration.seed)
    device = choose_device(spec.limits.device)
    with reporter.stage("load", spec.source.repo):
        snapshot, linked, source = load_source(spec, work, device)
        planned = plan_recipes(recipes, linked, source)
        budgets = plan_budgets(planned, linked, source)
        source_sha256 = fingerprint_files(snapshot)
    interrupt.check()
    with reporter.stage("calibrate"):
        splits = build_splits(
            source,
            spec.calibration,
            spec.evaluation,
            reporter.warn,
            lambda done, total: reporter.progress("calibrate", done, total, "sequences"),
            interrupt.check,
        )
    sketch, reused = obtain_sketch(
        spec, source, source_sha256, splits, output / SKETCH_DIRECTORY, reporter, interrupt, label_samples
    )
    todo: list[tuple[VariantRequest, PlannedRecipe]] = [
        item for item in zip(spec.variants, planned, strict=True) if not _is_finished(spec, *item, output, sketch)
    ]
    rounded: dict[str, RoundedRecipe] = {}
    mixed: dict[str, MixedPlan] = {}
    plans: list[PlannedRecipe] = []
    if todo:
        shapes = [(layer.rows, layer.columns) for layer in source.linears]
        if source.device.type == "cuda":
            total = torch.cuda.get_device_properties(source.device).total_memory
            workers = layers_on_gpu(shapes, total - source.parameter_bytes)
        else:
            workers = layers_in_flight(shapes, threads, host_memory(spec.limits.memory_bytes))
        with reporter.stage("round"):
            try:
                for _, plan in todo:
                    budget = budgets.get(plan.recipe.canonical)
                    if budget is None:
                        plans.append(plan)
                        continue
                    chosen = choose_mixed(
                        source.linears,
                        plan,
                        budget,
                        sketch,
                        spec.sketch.sigma_input,
                        spec.sketch.sigma_output,
                        workers,
                        lambda done, total: reporter.progress("round", done, total, "types tried"),
                        interrupt.check,
                    )
                    mixed[plan.recipe.canonical] = chosen
                    plans.append(chosen.plan)
                asked = {plan.recipe.canonical for plan in plans}
                rivals = {found.rival.recipe.canonical: found.rival for found in mixed.values()}
                plans.extend(rival for canonical, rival in rivals.items() if canonical not in asked)
                rounded = round_recipes(
                    source.linears,
                    plans,
                    sketch,
                    spec.sketch.sigma_input,
                    spec.sketch.sigma_output,
                    workers,
                    work / "codes",
                    lambda name, recipe, errors: reporter.layer(name, recipe, errors) if recipe in asked else None,
                    lambda done, total: reporter.progress("round", done, total, "layers"),
                    interrupt.check,
                    reporter.warn,
                )
            except SketchUnreadable as error:
                raise InvalidSpec(f"The sketch does not fit the model: {error}", "Run without sketch.reuse.") from error
    if spec.tuning.passes > 0 and any(plan.recipe.tune for plan in plans):
        with reporter.stage("tune"):
            tune_recipes(
                source,
                plans,
                rounded,
                splits.calibration.tokens,
                spec.tuning.passes,
                spec.calibration.seed,
                lambda done, total: reporter.progress("tune", done, total, "steps"),
                interrupt.check,
                reporter.warn,
            )
    reference = OriginalReference(source, work / "reference")
    with reporter.stage("evaluate", "original"):
        reference.prepare(
            [*splits.selection, *splits.report] if todo else [],
            lambda done, total: reporter.progress("evaluate", done, total, "sequences"),
            interrupt.check,
        )
        verification = choose_verification(splits.report, reference, spec.evaluation.verification_sequences)
        verification = complete_verification(verification, splits.report, source)
        write_verification(verification, output / VERIFICATION_FILE)
    context = VariantContext(
        spec, snapshot, linked, source, splits, sketch, reused, reference, verification, reporter, interrupt
    )
    for request, plan in todo:
        canonical = plan.recipe.canonical
        own = rounded[canonical]
        record = None
        try:
            if canonical in mixed:
                rival = rounded[mixed[canonical].rival.recipe.canonical]
                with reporter.stage("evaluate", f"{canonical}: the mix"):
                    plan, own, record = settle_mixed(context, mixed[canonical], own, rival, work / "mixed")
            make_variant(context, request, plan, own, output / recipe_directory(canonical), record)
        except ExportError as error:
            raise UnsupportedModel(f"{canonical} cannot be written: {error}", "Ask for another recipe.") from error
    with reporter.stage("finish"):
        variants = [
            (request, recipe_directory(plan.recipe.canonical))
            for request, plan in zip(spec.variants, planned, strict=True)
        ]
        manifests = [
            Manifest.model_validate_json((output / directory / MANIFEST_NAME).read_bytes()) for _, directory in variants
        ]
        shutil.rmtree(work)
    reporter.succeed(
        [
            ResultVariant(
                id=request.id, recipe=plan.recipe.canonical, directory=recipe_directory(plan.recipe.canonical)
            )
            for request, plan in zip(spec.variants, planned, strict=True)
        ],
        ResultSketch(key=sketch.key, directory=SKETCH_DIRECTORY),
        VERIFICATION_FILE,
    )
    return JobOutcome(output, variants, manifests, sketch)


def parse_recipes(spec: JobSpec) -> list[Recipe]:
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


def load_source(spec: JobSpec, work: Path, device: torch.device) -> tuple[Snapshot, Path, SourceModel]:
    """Fetch, inspect and load the source; the second result is a folder of links named after the model."""
    folder, _ = fetch_snapshot(spec.source.repo, spec.source.revision, spec.source.path)
    snapshot = inspect_snapshot(folder)
    linked = link_snapshot(snapshot, work / "source" / spec.source.repo.partition("/")[2])
    return snapshot, linked, load_source_model(snapshot, device)


def plan_recipes(recipes: list[Recipe], linked: Path, source: SourceModel) -> list[PlannedRecipe]:
    """Containers, and the linears that each can store; asked before anything expensive is computed.

    Raises:
        UnsupportedModel: a container cannot write this architecture, or none of its linears.
    """
    planned: list[PlannedRecipe] = []
    for recipe in recipes:
        try:
            container = container_for(recipe)
            grid = container.grid()
            names = frozenset(layer.name for layer in source.linears if grid.supports(layer.rows, layer.columns))
            container.untouched(linked, set(names))
        except ExportError as error:
            raise UnsupportedModel(
                f"{recipe.canonical} cannot be written: {error}", "Ask for another recipe, or another model."
            ) from error
        if not names:
            raise UnsupportedModel(
                f"{recipe.canonical} can store none of the model's linears (their widths do not fit its groups).",
                "Ask for a recipe with a smaller group.",
            )
        planned.append(PlannedRecipe(recipe, container, names))
    return planned


def plan_budgets(planned: list[PlannedRecipe], linked: Path, source: SourceModel) -> dict[str, LinearBudget]:
    """What the linears may take in the recipes of mixed types, by canonical name.

    Raises:
        UnsupportedModel: the smallest types do not fit.
    """
    budgets = {}
    for plan in planned:
        if plan.recipe.is_mixed:
            assert isinstance(plan.container, GgufContainer)
            members = [layer for layer in source.linears if layer.name in plan.linears]
            budgets[plan.recipe.canonical] = linear_budget(plan.recipe, plan.container, members, linked)
    return budgets


def _is_finished(spec: JobSpec, request: VariantRequest, planned: PlannedRecipe, output: Path, sketch: Sketch) -> bool:
    """Whether an interrupted run of this very attempt finished the variant."""
    path = output / recipe_directory(planned.recipe.canonical) / MANIFEST_NAME
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return False
    return (
        manifest.job == spec.job
        and manifest.fence == spec.fence
        and manifest.variant == request.id
        and manifest.sketch.key == sketch.key
    )
