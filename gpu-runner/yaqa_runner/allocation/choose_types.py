"""Choosing a type for every layer under one budget of bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class TypeOption:
    """One type that a layer could have.

    Attributes:
        type: The grid's name.
        size: Bytes of the layer's weight in this type.
        loss: Predicted KL in nats a token, ``½ tr(H_O E H_I Eᵀ)`` in the sketch's own scale.
    """

    type: str
    size: int
    loss: float


@dataclass(frozen=True)
class LayerOptions:
    """A layer and the types it could have."""

    name: str
    options: tuple[TypeOption, ...]


class BudgetTooSmall(ValueError):
    """No choice of types fits; ``needed`` is the size in bytes of the smallest one."""

    def __init__(self, budget: int, needed: int) -> None:
        super().__init__(f"the layers need at least {needed} bytes, and the budget is {budget}")
        self.needed = needed


def choose_types(layers: Sequence[LayerOptions], budget: int) -> dict[str, TypeOption]:
    """The type of every layer, of least summed loss within ``budget`` bytes (a multiple-choice knapsack).

    Starts from the smallest types and takes the steps along each layer's lower convex hull in order of loss saved a
    byte, which is optimal for the budgets it reaches exactly; what is left of the budget goes to the single changes
    that still save the most. Never worse than any one type for all layers that fits the budget. Equal inputs give
    equal choices.

    Raises:
        BudgetTooSmall: even the smallest types do not fit.
        ValueError: a layer has no options, two layers share a name, or a size or loss is negative or not finite.
    """
    _check(layers)
    smallest = {layer.name: min(layer.options, key=lambda option: (option.size, option.loss)) for layer in layers}
    needed = sum(option.size for option in smallest.values())
    if needed > budget:
        raise BudgetTooSmall(budget, needed)
    candidates = [_fill(layers, _climb(layers, smallest, budget), budget)]
    for uniform in _uniform_choices(layers):
        if total_size(uniform) <= budget:
            candidates.append(_fill(layers, uniform, budget))
    return min(candidates, key=lambda choice: (total_loss(choice), total_size(choice)))


def total_size(choice: dict[str, TypeOption]) -> int:
    """Bytes of all layers."""
    return sum(option.size for option in choice.values())


def total_loss(choice: dict[str, TypeOption]) -> float:
    """Summed predicted loss."""
    return math.fsum(option.loss for option in choice.values())


def _check(layers: Sequence[LayerOptions]) -> None:
    if len({layer.name for layer in layers}) < len(layers):
        raise ValueError("two layers have the same name")
    for layer in layers:
        if not layer.options:
            raise ValueError(f"{layer.name} has no type to choose")
        for option in layer.options:
            if option.size < 0 or not math.isfinite(option.loss) or option.loss < 0:
                raise ValueError(f"{layer.name} as {option.type}: size {option.size}, loss {option.loss}")


def _hull(options: Sequence[TypeOption]) -> list[TypeOption]:
    """The options on the lower convex hull of loss over size, by rising size and falling loss."""
    hull: list[TypeOption] = []
    for option in sorted(options, key=lambda option: (option.size, option.loss)):
        if hull and option.loss >= hull[-1].loss:
            continue
        while len(hull) >= 2 and _saving(hull[-2], hull[-1]) <= _saving(hull[-2], option):
            hull.pop()
        hull.append(option)
    return hull


def _saving(before: TypeOption, after: TypeOption) -> float:
    """Loss saved a byte."""
    return (before.loss - after.loss) / max(1, after.size - before.size)


def _climb(layers: Sequence[LayerOptions], start: dict[str, TypeOption], budget: int) -> dict[str, TypeOption]:
    steps = []
    for layer in layers:
        hull = _hull(layer.options)
        for index, (before, after) in enumerate(pairwise(hull)):
            steps.append((-_saving(before, after), layer.name, index, before, after))
    steps.sort(key=lambda step: step[:3])
    choice = dict(start)
    size = total_size(choice)
    blocked: set[str] = set()
    for _, name, _, before, after in steps:
        grown = size + after.size - before.size
        # A layer's later steps build on its earlier ones.
        if name in blocked or grown > budget:
            blocked.add(name)
            continue
        choice[name] = after
        size = grown
    return choice


def _fill(layers: Sequence[LayerOptions], choice: dict[str, TypeOption], budget: int) -> dict[str, TypeOption]:
    choice = dict(choice)
    room = budget - total_size(choice)
    while True:
        best: tuple[float, str, TypeOption] | None = None
        for layer in layers:
            current = choice[layer.name]
            for option in layer.options:
                saved = current.loss - option.loss
                if saved > 0 and option.size - current.size <= room and (best is None or saved > best[0]):
                    best = (saved, layer.name, option)
        if best is None:
            return choice
        room -= best[2].size - choice[best[1]].size
        choice[best[1]] = best[2]


def _uniform_choices(layers: Sequence[LayerOptions]) -> list[dict[str, TypeOption]]:
    by_layer = [{option.type: option for option in layer.options} for layer in layers]
    if not by_layer:
        return []
    return [
        {layer.name: options[name] for layer, options in zip(layers, by_layer, strict=True)}
        for name in by_layer[0]
        if all(name in options for options in by_layer)
    ]
