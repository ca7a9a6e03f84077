"""Types for the linears of a recipe that mixes them, by predicted KL within its budget."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from yaqa_runner.allocation.budget import CANDIDATES
from yaqa_runner.allocation.choose_types import LayerOptions, TypeOption, choose_types, total_loss, total_size
from yaqa_runner.allocation.predict_losses import predict_losses
from yaqa_runner.formats.gguf.container import GgufContainer
from yaqa_runner.grids.gguf import gguf_grid, gguf_type_for
from yaqa_runner.model.linears import LinearLayer
from yaqa_runner.monitor import Monitor
from yaqa_runner.pipeline.planned_recipe import PlannedRecipe, PlannedVariant
from yaqa_runner.rounding.settings import RoundingSettings
from yaqa_runner.sketches.store import Sketch


@dataclass(frozen=True)
class MixedPlan:
    """A mix that was chosen, and the best single type that fits the same budget.

    Attributes:
        plan: The recipe with the chosen types.
        baseline: One type for all linears, otherwise with the same options.
        baseline_type: That type.
        bits_per_weight: Of the mix's linears, on average.
        baseline_bits_per_weight: Of the baseline's.
        loss: Predicted KL of the mix in nats a token.
        baseline_loss: Of the baseline.
        is_uniform: Whether the mix came out as the baseline's types.
    """

    plan: PlannedRecipe
    baseline: PlannedRecipe
    baseline_type: str
    bits_per_weight: float
    baseline_bits_per_weight: float
    loss: float
    baseline_loss: float
    is_uniform: bool


def allocate_types(
    *,
    layers: list[LinearLayer],
    variant: PlannedVariant,
    sketch: Sketch,
    settings: RoundingSettings,
    monitor: Monitor,
) -> MixedPlan:
    """Types for the linears of ``variant`` within its budget, which the smallest types fit.

    Raises:
        SketchUnreadable: the sketch lacks a linear.
        Interrupted: ``monitor.check`` raised it.
    """
    plan, budget = variant.plan, variant.budget
    assert budget is not None and isinstance(plan.container, GgufContainer)
    members = [layer for layer in layers if layer.name in plan.linears]
    options = predict_losses(layers=members, budget=budget, sketch=sketch, settings=settings, monitor=monitor)
    choice = choose_types([LayerOptions(name, tuple(found)) for name, found in options.items()], budget.size)
    uniform = {name: _uniform(name, members, options) for name in CANDIDATES}
    fitting = {name: found for name, found in uniform.items() if total_size(found) <= budget.size}
    best = min(fitting, key=lambda name: (total_loss(fitting[name]), total_size(fitting[name])))
    if total_loss(fitting[best]) < total_loss(choice):
        choice = fitting[best]
    chosen = {name: option.type for name, option in choice.items()}
    weights = {layer.name: layer.rows * layer.columns for layer in members}
    own = plan.container
    mixed = GgufContainer(_commonest(chosen, weights), own.model_name, chosen, budget=own.budget)
    # No recipe that a person could ask for: the names of types are those of mixes.
    extra = plan.recipe.canonical.split(",")[2:]
    baseline = plan.recipe.model_copy(update={"canonical": ",".join([f"gguf,type={best}", *extra])})
    return MixedPlan(
        plan=replace(plan, container=mixed),
        baseline=PlannedRecipe(baseline, GgufContainer(best, own.model_name), plan.linears, plan.columns),
        baseline_type=best,
        bits_per_weight=_average_bits(choice, weights),
        baseline_bits_per_weight=_average_bits(fitting[best], weights),
        loss=total_loss(choice),
        baseline_loss=total_loss(fitting[best]),
        is_uniform=choice == fitting[best],
    )


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
