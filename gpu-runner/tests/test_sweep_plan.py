"""The sweep's plan against the cases that the bot's planner is held to as well."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from yaqa_runner.model.linears import LinearLayer
from yaqa_runner.sketches.settings import SketchSettings
from yaqa_runner.sketches.sweep_plan import plan_sweep

CASES: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[2] / "test/contract/sweep-plans.json").read_text(encoding="utf-8")
)


def planned(case: dict[str, Any]) -> dict[str, Any]:
    """What a case expects, as the runner plans it."""
    settings = SketchSettings("a", case["iterations"], 0, case["labelSamples"])
    blocks: list[list[LinearLayer]] = []
    inputs: dict[str, str] = {}
    for number, parts in enumerate(case["blocks"]):
        linears: list[LinearLayer] = []
        for part, entry in enumerate(parts):
            for time in range(entry["times"]):
                for place, (rows, columns, source) in enumerate(entry["linears"]):
                    name = f"{number}.{part}.{time}.{place}"
                    linears.append(LinearLayer(name, nn.Identity(), number, rows, columns, name))
                    inputs[name] = f"{number}.{part}.{time}.{source}"
        blocks.append(linears)
    plan = plan_sweep(
        [linear for linears in blocks for linear in linears],
        blocks=case["blockCount"],
        token_bytes=case["tokenBytes"],
        sequences=case["sequences"],
        length=case["length"],
        settings=settings,
        budget=case["budgetBytes"],
        device=torch.device(case["device"]),
        disk_bytes=case["diskBytes"],
    )
    windows = []
    for linears in blocks:
        found = plan.windows(linears, {linear.name: inputs[linear.name] for linear in linears})
        windows.append([[window.mode, len(window.layers)] for window in found])
    return {
        "store": plan.store,
        "storeBytes": plan.store_bytes,
        "batch": plan.batch,
        "activationBytes": plan.activation_bytes,
        "pairsBytes": plan.pairs_bytes,
        "windows": windows,
    }


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["name"]))
def test_the_plan_is_that_of_the_bots_planner(case: dict[str, Any]) -> None:
    assert planned(case) == case["expected"]
