"""A folder in 16 bits of an original that is released in float8 or mxfp4: what everything else reads instead."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

from yaqa_runner.formats.safetensors_writer import PlannedTensor, write_safetensors
from yaqa_runner.formats.source import STORED_DTYPES
from yaqa_runner.model.snapshot import Snapshot, link_snapshot
from yaqa_runner.model.stored_form import BLOCKS, REMEDY, SCALE, SCALES, StoredForm
from yaqa_runner.model.stored_tensors import SafetensorsFiles
from yaqa_runner.model.weight_files import INDEX_FILE, weight_files
from yaqa_runner.protocol.failures import UnsupportedModel

_FLOATING = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


def decoded_original(snapshot: Snapshot, folder: Path) -> Snapshot:
    """``snapshot`` itself where its weights are plain; else one in ``folder``, decoded to the type its config names.

    What is stored plain stays byte for byte, and the other files are links. One tensor is in memory at a time.

    Raises:
        UnsupportedModel: a tensor is stored in a type that has no place in a decoded folder.
    """
    form = snapshot.form
    if form is None:
        return snapshot
    link_snapshot(snapshot, folder)
    for path in [*folder.glob("*.safetensors"), folder / INDEX_FILE, folder / "config.json"]:
        path.unlink(missing_ok=True)
    dtype = _decoded_type(snapshot.config)
    stored = SafetensorsFiles(snapshot.weight_files)
    with stored.opened() as give:
        read = _Stored(stored.names, give)
        write_safetensors(folder, [_planned(name, shape, read, form, dtype) for name, shape in snapshot.shapes.items()])
    config = {name: value for name, value in snapshot.config.items() if name != "quantization_config"}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return replace(snapshot, directory=folder, config=config, weight_files=weight_files(folder), form=None)


def _decoded_type(config: dict[str, Any]) -> torch.dtype:
    text = config.get("text_config")
    for part in (config, text if isinstance(text, dict) else {}):
        named = part.get("dtype", part.get("torch_dtype"))
        if named in _FLOATING:
            return _FLOATING[named]
    return torch.bfloat16


@dataclass(frozen=True)
class _Stored:
    """The tensors as they are stored: their names, and what gives a slice by its name."""

    names: Collection[str]
    give: Callable[[str], Any]

    def read(self, name: str) -> torch.Tensor:
        tensor: torch.Tensor = self.give(name)[...]
        return tensor


def _planned(name: str, shape: tuple[int, ...], stored: _Stored, form: StoredForm, dtype: torch.dtype) -> PlannedTensor:
    make: Callable[[], torch.Tensor]
    if f"{name}{BLOCKS}" in stored.names:
        make = lambda: decode_mxfp4(stored.read(f"{name}{BLOCKS}"), stored.read(f"{name}{SCALES}"), dtype)  # noqa: E731
        return PlannedTensor(name, dtype, shape, make)
    if f"{name}{SCALE}" in stored.names:
        make = lambda: decode_float8(stored.read(name), stored.read(f"{name}{SCALE}"), form.block, dtype)  # noqa: E731
        return PlannedTensor(name, dtype, shape, make)
    kind = str(stored.give(name).get_dtype())
    if kind not in STORED_DTYPES:
        raise UnsupportedModel(f"{name[:200]} is stored as {kind}, which is not {form.name}.", REMEDY)
    return PlannedTensor(name, STORED_DTYPES[kind], shape, lambda: stored.read(name))


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
