"""Whether a mix is published, or the single type that fits the same budget: whichever measures better."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from yaqa_runner.evaluate.finished_model import is_measured_by_blocks, open_finished
from yaqa_runner.evaluate.measure import measure
from yaqa_runner.evaluate.statistics import summarize
from yaqa_runner.formats.gguf.container import GgufContainer
from yaqa_runner.grids.gguf import gguf_type_for
from yaqa_runner.pipeline.allocate import MixedPlan
from yaqa_runner.pipeline.measure import MeasuringReference
from yaqa_runner.pipeline.planned_recipe import PlannedRecipe, PlannedVariant
from yaqa_runner.pipeline.round import RoundedJob
from yaqa_runner.pipeline.rounded_recipe import RoundedRecipe
from yaqa_runner.pipeline.run_context import RunContext
from yaqa_runner.protocol.manifest import Estimate, MixedTypes, UniformTypes


@dataclass(frozen=True)
class SettledVariant:
    """What is written for a variant; ``mixed`` records how a mix was settled."""

    plan: PlannedRecipe
    rounded: RoundedRecipe
    mixed: MixedTypes | None = None


def settle_variant(
    *, context: RunContext, reference: MeasuringReference, variant: PlannedVariant, rounded: RoundedJob
) -> SettledVariant:
    """What to publish under ``variant``: under a mixed recipe the mix, or the single type where that is no worse.

    Files of both are written, loaded back and measured on the selection split.

    Raises:
        ExportError: the container refuses the model or a grid.
        Interrupted: a signal came.
    """
    own = rounded.recipes[variant.canonical]
    mix = rounded.mixes.get(variant.canonical)
    if mix is None:
        return SettledVariant(variant.plan, own)
    baseline = rounded.recipes[mix.baseline.recipe.canonical]
    scratch = context.work / "mixed"
    with context.monitor.reporter.stage("evaluate", f"{variant.canonical}: the mix"):
        against = _selection_kl(context, reference, mix.baseline, baseline, scratch / "uniform")
        found = against if mix.is_uniform else _selection_kl(context, reference, mix.plan, own, scratch / "mixed")
    record = _record(mix, found, against)
    if record.published == "mixed":
        return SettledVariant(mix.plan, own, record)
    if not mix.is_uniform:
        context.monitor.warn(
            "mix-refused",
            f"{variant.canonical}: mixed types measured {found.mean:.5f} nats a token on the selection "
            f"split, {record.uniform.type} for all linears {against.mean:.5f}; {record.uniform.type} is published.",
        )
    assert isinstance(mix.plan.container, GgufContainer)
    container = GgufContainer(record.uniform.type, mix.plan.container.model_name, budget=mix.plan.container.budget)
    plan = replace(mix.plan, container=container)
    return SettledVariant(plan, _with_gguf_types(baseline, record.uniform.type), record)


def _record(mix: MixedPlan, found: Estimate, against: Estimate) -> MixedTypes:
    return MixedTypes(
        target_bits_per_weight=mix.plan.recipe.bits_per_weight,
        target_bytes=mix.plan.recipe.budget_bytes,
        bits_per_weight=round(mix.bits_per_weight, 4),
        predicted_kl_nats=mix.loss,
        kl_nats=found,
        uniform=UniformTypes(
            type=mix.baseline_type,
            bits_per_weight=round(mix.baseline_bits_per_weight, 4),
            predicted_kl_nats=mix.baseline_loss,
            kl_nats=against,
        ),
        published="mixed" if found.mean < against.mean else "uniform",
    )


def _with_gguf_types(rounded: RoundedRecipe, type_name: str) -> RoundedRecipe:
    """``rounded`` with types under GGUF's names; those that containers share go by the grid's name elsewhere."""
    evidence = [layer.model_copy(update={"type": gguf_type_for(type_name, *layer.shape)}) for layer in rounded.evidence]
    return replace(rounded, evidence=evidence)


def _selection_kl(
    context: RunContext, reference: MeasuringReference, plan: PlannedRecipe, rounded: RoundedRecipe, folder: Path
) -> Estimate:
    context.monitor.check()
    plan.container.write(context.linked, rounded.linears[rounded.quantizers[-1]], folder)
    sets = reference.splits.selection
    model = open_finished(
        lambda by_blocks: plan.container.load(folder, context.source.device.type, context.linked, by_blocks),
        by_blocks=is_measured_by_blocks(context.source, context.spec.limits.memory_bytes),
        texts=[item.tokens.tokens for item in sets],
        folder=context.work / "states",
        check=context.monitor.check,
    )
    monitor = replace(context.monitor.within("evaluate", "sequences"), progress=lambda done, total: None)
    kl = summarize([measure(model, item, reference.original, monitor) for item in sets]).kl_nats
    shutil.rmtree(folder)
    return Estimate(mean=kl.mean, standard_error=kl.standard_error)
