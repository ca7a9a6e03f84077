"""Codes in files come back as they were, and take no memory until they are looked at."""

from __future__ import annotations

from pathlib import Path

import psutil
import torch

from yaqa_runner.pipeline.codes_file import keep_in_file


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
