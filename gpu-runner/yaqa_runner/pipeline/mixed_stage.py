"""Mixed types: one for every linear, by predicted KL within a budget; then the mix is measured."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from yaqa_runner.allocation.budget import CANDIDATES, LinearBudget, candidate_types
from yaqa_runner.allocation.choose_types import LayerOptions, TypeOption, choose_types, total_loss, total_size
from yaqa_runner.evaluate.measure import measure
from yaqa_runner.evaluate.statistics import summarize
from yaqa_runner.formats.gguf.container import GgufContainer
from yaqa_runner.grids.fit_rows import fit_rows
from yaqa_runner.grids.gguf import gguf_grid, gguf_type_for
from yaqa_runner.model.linears import LinearLayer
from yaqa_runner.pipeline.rounding_stage import PlannedRecipe, RoundedRecipe
from yaqa_runner.pipeline.variant_stage import VariantContext
from yaqa_runner.protocol.manifest import Estimate, MixedTypes, UniformTypes
from yaqa_runner.protocol.recipes import parse_recipe
from yaqa_runner.rounding.layers import RoundingTask, round_layers
from yaqa_runner.sketch.regularize import regularize
from yaqa_runner.sketch.store import Sketch


@dataclass(frozen=True)
class MixedPlan:
    """A mix that was chosen, and the best single type that fits the same budget.

    Attributes:
        plan: The recipe with the chosen types.
        rival: The recipe of one type for all linears, otherwise with the same options.
        bits_per_weight: Of the mix's linears, on average.
        rival_bits_per_weight: Of the rival's.
        loss: Predicted KL of the mix in nats a token.
        rival_loss: Of the rival.
        is_uniform: Whether the mix came out as the rival's types.
    """

    plan: PlannedRecipe
    rival: PlannedRecipe
    bits_per_weight: float
    rival_bits_per_weight: float
    loss: float
    rival_loss: float
    is_uniform: bool


def choose_mixed(
    layers: list[LinearLayer],
    plan: PlannedRecipe,
    budget: LinearBudget,
    sketch: Sketch,
    sigma_input: float,
    sigma_output: float,
    workers: int,
    progress: Callable[[int, int], None],
    check: Callable[[], None],
) -> MixedPlan:
    """Types for the linears of ``plan`` within ``budget``, which the smallest types fit.

    Every linear is rounded two-sided, unrefined, to each candidate type; ½ tr(H_O E H_I Eᵀ) of that is its predicted
    loss.

    Raises:
        SketchUnreadable: the sketch lacks a linear.
    """
    members = [layer for layer in layers if layer.name in plan.linears]
    types = {layer.name: candidate_types(layer) for layer in members}
    scales: dict[str, float] = {}
    options: dict[str, list[TypeOption]] = {layer.name: [] for layer in members}

    def tasks() -> Iterator[RoundingTask[tuple[str, str]]]:
        for layer in members:
            check()
            yield from tasks_of(layer)

    # Apart, so that no factor of this layer is named any more while the next one's are prepared.
    def tasks_of(layer: LinearLayer) -> Iterator[RoundingTask[tuple[str, str]]]:
        weight = layer.stored_weight()
        factors = regularize(sketch.factors(layer.name), sigma_input, sigma_output, weight.device)
        scales[layer.name] = factors.scale
        for name in types[layer.name]:
            grid = fit_rows(gguf_grid(name), weight, factors.input.diagonal)
            yield RoundingTask((layer.name, name), weight, grid, factors.input, factors.output)

    by_name = {layer.name: layer for layer in members}
    total = sum(map(len, types.values()))
    for done, rounded in enumerate(round_layers(tasks(), workers), start=1):
        check()
        name, type_name = rounded.key
        size = budget.size_of(by_name[name], type_name)
        options[name].append(TypeOption(type_name, size, max(0.0, rounded.proxy * scales[name] / 2)))
        progress(done, total)
    choice = choose_types([LayerOptions(name, tuple(found)) for name, found in options.items()], budget.size)
    uniform = {name: _uniform(name, members, options) for name in CANDIDATES}
    fitting = {name: found for name, found in uniform.items() if total_size(found) <= budget.size}
    best = min(fitting, key=lambda name: (total_loss(fitting[name]), total_size(fitting[name])))
    if total_loss(fitting[best]) < total_loss(choice):
        choice = fitting[best]
    assert isinstance(plan.container, GgufContainer)
    chosen = {name: option.type for name, option in choice.items()}
    weights = {layer.name: layer.rows * layer.columns for layer in members}
    mixed = GgufContainer(_commonest(chosen, weights), plan.container.model_name, chosen, plan.container.label)
    extra = plan.recipe.canonical.split(",")[2:]
    rival = parse_recipe(",".join([f"gguf:{best}", *extra]))
    return MixedPlan(
        plan=replace(plan, container=mixed),
        rival=PlannedRecipe(rival, GgufContainer(best, plan.container.model_name), plan.linears),
        bits_per_weight=_average_bits(choice, weights),
        rival_bits_per_weight=_average_bits(fitting[best], weights),
        loss=total_loss(choice),
        rival_loss=total_loss(fitting[best]),
        is_uniform=choice == fitting[best],
    )


def settle_mixed(
    context: VariantContext, mixed: MixedPlan, own: RoundedRecipe, rival: RoundedRecipe, scratch: Path
) -> tuple[PlannedRecipe, RoundedRecipe, MixedTypes]:
    """What to publish under a mixed recipe: the mix, or the single type where that measures no worse.

    Files of both are written, loaded back and measured on the selection split.
    """
    against = _selection_kl(context, mixed.rival, rival, scratch / "uniform")
    found = against if mixed.is_uniform else _selection_kl(context, mixed.plan, own, scratch / "mixed")
    kept = found.mean < against.mean
    record = MixedTypes(
        target_bits_per_weight=mixed.plan.recipe.bits_per_weight,
        target_bytes=mixed.plan.recipe.budget_bytes,
        bits_per_weight=round(mixed.bits_per_weight, 4),
        predicted_kl_nats=mixed.loss,
        kl_nats=found,
        uniform=UniformTypes(
            type=mixed.rival.recipe.name.partition(":")[2],
            bits_per_weight=round(mixed.rival_bits_per_weight, 4),
            predicted_kl_nats=mixed.rival_loss,
            kl_nats=against,
        ),
        published="mixed" if kept else "uniform",
    )
    if kept:
        return mixed.plan, own, record
    if not mixed.is_uniform:
        context.reporter.warn(
            "mix-refused",
            f"{mixed.plan.recipe.canonical}: mixed types measured {found.mean:.5f} nats a token on the selection "
            f"split, {record.uniform.type} for all linears {against.mean:.5f}; {record.uniform.type} is published.",
        )
    assert isinstance(mixed.plan.container, GgufContainer)
    container = GgufContainer(record.uniform.type, mixed.plan.container.model_name, label=mixed.plan.container.label)
    return replace(mixed.plan, container=container), _with_gguf_types(rival, record.uniform.type), record


def _with_gguf_types(rounded: RoundedRecipe, type_name: str) -> RoundedRecipe:
    """``rounded`` with types under GGUF's names; those that containers share go by the grid's name elsewhere."""
    evidence = [layer.model_copy(update={"type": gguf_type_for(type_name, *layer.shape)}) for layer in rounded.evidence]
    return replace(rounded, evidence=evidence)


def _selection_kl(context: VariantContext, plan: PlannedRecipe, rounded: RoundedRecipe, folder: Path) -> Estimate:
    context.interrupt.check()
    plan.container.write(context.linked, rounded.linears[rounded.quantizers[-1]], folder)
    model = plan.container.load(folder, context.source.device.type)
    sets = context.splits.selection
    kl = summarize(
        [measure(model, item, context.reference, lambda count: None, context.interrupt.check) for item in sets]
    ).kl_nats
    shutil.rmtree(folder)
    return Estimate(mean=kl.mean, standard_error=kl.standard_error)


def _uniform(type_name: str, layers: list[LinearLayer], options: dict[str, list[TypeOption]]) -> dict[str, TypeOption]:
    choice = {}
    for layer in layers:
        wanted = gguf_type_for(type_name, layer.rows, layer.columns)
        choice[layer.name] = next(option for option in options[layer.name] if option.type == wanted)
    return choice


def _average_bits(choice: dict[str, TypeOption], weights: dict[str, int]) -> float:
    bits = sum(weights[name] * gguf_grid(option.type).bits_per_weight for name, option in choice.items())
    return bits / sum(weights.values())


def _commonest(types: dict[str, str], weights: dict[str, int]) -> str:
    """The type of the most weights: what llama.cpp's "mostly" means in ``general.file_type``."""
    counted: Counter[str] = Counter()
    for name, type_name in types.items():
        counted[type_name] += weights[name]
    return counted.most_common(1)[0][0]
