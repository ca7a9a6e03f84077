"""Safetensors files written one tensor at a time, in shards."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

SHARD_BYTES = 5_000_000_000
_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint32: "U32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
    torch.float8_e4m3fn: "F8_E4M3",
}


@dataclass(frozen=True)
class PlannedTensor:
    """A tensor whose bytes are made when their turn comes."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    make: Callable[[], torch.Tensor]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def write_safetensors(
    output: Path, tensors: list[PlannedTensor], shard_bytes: int = SHARD_BYTES, form: str = "pt"
) -> list[Path]:
    """Write ``model.safetensors``, or shards with an index as transformers names them.

    ``form`` is the library that the header names: ``pt``, ``mlx``.

    Peak memory is one tensor. Bytes depend on the tensors only.
    """
    shards: list[list[PlannedTensor]] = [[]]
    size = 0
    for tensor in tensors:
        if shards[-1] and size + tensor.nbytes > shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(tensor)
        size += tensor.nbytes
    if len(shards) == 1:
        path = output / "model.safetensors"
        _write_file(path, shards[0], form)
        return [path]
    paths = []
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        path = output / f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        _write_file(path, shard, form)
        paths.append(path)
        weight_map.update({tensor.name: path.name for tensor in shard})
    index = output / "model.safetensors.index.json"
    total = sum(tensor.nbytes for tensor in tensors)
    index.write_text(
        json.dumps({"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}, indent=2)
        + "\n",
        encoding="utf-8",
    )
    return [*paths, index]


def _write_file(path: Path, tensors: list[PlannedTensor], form: str) -> None:
    # Widest first, as the format's own writer does, so that every tensor is aligned.
    ordered = sorted(tensors, key=lambda tensor: (-tensor.dtype.itemsize, tensor.name))
    header: dict[str, object] = {"__metadata__": {"format": form}}
    offset = 0
    for tensor in ordered:
        end = offset + tensor.nbytes
        header[tensor.name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for tensor in ordered:
            made = tensor.make()
            if tuple(made.shape) != tensor.shape or made.dtype != tensor.dtype:
                raise ValueError(
                    f"{tensor.name}: planned {tensor.shape} {tensor.dtype}, made {made.shape} {made.dtype}"
                )
            file.write(made.contiguous().reshape(-1).view(torch.uint8).numpy().data)
