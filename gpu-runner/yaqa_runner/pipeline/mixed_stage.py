"""Mixed types: one for every linear, by predicted KL within a budget of bits a weight; then the mix is measured."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from yaqa_runner.evaluate.measure import measure
from yaqa_runner.evaluate.statistics import summarize
from yaqa_runner.formats.gguf import GgufContainer
from yaqa_runner.grids.gguf import gguf_grid, gguf_type_for
from yaqa_runner.grids.mixed import BudgetTooSmall, LayerOptions, TypeOption, choose_types, total_loss, total_size
from yaqa_runner.model.linears import LinearLayer
from yaqa_runner.pipeline.rounding_stage import PlannedRecipe, RoundedRecipe
from yaqa_runner.pipeline.variant_stage import VariantContext
from yaqa_runner.protocol.failures import UnsupportedModel
from yaqa_runner.protocol.manifest import Estimate, MixedTypes, UniformTypes
from yaqa_runner.protocol.recipes import parse_recipe
from yaqa_runner.rounding.layers import RoundingTask, round_layers
from yaqa_runner.sketch.regularize import regularize
from yaqa_runner.sketch.store import Sketch

CANDIDATES = ("q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "q8_0")
"""Types that are tried; rows that a K-type does not fit try what stands in for it."""


@dataclass(frozen=True)
class MixedPlan:
    """A mix that was chosen, and the best single type that fits the same budget.

    Attributes:
        plan: The recipe with the chosen types.
        rival: The recipe of one type for all linears, otherwise with the same options.
        size: Bytes of the mix's linears.
        rival_size: Bytes of the rival's.
        weights: Number of weights in them.
        loss: Predicted KL of the mix in nats a token.
        rival_loss: Of the rival.
        is_uniform: Whether the mix came out as the rival's types.
    """

    plan: PlannedRecipe
    rival: PlannedRecipe
    size: int
    rival_size: int
    weights: int
    loss: float
    rival_loss: float
    is_uniform: bool


def choose_mixed(
    layers: list[LinearLayer],
    plan: PlannedRecipe,
    sketch: Sketch,
    sigma_input: float,
    sigma_output: float,
    workers: int,
    progress: Callable[[int, int], None],
    check: Callable[[], None],
) -> MixedPlan:
    """Types for the linears of ``plan`` within its bits a weight.

    Every linear is rounded two-sided, unrefined, to each candidate type; ½ tr(H_O E H_I Eᵀ) of that is its predicted
    loss. Embedding and output layer are not counted, as no recipe quantizes them to its type.

    Raises:
        UnsupportedModel: the smallest types do not fit.
        SketchUnreadable: the sketch lacks a linear.
    """
    target = plan.recipe.bits_per_weight
    assert target is not None
    members = [layer for layer in layers if layer.name in plan.linears]
    types = {layer.name: _candidates(layer) for layer in members}
    scales: dict[str, float] = {}
    options: dict[str, list[TypeOption]] = {layer.name: [] for layer in members}

    def tasks() -> Iterator[RoundingTask]:
        for layer in members:
            check()
            weight = layer.weight()
            factors = regularize(sketch.factors(layer.name).to(weight.device), sigma_input, sigma_output)
            scales[layer.name] = factors.scale
            for name in types[layer.name]:
                grid = gguf_grid(name).fit(weight, factors.input.diagonal)
                yield RoundingTask(f"{layer.name}/{name}", weight, grid, factors.input, factors.output)

    shapes = {layer.name: layer.rows * layer.columns for layer in members}
    total = sum(map(len, types.values()))
    for done, rounded in enumerate(round_layers(tasks(), workers), start=1):
        check()
        name, _, type_name = rounded.name.rpartition("/")
        size = round(shapes[name] * gguf_grid(type_name).bits_per_weight / 8)
        options[name].append(TypeOption(type_name, size, max(0.0, rounded.proxy * scales[name] / 2)))
        progress(done, total)
    weights = sum(shapes.values())
    budget = int(target * weights / 8)
    try:
        choice = choose_types([LayerOptions(name, tuple(found)) for name, found in options.items()], budget)
    except BudgetTooSmall as error:
        least = 8 * error.needed / weights
        raise UnsupportedModel(
            f"{plan.recipe.canonical}: the smallest types that this model's linears can take need {least:.3f} bits "
            f"a weight.",
            f"Ask for bpw={math.ceil(least * 1000) / 1000:g} or more.",
        ) from error
    uniform = {name: _uniform(name, members, options) for name in CANDIDATES}
    fitting = {name: found for name, found in uniform.items() if total_size(found) <= budget}
    best = min(fitting, key=lambda name: (total_loss(fitting[name]), total_size(fitting[name])))
    if total_loss(fitting[best]) < total_loss(choice):
        choice = fitting[best]
    assert isinstance(plan.container, GgufContainer)
    chosen = {name: option.type for name, option in choice.items()}
    mixed = GgufContainer(_commonest(chosen, shapes), plan.container.model_name, chosen, plan.container.label)
    extra = plan.recipe.canonical.split(",")[2:]
    rival = parse_recipe(",".join([f"gguf:{best}", *extra]))
    return MixedPlan(
        plan=replace(plan, container=mixed),
        rival=PlannedRecipe(rival, GgufContainer(best, plan.container.model_name), plan.linears),
        size=total_size(choice),
        rival_size=total_size(fitting[best]),
        weights=weights,
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
    target = mixed.plan.recipe.bits_per_weight
    assert target is not None
    against = _selection_kl(context, mixed.rival, rival, scratch / "uniform")
    found = against if mixed.is_uniform else _selection_kl(context, mixed.plan, own, scratch / "mixed")
    kept = found.mean < against.mean
    record = MixedTypes(
        target_bits_per_weight=target,
        bits_per_weight=round(8 * mixed.size / mixed.weights, 4),
        predicted_kl_nats=mixed.loss,
        kl_nats=found,
        uniform=UniformTypes(
            type=mixed.rival.recipe.name.partition(":")[2],
            bits_per_weight=round(8 * mixed.rival_size / mixed.weights, 4),
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
    return replace(mixed.plan, container=container), rival, record


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


def _candidates(layer: LinearLayer) -> list[str]:
    found = (gguf_type_for(name, layer.rows, layer.columns) for name in CANDIDATES)
    return list(dict.fromkeys(name for name in found if name is not None))


def _uniform(type_name: str, layers: list[LinearLayer], options: dict[str, list[TypeOption]]) -> dict[str, TypeOption]:
    choice = {}
    for layer in layers:
        wanted = gguf_type_for(type_name, layer.rows, layer.columns)
        choice[layer.name] = next(option for option in options[layer.name] if option.type == wanted)
    return choice


def _commonest(types: dict[str, str], weights: dict[str, int]) -> str:
    """The type of the most weights: what llama.cpp's "mostly" means in ``general.file_type``."""
    counted: Counter[str] = Counter()
    for name, type_name in types.items():
        counted[type_name] += weights[name]
    return counted.most_common(1)[0][0]
