"""Codes and scales in files: those of all quantizers are several times the model, and memory is for one layer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from yaqa_runner.grids.grid import FixedGrid

# Where a tensor begins in a file, for whatever its numbers are.
_ALIGNMENT = 64


def keep_in_file(codes: torch.Tensor, path: Path) -> torch.Tensor:
    """``codes`` int16, CPU, moved to ``path``, of which the result is a view.

    It is read when it is looked at, and the system takes its pages back where memory is short. Writing to the result
    changes no file; the file may be deleted while the result is in use.

    Raises:
        OSError: the disk is full, or the folder cannot be written to.
    """
    path.write_bytes(codes.contiguous().numpy().data)
    return torch.from_file(str(path), shared=False, size=codes.numel(), dtype=torch.int16).view(codes.shape)


def keep_grid_in_file(grid: FixedGrid, path: Path) -> FixedGrid:
    """``grid``, on the CPU, with its scales and what the container stores moved to ``path``; as :func:`keep_in_file`.

    Raises:
        OSError: the disk is full, or the folder cannot be written to.
    """
    tensors = {"scale": grid.scale, "offset": grid.offset, **{f"stored {key}": grid.stored[key] for key in grid.stored}}
    starts: dict[str, int] = {}
    size = 0
    with path.open("wb") as file:
        for name, tensor in tensors.items():
            size += file.write(bytes(-size % _ALIGNMENT))
            starts[name] = size
            size += file.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    mapped = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)

    def kept(name: str, tensor: torch.Tensor) -> torch.Tensor:
        part = mapped[starts[name] : starts[name] + tensor.numel() * tensor.element_size()]
        return part.view(tensor.dtype).view(tensor.shape)

    found = {name: kept(name, tensor) for name, tensor in tensors.items()}
    stored = {key: found[f"stored {key}"] for key in grid.stored}
    return replace(grid, scale=found["scale"], offset=found["offset"], stored=stored)
