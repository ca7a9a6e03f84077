"""The layout of a model's GGUF file, as llama.cpp's converter gives it, and its form between two processes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from yaqa_runner.formats.gguf.arrangement import Arrangement

METADATA_FILE = "metadata.gguf"
_LAYOUT_FILE = "layout.json"
_ARRAYS_FILE = "arrays.safetensors"
_VALUES_FILE = "values.safetensors"


@dataclass(frozen=True)
class LayoutTensor:
    """A tensor of the file.

    Attributes:
        name: llama.cpp's name, for example ``blk.0.attn_q.weight``.
        shape: Rows before columns.
        full: Whether llama.cpp wants it in float32.
        sources: The checkpoint's tensors that it is made of.
        arrangement: How; ``None`` where it is more than a rearrangement, and the layout holds its values.
    """

    name: str
    shape: tuple[int, ...]
    full: bool
    sources: tuple[str, ...]
    arrangement: Arrangement | None


@dataclass(frozen=True)
class Layout:
    """A model's file but for the bits of its linears.

    Attributes:
        directory: Where the metadata and the values are.
        architecture: llama.cpp's name of it.
        tensors: In the file's order.
        dropped: Tensors of the checkpoint that the file does not have, with the reason.
        notes: What differs in the file from what the checkpoint says, for the card.
    """

    directory: Path
    architecture: str
    tensors: tuple[LayoutTensor, ...]
    dropped: dict[str, str]
    notes: tuple[str, ...]

    @property
    def metadata(self) -> Path:
        """A GGUF file without tensors, with every key of the header."""
        return self.directory / METADATA_FILE

    def value(self, name: str) -> torch.Tensor:
        """The values of a tensor that is no rearrangement, in the file's shape."""
        with safe_open(self.directory / _VALUES_FILE, framework="pt", device="cpu") as handle:
            tensor: torch.Tensor = handle.get_tensor(name)
            return tensor


def write_layout(
    directory: Path,
    architecture: str,
    tensors: tuple[LayoutTensor, ...],
    values: Mapping[str, torch.Tensor],
    dropped: Mapping[str, str],
    notes: tuple[str, ...],
) -> None:
    """Write what :func:`read_layout` reads; the metadata is written apart."""
    arrays: dict[str, torch.Tensor] = {}
    entries: list[dict[str, Any]] = []
    for number, tensor in enumerate(tensors):
        entry: dict[str, Any] = {
            "name": tensor.name,
            "shape": list(tensor.shape),
            "full": tensor.full,
            "sources": list(tensor.sources),
        }
        found = tensor.arrangement
        if found is not None:
            entry["arranged"] = {"sources": list(found.sources), "axis": found.axis}
            arrays[f"{number}.row_source"] = found.row_source
            arrays[f"{number}.row"] = found.row
            if found.column is not None:
                arrays[f"{number}.column"] = found.column
        entries.append(entry)
    save_file(arrays, directory / _ARRAYS_FILE)
    save_file({name: value.contiguous() for name, value in values.items()}, directory / _VALUES_FILE)
    document = {"architecture": architecture, "tensors": entries, "dropped": dict(dropped), "notes": list(notes)}
    (directory / _LAYOUT_FILE).write_text(json.dumps(document), encoding="utf-8")


def read_layout(directory: Path) -> Layout:
    """The layout that :func:`write_layout` left in ``directory``, which must stay as long as it is used."""
    document = json.loads((directory / _LAYOUT_FILE).read_text(encoding="utf-8"))
    tensors = []
    with safe_open(directory / _ARRAYS_FILE, framework="pt", device="cpu") as handle:
        names = set(handle.keys())
        for number, entry in enumerate(document["tensors"]):
            arranged = entry.get("arranged")
            arrangement = None
            if arranged is not None:
                column = f"{number}.column"
                arrangement = Arrangement(
                    tuple(arranged["sources"]),
                    int(arranged["axis"]),
                    handle.get_tensor(f"{number}.row_source"),
                    handle.get_tensor(f"{number}.row"),
                    handle.get_tensor(column) if column in names else None,
                )
            tensors.append(
                LayoutTensor(
                    entry["name"], tuple(entry["shape"]), bool(entry["full"]), tuple(entry["sources"]), arrangement
                )
            )
    return Layout(
        directory, document["architecture"], tuple(tensors), dict(document["dropped"]), tuple(document["notes"])
    )
