"""A rounding that was ended takes up the linears that it had finished, and gives the same codes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from taken_sketches import take
from tiny_checkpoints import save_checkpoint

from yaqa_runner.calibration.tokens import TokenSet
from yaqa_runner.model.load import load_source_model
from yaqa_runner.model.snapshot import inspect_snapshot
from yaqa_runner.monitor import Monitor
from yaqa_runner.pipeline.plan import plan_recipe
from yaqa_runner.pipeline.round_recipes import RecipeRounder
from yaqa_runner.pipeline.rounded_recipe import ROUNDED, RoundedRecipe
from yaqa_runner.protocol.failures import Interrupted
from yaqa_runner.protocol.recipes import parse_recipe
from yaqa_runner.rounding.settings import RoundingSettings
from yaqa_runner.sketches.settings import SketchSettings

RECIPES = ("w4a16,group=32", "gptq:4,group=32", "w3a16,group=32", "onnx:q4")


def assert_same(found: dict[str, RoundedRecipe], expected: dict[str, RoundedRecipe]) -> None:
    assert found.keys() == expected.keys()
    for canonical, recipe in expected.items():
        assert found[canonical].evidence == recipe.evidence
        for quantizer in ROUNDED:
            linears = found[canonical].linears[quantizer]
            assert list(linears) == list(recipe.linears[quantizer])
            for name, linear in recipe.linears[quantizer].items():
                assert torch.equal(linears[name].codes, linear.codes), (canonical, quantizer, name)
                assert torch.equal(linears[name].grid.scale, linear.grid.scale)
                assert linears[name].grid.stored.keys() == linear.grid.stored.keys()
                assert linears[name].type == linear.type


def test_finished_linears_are_taken_up(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "tiny", "llama")
    source = load_source_model(inspect_snapshot(folder), torch.device("cpu"))
    tokens = TokenSet(torch.randint(2, 60, (8, 12), generator=torch.Generator().manual_seed(1)))
    sketch = take(source, tokens, SketchSettings("a", 2, 0), tmp_path / "sketch")
    plans = [plan_recipe(parse_recipe(recipe), folder, source) for recipe in RECIPES]
    settings = RoundingSettings(0.01, 0.1, 1)
    expected = RecipeRounder(source.linears, sketch, settings, tmp_path / "undisturbed").round(plans)
    work = tmp_path / "ended"
    looks = 0

    def end_after_some() -> None:
        nonlocal looks
        looks += 1
        if looks == 60:
            raise Interrupted

    rounder = RecipeRounder(source.linears, sketch, settings, work, Monitor(check=end_after_some))
    with pytest.raises(Interrupted):
        rounder.round(plans)
    records = {path: path.stat().st_mtime_ns for path in work.glob("layer-*.json")}
    assert 0 < len(records) < len(source.linears)
    codes = {path: path.stat().st_mtime_ns for path in work.glob("0-*.codes")}
    reported: list[tuple[str, str]] = []
    again = replace(rounder, monitor=Monitor())
    found = again.round(plans, lambda name, recipe, errors: reported.append((name, recipe)))
    assert_same(found, expected)
    assert {path: path.stat().st_mtime_ns for path in records} == records
    assert codes and {path: path.stat().st_mtime_ns for path in codes} == codes
    assert len(set(reported)) == len(reported) == len(source.linears) * len(RECIPES)
    # Other dampings are another rounding.
    other = replace(again, settings=RoundingSettings(0.01, 1.0, 1)).round(plans)
    assert other.keys() == expected.keys()
    assert any(path.stat().st_mtime_ns != written for path, written in codes.items())
