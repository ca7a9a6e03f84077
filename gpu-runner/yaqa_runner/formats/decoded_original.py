"""A folder in 16 bits of an original that is released in float8 or mxfp4: what everything else reads instead."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

from yaqa_runner.formats.safetensors_writer import PlannedTensor, write_safetensors
from yaqa_runner.formats.source import STORED_DTYPES
from yaqa_runner.model.snapshot import Snapshot, link_snapshot
from yaqa_runner.model.stored_form import BLOCKS, SCALE, SCALES, StoredForm
from yaqa_runner.model.weight_files import INDEX_FILE, weight_files

_FLOATING = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


def decoded_original(snapshot: Snapshot, folder: Path) -> Snapshot:
    """``snapshot`` itself where its weights are plain; else one in ``folder``, decoded to the type its config names.

    What is stored plain stays byte for byte, and the other files are links. One tensor is in memory at a time.
    """
    form = snapshot.form
    if form is None:
        return snapshot
    link_snapshot(snapshot, folder)
    for path in [*folder.glob("*.safetensors"), folder / INDEX_FILE, folder / "config.json"]:
        path.unlink(missing_ok=True)
    files = _Files(snapshot.weight_files)
    dtype = _decoded_type(snapshot.config)
    write_safetensors(folder, [_planned(name, shape, files, form, dtype) for name, shape in snapshot.shapes.items()])
    config = {name: value for name, value in snapshot.config.items() if name != "quantization_config"}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return replace(snapshot, directory=folder, config=config, weight_files=weight_files(folder), form=None)


class _Files:
    """The tensors of the stored files, by name."""

    def __init__(self, paths: tuple[Path, ...]) -> None:
        self._handles: dict[str, Any] = {}
        for path in paths:
            handle: Any = safe_open(path, framework="pt", device="cpu")
            self._handles.update((name, handle) for name in handle.keys())  # noqa: SIM118

    def __contains__(self, name: str) -> bool:
        return name in self._handles

    def kind(self, name: str) -> str:
        return str(self._handles[name].get_slice(name).get_dtype())

    def read(self, name: str) -> torch.Tensor:
        tensor: torch.Tensor = self._handles[name].get_tensor(name)
        return tensor


def _decoded_type(config: dict[str, Any]) -> torch.dtype:
    text = config.get("text_config")
    for part in (config, text if isinstance(text, dict) else {}):
        named = part.get("dtype", part.get("torch_dtype"))
        if named in _FLOATING:
            return _FLOATING[named]
    return torch.bfloat16


def _planned(name: str, shape: tuple[int, ...], files: _Files, form: StoredForm, dtype: torch.dtype) -> PlannedTensor:
    make: Callable[[], torch.Tensor]
    if f"{name}{BLOCKS}" in files:
        make = lambda: decode_mxfp4(files.read(f"{name}{BLOCKS}"), files.read(f"{name}{SCALES}"), dtype)  # noqa: E731
        return PlannedTensor(name, dtype, shape, make)
    if f"{name}{SCALE}" in files:
        make = lambda: decode_float8(files.read(name), files.read(f"{name}{SCALE}"), form.block, dtype)  # noqa: E731
        return PlannedTensor(name, dtype, shape, make)
    return PlannedTensor(name, STORED_DTYPES[files.kind(name)], shape, lambda: files.read(name))


def decode_float8(
    codes: torch.Tensor, scale: torch.Tensor, block: tuple[int, int] | None, dtype: torch.dtype
) -> torch.Tensor:
    """``[…, rows, columns]`` of ``dtype``: each code times the scale of its block, rounded once.

    transformers' own divides the matrix by the number of scales, which is the block only where it divides the matrix:
    DeepSeek's ``kv_a_proj_with_mqa`` of 576 rows has five blocks, the last of them half.
    """
    values, scales = codes.to(torch.float32), scale.to(torch.float32)
    if block is None:
        return (values * scales.reshape(())).to(dtype)
    rows, columns = values.shape[-2:]
    spread = scales.repeat_interleave(block[0], dim=-2)[..., :rows, :]
    # In place: the largest matrices take gigabytes.
    for start in range(0, columns, block[1]):
        place = start // block[1]
        values[..., start : start + block[1]] *= spread[..., place : place + 1]
    return values.to(dtype)


def decode_mxfp4(blocks: torch.Tensor, scales: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """``[experts, inputs, outputs]`` as gpt-oss computes with, of ``[experts, outputs, groups, 16]`` bytes."""
    decoded: torch.Tensor = convert_moe_packed_tensors(blocks, scales, dtype=dtype)
    return decoded
