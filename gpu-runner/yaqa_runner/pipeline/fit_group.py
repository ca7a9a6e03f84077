"""A group that does not divide a model's widths gives way to the largest that does."""

from __future__ import annotations

from yaqa_runner.formats import container_for
from yaqa_runner.model.linears import LinearLayer
from yaqa_runner.protocol.manifest import FittedGroup
from yaqa_runner.protocol.recipes import Recipe, recipe_groups


def fit_group(recipe: Recipe, layers: list[LinearLayer]) -> tuple[Recipe, FittedGroup | None]:
    """``recipe`` with its own group, or with the largest smaller one that stores the most weights of ``layers``.

    Left alone, a group of 128 would keep most of a model whose width is 576 in 16 bits, under a 4-bit name.

    Raises:
        ExportError: there is no such container.
    """
    if recipe.group is None:
        return recipe, None
    fitting = _fitting(recipe, layers)
    best, most = recipe, _weights(fitting)
    for group in sorted(recipe_groups(recipe), reverse=True):
        if group < recipe.group:
            smaller = recipe.model_copy(update={"group": group})
            weights = _weights(_fitting(smaller, layers))
            if weights > most:
                best, most = smaller, weights
    if best.group is None or best.group == recipe.group:
        return recipe, None
    return best, FittedGroup(asked=recipe.group, used=best.group, asked_linears=len(fitting))


def describe_fitted_group(recipe: Recipe, fitted: FittedGroup, stored: int, linears: int) -> str:
    """What a person is told before the run: ``stored`` of the model's ``linears`` take the smaller groups."""
    return (
        f"{recipe.canonical}: groups of {fitted.asked} fit {fitted.asked_linears} of the model's {linears} linears; "
        f"groups of {fitted.used} fit {stored} and are used."
    )


def _fitting(recipe: Recipe, layers: list[LinearLayer]) -> list[LinearLayer]:
    grid = container_for(recipe).grid()
    return [layer for layer in layers if grid.supports(layer.rows, layer.columns)]


def _weights(layers: list[LinearLayer]) -> int:
    return sum(layer.rows * layer.columns for layer in layers)
