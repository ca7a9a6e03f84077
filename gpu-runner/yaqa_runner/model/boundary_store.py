"""Hidden states and gradients between blocks, by sequence: in memory, or in files where they do not fit."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import torch


class BoundaryStore:
    """Rows (sequences) of named levels, in memory or in a file a level.

    All rows of a level have one shape and type. A level that was dropped is gone; in a folder, the others outlive the
    process, whole rows of them at any time.
    """

    def __init__(self, rows: int, folder: Path | None = None) -> None:
        """A store of ``rows`` rows a level, in memory, or in ``folder``, which is made."""
        self._rows = rows
        self._folder = folder
        self._levels: dict[str, _Level] = {}
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def put(self, level: str, first: int, values: torch.Tensor) -> None:
        """Keep ``values`` ``[b, …]`` as rows ``first`` and following of ``level``."""
        found = self._levels.get(level)
        if found is None:
            found = self._levels[level] = _Level(tuple(values.shape[1:]), values.dtype)
            if self._folder is None:
                found.held = torch.empty(self._rows, *values.shape[1:], dtype=values.dtype)
        values = values.detach().to("cpu")
        if found.held is not None:
            found.held[first : first + len(values)] = values
        else:
            _write_at(self._path(level), first * found.row_bytes, values)
        found.present.update(range(first, first + len(values)))

    def get(self, level: str, first: int, count: int) -> torch.Tensor:
        """Rows ``first`` and following of ``level``, ``[count, …]`` on the CPU; not to be written to.

        Raises:
            KeyError: they were not put.
        """
        found = self._levels[level]
        if not self.has(level, first, count):
            raise KeyError(f"rows {first} to {first + count} of {level}")
        if found.held is not None:
            return found.held[first : first + count]
        return _read_at(self._path(level), first * found.row_bytes, (count, *found.shape), found.dtype)

    def has(self, level: str, first: int, count: int) -> bool:
        """Whether rows ``first`` and following of ``level`` are there."""
        found = self._levels.get(level)
        return found is not None and all(row in found.present for row in range(first, first + count))

    def drop(self, level: str) -> None:
        """Free ``level``; one that is not there is none."""
        if self._levels.pop(level, None) is not None and self._folder is not None:
            self._path(level).unlink(missing_ok=True)

    def describe(self, level: str) -> tuple[tuple[int, ...], str]:
        """Shape and type of a row of ``level``, as :meth:`adopt` takes them."""
        found = self._levels[level]
        return found.shape, str(found.dtype).removeprefix("torch.")

    def adopt(self, level: str, shape: tuple[int, ...], dtype: str) -> bool:
        """Take up ``level`` with all its rows from a file that an earlier process left; whether it is there, whole."""
        if self._folder is None or not hasattr(torch, dtype):
            return False
        found = _Level(shape, getattr(torch, dtype))
        path = self._path(level)
        if not path.is_file() or path.stat().st_size != found.row_bytes * self._rows:
            return False
        found.present.update(range(self._rows))
        self._levels[level] = found
        return True

    def _path(self, level: str) -> Path:
        assert self._folder is not None
        return self._folder / f"{level}.rows"


@dataclass
class _Level:
    shape: tuple[int, ...]
    dtype: torch.dtype
    held: torch.Tensor | None = None
    present: set[int] = field(default_factory=set)

    @property
    def row_bytes(self) -> int:
        return torch.Size(self.shape).numel() * self.dtype.itemsize


def _write_at(path: Path, offset: int, values: torch.Tensor) -> None:
    data = _bytes_of(values.contiguous())
    handle = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        while len(data) > 0:
            written = os.pwrite(handle, data, offset)
            data, offset = data[written:], offset + written
    finally:
        os.close(handle)


def _read_at(path: Path, offset: int, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    values = torch.empty(shape, dtype=dtype)
    data = _bytes_of(values)
    handle = os.open(path, os.O_RDONLY)
    try:
        while len(data) > 0:
            read = os.preadv(handle, [data], offset)
            if read == 0:
                raise OSError(f"{path.name} ends before its rows do")
            data, offset = data[read:], offset + read
    finally:
        os.close(handle)
    return values


def _bytes_of(values: torch.Tensor) -> memoryview:
    """The memory of ``values``, which is contiguous and on the CPU."""
    return values.reshape(-1).view(torch.uint8).numpy().data
