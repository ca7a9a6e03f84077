"""A group that does not divide a model's widths gives way to the largest that does, and the run says so first."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_checkpoints import save_checkpoint

from yaqa_runner.model.load import SourceModel, load_source_model
from yaqa_runner.model.snapshot import inspect_snapshot
from yaqa_runner.pipeline.plan import plan_recipe
from yaqa_runner.pipeline.planned_recipe import PlannedRecipe
from yaqa_runner.protocol.failures import UnsupportedModel
from yaqa_runner.protocol.manifest import FittedGroup
from yaqa_runner.protocol.recipes import parse_recipe


def planned(folder: Path, recipe: str, **shape: int) -> tuple[PlannedRecipe, list[str], SourceModel]:
    checkpoint = save_checkpoint(folder / "model", "llama", **shape)
    source = load_source_model(inspect_snapshot(checkpoint), torch.device("cpu"))
    told: list[str] = []
    plan = plan_recipe(
        parse_recipe(recipe), checkpoint, source, lambda code, message: told.append(f"{code}: {message}")
    )
    return plan, told, source


@pytest.mark.parametrize("recipe", ["w4a16", "gptq:4", "w2a16,zero=on"])
def test_the_largest_group_that_stores_everything_is_used(tmp_path: Path, recipe: str) -> None:
    # As SmolLM2-135M: 576 is no multiple of 128, 1,536 is.
    plan, told, source = planned(
        tmp_path, recipe, hidden_size=192, intermediate_size=256, num_attention_heads=6, num_key_value_heads=2
    )
    assert plan.recipe.canonical == recipe
    assert len(plan.linears) == len(source.linears)
    assert plan.container.grid().grid.name.endswith("-g64")
    assert plan.fitted_group == FittedGroup(asked=128, used=64, asked_linears=2)
    assert told == [
        f"group-fitted: {recipe}: groups of 128 fit 2 of the model's 14 linears; groups of 64 fit 14 and are used."
    ]


@pytest.mark.parametrize("recipe", ["w4a16,group=32", "w4a16,group=64", "gguf:q4_0", "onnx:q4,group=128"])
def test_a_group_that_fits_is_left_alone(tmp_path: Path, recipe: str) -> None:
    plan, told, _ = planned(tmp_path, recipe, hidden_size=64, intermediate_size=128)
    assert plan.fitted_group is None
    assert told == []


def test_a_model_that_no_group_fits_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match="can store none"):
        planned(tmp_path, "w4a16", hidden_size=24, intermediate_size=40, num_attention_heads=2, num_key_value_heads=1)
