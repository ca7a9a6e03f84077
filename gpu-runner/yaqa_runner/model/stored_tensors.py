"""Tensors that are read from the disk one at a time."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

from safetensors import safe_open


class StoredTensors(Protocol):
    """A model's tensors by the names that its checkpoint gives them."""

    @property
    def names(self) -> Collection[str]:
        """All of them."""

    @contextmanager
    def opened(self) -> Iterator[Callable[[str], Any]]:
        """Gives a tensor by its name, or what gives it when it is indexed, for as long as this lasts.

        Raises:
            OSError: the files cannot be read.
        """

    def fetch(self, names: Collection[str]) -> None:
        """These will be asked for next."""


class SafetensorsFiles:
    """The tensors of safetensors files as they are."""

    def __init__(self, files: tuple[Path, ...]) -> None:
        self._files: dict[str, Path] = {}
        for path in files:
            with safe_open(path, framework="pt", device="cpu") as handle:
                self._files.update((name, path) for name in handle.keys())  # noqa: SIM118
        self._ranges = {path: _tensor_ranges(path) for path in files}

    @property
    def names(self) -> Collection[str]:
        """All of them."""
        return self._files.keys()

    @contextmanager
    def opened(self) -> Iterator[Callable[[str], Any]]:
        """Gives slices; each file is opened when it is first asked for."""
        with ExitStack() as stack:
            handles: dict[Path, Any] = {}

            def give(name: str) -> Any:
                path = self._files[name]
                if path not in handles:
                    handles[path] = stack.enter_context(safe_open(path, framework="pt", device="cpu"))
                return handles[path].get_slice(name)

            yield give

    def fetch(self, names: Collection[str]) -> None:
        """Let the system read them ahead, where it can be told to."""
        if not hasattr(os, "posix_fadvise"):
            return
        for name in names:
            path = self._files[name]
            start, length = self._ranges[path][name]
            handle = os.open(path, os.O_RDONLY)
            try:
                os.posix_fadvise(handle, start, length, os.POSIX_FADV_WILLNEED)
            finally:
                os.close(handle)


def _tensor_ranges(path: Path) -> dict[str, tuple[int, int]]:
    """First byte and length of every tensor of a safetensors file."""
    with path.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(size))
    return {
        name: (8 + size + entry["data_offsets"][0], entry["data_offsets"][1] - entry["data_offsets"][0])
        for name, entry in header.items()
        if name != "__metadata__"
    }
