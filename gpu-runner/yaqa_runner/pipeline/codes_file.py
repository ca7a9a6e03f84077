"""Codes and scales in files: those of all quantizers are several times the model, and memory is for one layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch

from yaqa_runner.grids.codebooks import codebook
from yaqa_runner.grids.grid import FixedGrid
from yaqa_runner.wire_model import WireModel

# Where a tensor begins in a file, for whatever its numbers are.
_ALIGNMENT = 64
_STORED = "stored "


def keep_in_file(codes: torch.Tensor, path: Path) -> torch.Tensor:
    """``codes`` int16, CPU, moved to ``path``, of which the result is a view.

    It is read when it is looked at, and the system takes its pages back where memory is short. Writing to the result
    changes no file; the file may be deleted while the result is in use.

    Raises:
        OSError: the disk is full, or the folder cannot be written to.
    """
    path.write_bytes(codes.contiguous().numpy().data)
    return codes_in_file(path, codes.shape)


def codes_in_file(path: Path, shape: Sequence[int]) -> torch.Tensor:
    """The codes that :func:`keep_in_file` moved to ``path``, ``shape`` being theirs."""
    codes = torch.from_file(str(path), shared=False, size=math.prod(shape), dtype=torch.int16)
    return codes.view(*shape)


def keep_grid_in_file(grid: FixedGrid, path: Path) -> FixedGrid:
    """``grid``, on the CPU, with its scales and what the container stores moved to ``path``; as :func:`keep_in_file`.

    Raises:
        OSError: the disk is full, or the folder cannot be written to.
    """
    size = 0
    with path.open("wb") as file:
        for tensor in _tensors_of(grid).values():
            size += file.write(bytes(-size % _ALIGNMENT))
            size += file.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return grid_in_file(path, describe_grid(grid))


def grid_in_file(path: Path, known: GridDescription) -> FixedGrid:
    """The grid that :func:`keep_grid_in_file` moved to ``path``, as :func:`describe_grid` described it."""
    mapped = torch.from_file(str(path), shared=False, size=path.stat().st_size, dtype=torch.uint8)
    found: dict[str, torch.Tensor] = {}
    start = 0
    for name, (kind, shape) in known.tensors.items():
        start += -start % _ALIGNMENT
        dtype: torch.dtype = getattr(torch, kind)
        stop = start + math.prod(shape) * dtype.itemsize
        found[name] = mapped[start:stop].view(dtype).view(*shape)
        start = stop
    stored = {name.removeprefix(_STORED): tensor for name, tensor in found.items() if name.startswith(_STORED)}
    table = None if known.table is None else torch.tensor(known.table)
    book = None if known.codebook is None else codebook(known.codebook)
    return FixedGrid(found["scale"], found["offset"], known.group, known.minimum, known.maximum, stored, table, book)


class GridDescription(WireModel):
    """What of a grid is in no file: its few numbers, its codebook's name, its tensors' types and shapes in order."""

    group: int
    minimum: int
    maximum: int
    table: list[float] | None
    codebook: str | None
    tensors: dict[str, tuple[str, list[int]]]


def describe_grid(grid: FixedGrid) -> GridDescription:
    """The description of ``grid``, by which :func:`grid_in_file` reads it."""
    tensors = {
        name: (str(tensor.dtype).removeprefix("torch."), list(tensor.shape))
        for name, tensor in _tensors_of(grid).items()
    }
    table = None if grid.table is None else grid.table.tolist()
    return GridDescription(
        group=grid.group,
        minimum=grid.minimum,
        maximum=grid.maximum,
        table=table,
        codebook=None if grid.codebook is None else grid.codebook.name,
        tensors=tensors,
    )


def _tensors_of(grid: FixedGrid) -> dict[str, torch.Tensor]:
    return {"scale": grid.scale, "offset": grid.offset, **{f"{_STORED}{key}": grid.stored[key] for key in grid.stored}}
