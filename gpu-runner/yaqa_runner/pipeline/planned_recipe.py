"""A recipe with what was found out about it before anything expensive."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from yaqa_runner.allocation.budget import LinearBudget
from yaqa_runner.formats import Container
from yaqa_runner.protocol.failures import UnsupportedModel
from yaqa_runner.protocol.job_spec import VariantRequest
from yaqa_runner.protocol.manifest import FittedGroup
from yaqa_runner.protocol.recipes import Recipe, recipe_directory


@dataclass(frozen=True)
class PlannedRecipe:
    """A recipe with its container and the names of the linears that the container can store.

    ``fitted_group`` is told where the recipe's group does not divide the model's widths and a smaller one is used.
    ``columns`` is the order of a linear's inputs in the file, of those that are not in the model's.
    """

    recipe: Recipe
    container: Container
    linears: frozenset[str]
    columns: Mapping[str, torch.Tensor] = field(default_factory=dict)
    fitted_group: FittedGroup | None = None


@dataclass(frozen=True)
class PlannedVariant:
    """A variant that is asked for.

    Attributes:
        request: The job's, with the id that its manifest names.
        plan: Its recipe.
        budget: What its linears may take together, for a recipe of mixed types.
    """

    request: VariantRequest
    plan: PlannedRecipe
    budget: LinearBudget | None

    @property
    def canonical(self) -> str:
        """The recipe's canonical name."""
        return self.plan.recipe.canonical

    @property
    def directory(self) -> str:
        """The name of its folder in the job's output."""
        return recipe_directory(self.canonical)


@dataclass(frozen=True)
class RefusedVariant:
    """A variant that its container cannot hold, beside others of the job that theirs can."""

    request: VariantRequest
    failure: UnsupportedModel
