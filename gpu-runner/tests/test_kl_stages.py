"""What a run of the table of KL keeps is what the next one finds."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from yaqa_runner.grids.asymmetric import AsymmetricGrid
from yaqa_runner.grids.gguf import gguf_grid
from yaqa_runner.grids.grid import Grid

STAGES = Path(__file__).parents[1] / "benchmarks" / "kl_stages.py"


@pytest.fixture(scope="module")
def stages() -> ModuleType:
    spec = importlib.util.spec_from_file_location("kl_stages", STAGES)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["kl_stages"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "grid", [AsymmetricGrid(2, 32), gguf_grid("q4_0"), gguf_grid("q8_0")], ids=lambda grid: grid.name
)
def test_codes_and_grids_come_back_and_are_made_once(stages: ModuleType, tmp_path: Path, grid: Grid) -> None:
    weight = torch.randn(8, 96, generator=torch.Generator().manual_seed(0))
    fixed = grid.fit(weight)
    codes = fixed.nearest(weight)
    made: list[int] = []

    def make() -> dict[str, object]:
        made.append(1)
        return {"model.layer": (codes, fixed)}

    for _ in range(2):
        found = stages.kept_rounding(tmp_path / "grid" / "quantizer.safetensors", make)
    assert made == [1]
    kept_codes, kept = found["model.layer"]
    assert torch.equal(kept_codes, codes)
    assert kept_codes.dtype == codes.dtype
    assert torch.equal(kept.decode(kept_codes), fixed.decode(codes))
    assert (kept.group, kept.minimum, kept.maximum) == (fixed.group, fixed.minimum, fixed.maximum)
    assert kept.stored.keys() == fixed.stored.keys()
    assert all(torch.equal(kept.stored[key], value) for key, value in fixed.stored.items())


def test_rows_are_measured_once_and_by_everything_they_depend_on(stages: ModuleType, tmp_path: Path) -> None:
    measured: list[str] = []

    def row(of: str) -> dict[str, object]:
        return stages.KeptRows(tmp_path / "kept" / "rows.jsonl").row(
            of, lambda: measured.append(of) or {"klNats": len(of)}
        )

    assert [row("a"), row("bc"), row("a")] == [{"klNats": 1}, {"klNats": 2}, {"klNats": 1}]
    assert measured == ["a", "bc"]


def test_a_file_of_another_size_is_written_anew(stages: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "original.f32"
    path.write_bytes(b"cut")
    values = torch.randn(3, 4)
    assert torch.equal(stages.mapped(path, (3, 4), lambda: list(values.split(2))), values)
    assert torch.equal(stages.mapped(path, (3, 4), list), values)
