"""The choice of types fits its budget, is near the best there is, and never worse than one type for all."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from yaqa_runner.allocation.choose_types import (
    BudgetTooSmall,
    LayerOptions,
    TypeOption,
    choose_types,
    total_loss,
    total_size,
)


def random_layers(count: int, seed: int) -> list[LayerOptions]:
    generator = random.Random(seed)
    layers = []
    for index in range(count):
        weights = generator.choice([256, 512, 1024])
        sensitivity = generator.uniform(0.1, 10)
        layers.append(
            LayerOptions(
                f"layer-{index}",
                tuple(
                    TypeOption(f"q{bits}", weights * bits, sensitivity * 4.0**-bits * generator.uniform(0.8, 1.2))
                    for bits in (2, 3, 4, 6)
                ),
            )
        )
    return layers


def best_loss(layers: list[LayerOptions], budget: int) -> float:
    return min(
        sum(option.loss for option in choice)
        for choice in itertools.product(*(layer.options for layer in layers))
        if sum(option.size for option in choice) <= budget
    )


@pytest.mark.parametrize("seed", range(12))
def test_choice_is_near_the_best_of_all(seed: int) -> None:
    layers = random_layers(6, seed)
    largest = sum(layer.options[-1].size for layer in layers)
    smallest = sum(layer.options[0].size for layer in layers)
    for share in (0.0, 0.2, 0.5, 0.8, 1.0):
        budget = int(smallest + share * (largest - smallest))
        choice = choose_types(layers, budget)
        assert total_size(choice) <= budget
        assert total_loss(choice) <= 1.25 * best_loss(layers, budget)


@pytest.mark.parametrize("seed", range(12))
def test_choice_is_never_worse_than_one_type_for_all(seed: int) -> None:
    layers = random_layers(20, seed)
    for index in range(4):
        budget = sum(layer.options[index].size for layer in layers)
        uniform = math.fsum(layer.options[index].loss for layer in layers)
        assert total_loss(choose_types(layers, budget)) <= uniform


def test_more_budget_goes_to_the_sensitive_layer() -> None:
    options = (TypeOption("q4", 400, 0.1), TypeOption("q6", 600, 0.01))
    dull = (TypeOption("q4", 400, 0.001), TypeOption("q6", 600, 0.0001))
    choice = choose_types([LayerOptions("dull", dull), LayerOptions("sensitive", options)], 1000)
    assert {name: option.type for name, option in choice.items()} == {"dull": "q4", "sensitive": "q6"}


def test_type_that_is_larger_and_worse_is_never_chosen() -> None:
    options = (TypeOption("a", 100, 1.0), TypeOption("bad", 150, 2.0), TypeOption("b", 200, 0.5))
    for budget in (100, 150, 199, 200, 500):
        assert choose_types([LayerOptions("x", options)], budget)["x"].type == ("b" if budget >= 200 else "a")


def test_budget_below_the_smallest_types_is_refused_with_what_is_needed() -> None:
    layers = random_layers(5, 0)
    needed = sum(layer.options[0].size for layer in layers)
    with pytest.raises(BudgetTooSmall) as refused:
        choose_types(layers, needed - 1)
    assert refused.value.needed == needed
    assert total_size(choose_types(layers, needed)) == needed


def test_impossible_layers_are_refused() -> None:
    good = LayerOptions("x", (TypeOption("a", 1, 1.0),))
    with pytest.raises(ValueError, match="same name"):
        choose_types([good, good], 10)
    with pytest.raises(ValueError, match="no type"):
        choose_types([LayerOptions("y", ())], 10)
    for size, loss in ((-1, 1.0), (1, float("nan")), (1, -1.0), (1, float("inf"))):
        with pytest.raises(ValueError, match="as a"):
            choose_types([LayerOptions("y", (TypeOption("a", size, loss),))], 10)


def test_no_layers_need_no_budget() -> None:
    assert choose_types([], 0) == {}
