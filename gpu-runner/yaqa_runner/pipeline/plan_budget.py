"""What a recipe of mixed types leaves to the quantized linears, known from the model's shapes alone."""

from __future__ import annotations

import math
from pathlib import Path

from yaqa_runner.allocation.budget import LinearBudget, smallest_bytes
from yaqa_runner.formats.gguf.container import ALIGNMENT, GgufContainer
from yaqa_runner.model.linears import LinearLayer
from yaqa_runner.protocol.byte_size import byte_size_text, rounded_up_byte_size
from yaqa_runner.protocol.failures import UnsupportedModel
from yaqa_runner.protocol.recipes import Recipe


def linear_budget(recipe: Recipe, container: GgufContainer, layers: list[LinearLayer], source: Path) -> LinearBudget:
    """The budget of ``recipe`` for ``layers``, the linears that are quantized.

    Bits a weight are those of the linears alone. A budget of bytes is one of all files: what embedding, output layer,
    norms, tokenizer, headers, configuration and licence take is taken off.

    Raises:
        UnsupportedModel: the smallest types do not fit.
        ExportError: the container cannot write the model.
    """
    if recipe.budget_bytes is None:
        assert recipe.bits_per_weight is not None
        weights = sum(layer.rows * layer.columns for layer in layers)
        budget = LinearBudget(int(recipe.bits_per_weight * weights / 8), alignment=1)
        needed = smallest_bytes(budget, layers)
        if needed > budget.size:
            least = 8 * needed / weights
            raise UnsupportedModel(
                f"{recipe.canonical}: the smallest types that this model's linears can take need {least:.3f} bits "
                f"a weight.",
                f"Ask for bpw={math.ceil(least * 1000) / 1000:g} or more.",
            )
        return budget
    shapes = {layer.name: (layer.rows, layer.columns) for layer in layers}
    besides = container.bytes_besides(source, shapes, recipe.budget_bytes)
    budget = LinearBudget(recipe.budget_bytes - besides, ALIGNMENT)
    needed = smallest_bytes(budget, layers)
    if needed > budget.size:
        raise UnsupportedModel(
            f"{recipe.canonical}: with the smallest types that this model's linears can take, its files have "
            f"{needed + besides:,} bytes: {needed:,} of linears, {besides:,} of embedding, output layer, norms, "
            f"tokenizer and headers; {byte_size_text(recipe.budget_bytes)} are {recipe.budget_bytes:,}.",
            f"Ask for bytes={rounded_up_byte_size(needed + besides)} or more.",
        )
    return budget
