"""What ``kl_table.py`` keeps on disk, so that a run that is cut off goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from yaqa_runner.grids.codebooks import codebook
from yaqa_runner.grids.grid import FixedGrid

Rounded = dict[str, tuple[torch.Tensor, FixedGrid]]
"""Codes ``[out, in]`` int16 and grid of every linear, by name."""
Row = dict[str, object]


def kept_rounding(path: Path, make: Callable[[], Rounded]) -> Rounded:
    """What an earlier run left at ``path``, or what ``make`` gives, which is then left there."""
    if not path.is_file():
        tensors: dict[str, torch.Tensor] = {}
        shapes: dict[str, str] = {}
        for name, (codes, grid) in make().items():
            narrow = torch.int8 if grid.maximum < 128 else torch.int16
            tensors |= {f"{name}|codes": codes.to(narrow), f"{name}|scale": grid.scale, f"{name}|offset": grid.offset}
            # Some of what a grid stores is its own scale; safetensors stores no shared memory.
            tensors |= {f"{name}|stored|{key}": value.clone() for key, value in grid.stored.items()}
            if grid.table is not None:
                tensors[f"{name}|table"] = grid.table.clone()
            book = None if grid.codebook is None else grid.codebook.name
            shapes[name] = json.dumps([grid.group, grid.minimum, grid.maximum, book])
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".partial")
        save_file({key: value.contiguous() for key, value in tensors.items()}, unfinished, shapes)
        unfinished.replace(path)
    found: Rounded = {}
    with safe_open(path, framework="pt") as file:
        keys = list(file.keys())
        for name, shape in file.metadata().items():
            group, minimum, maximum, book = json.loads(shape)
            prefix = f"{name}|stored|"
            stored = {key.removeprefix(prefix): file.get_tensor(key) for key in keys if key.startswith(prefix)}
            table = file.get_tensor(f"{name}|table") if f"{name}|table" in keys else None
            scale, offset = file.get_tensor(f"{name}|scale"), file.get_tensor(f"{name}|offset")
            words = None if book is None else codebook(book)
            grid = FixedGrid(scale, offset, group, minimum, maximum, stored, table, words)
            found[name] = file.get_tensor(f"{name}|codes").to(torch.int16), grid
    return found


class KeptRows:
    """Rows of the table, one JSON line each, by everything that they depend on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        self._rows: dict[str, Row] = {}
        for line in lines:
            entry = json.loads(line)
            self._rows[entry["of"]] = entry["row"]

    def row(self, of: str, make: Callable[[], Row]) -> Row:
        """The row of ``of``, measured by ``make`` where no run has yet."""
        if of not in self._rows:
            self._rows[of] = make()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps({"of": of, "row": self._rows[of]}) + "\n")
        return self._rows[of]


def mapped(path: Path, shape: tuple[int, ...], make: Callable[[], list[torch.Tensor]]) -> torch.Tensor:
    """A float32 tensor of ``shape`` that lies in the file ``path``: logits of a vocabulary are larger than a model."""
    size = 4 * int(torch.tensor(shape).prod())
    if not path.is_file() or path.stat().st_size != size:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".partial")
        with unfinished.open("wb") as stream:
            for part in make():
                part.float().contiguous().numpy().tofile(stream)
        unfinished.replace(path)
    return torch.from_file(str(path), shared=False, size=size // 4, dtype=torch.float32).view(shape)
