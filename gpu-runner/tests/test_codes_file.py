"""Codes in files come back as they were, and take no memory until they are looked at."""

from __future__ import annotations

from pathlib import Path

import psutil
import torch

from yaqa_runner.grids.symmetric import SymmetricGrid
from yaqa_runner.pipeline.codes_file import keep_grid_in_file, keep_in_file


def test_codes_come_back_also_without_their_file(tmp_path: Path) -> None:
    codes = torch.randint(-(1 << 15), 1 << 15, (37, 53), dtype=torch.int16)
    kept = keep_in_file(codes.T, tmp_path / "codes")
    assert kept.dtype == torch.int16 and torch.equal(kept, codes.T)
    content = (tmp_path / "codes").read_bytes()
    kept[0, 0] += 1
    assert (tmp_path / "codes").read_bytes() == content
    kept[0, 0] -= 1
    (tmp_path / "codes").unlink()
    assert torch.equal(kept, codes.T)


def test_codes_are_not_in_memory_until_they_are_looked_at(tmp_path: Path) -> None:
    size = 1 << 26
    codes = torch.ones(size // 2, dtype=torch.int16)
    process = psutil.Process()
    before = process.memory_info().rss
    kept = keep_in_file(codes, tmp_path / "codes")
    assert process.memory_info().rss - before < size / 4
    assert int(kept.sum()) == size // 2


def test_a_grid_comes_back_with_all_that_its_container_stores(tmp_path: Path) -> None:
    weight = torch.randn(7, 96, generator=torch.Generator().manual_seed(1))
    grid = SymmetricGrid(4, 32).fit(weight)
    grid.stored["zero"] = torch.arange(21, dtype=torch.uint8).reshape(7, 3)
    kept = keep_grid_in_file(grid, tmp_path / "grid")
    (tmp_path / "grid").unlink()
    assert kept.stored.keys() == grid.stored.keys() and kept.group == grid.group
    for key, value in grid.stored.items():
        assert kept.stored[key].dtype == value.dtype and torch.equal(kept.stored[key], value), key
    codes = grid.nearest(weight)
    assert torch.equal(kept.nearest(weight), codes) and torch.equal(kept.decode(codes), grid.decode(codes))
