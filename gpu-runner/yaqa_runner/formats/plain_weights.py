"""The tensors a safetensors container keeps as the checkpoint has them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection
from pathlib import Path

import torch
from safetensors import safe_open
from transformers import PreTrainedModel

from yaqa_runner.formats.safetensors_writer import PlannedTensor
from yaqa_runner.formats.source import ExportError, SourceSnapshot
from yaqa_runner.model.weight_files import SHARD_NAME
from yaqa_runner.protocol.manifest import UnquantizedWeight

_VOCABULARY = re.compile(r"(embed|wte|wpe|lm_head)")


def require_all(snapshot: SourceSnapshot, linears: Collection[str]) -> None:
    """Raise :class:`ExportError` for a linear the checkpoint has no weight of."""
    for name in sorted(linears):
        if f"{name}.weight" not in snapshot:
            raise ExportError(f"The checkpoint has no weight for {name[:200]!r}.")


_EXPERT = re.compile(r"(.+\.experts)\.\d+\.(?:gate_proj|up_proj|down_proj|w1|w2|w3)$")


def is_expert(name: str) -> bool:
    """Whether ``name`` is a matrix of one expert, as checkpoints of mixtures call them."""
    return _EXPERT.match(name) is not None


def routers(snapshot: SourceSnapshot) -> set[str]:
    """Routers of a mixture of experts: no ``nn.Linear`` in transformers, but linears in the servers."""
    lists = {found.group(1) for name in snapshot.names() if (found := _EXPERT.match(name.removesuffix(".weight")))}
    candidates = (f"{name.removesuffix('.experts')}.gate" for name in lists)
    return {name for name in candidates if f"{name}.weight" in snapshot}


def refuse_unpacked_experts(model: PreTrainedModel, snapshot: SourceSnapshot, linears: Collection[str]) -> None:
    """Raise :class:`ExportError` for a mixture whose experts are not quantized, every one of them.

    transformers reads the experts of a packed folder from packed tensors only and makes up what it does not find, so
    a folder with experts in 16 bits would load and answer nonsense.
    """
    if not any(parameter.ndim == 3 and "expert" in name for name, parameter in model.named_parameters()):
        return
    stored = {name.removesuffix(".weight") for name in snapshot.names() if is_expert(name.removesuffix(".weight"))}
    if not stored or stored - set(linears):
        raise ExportError(
            "A mixture of experts is written in this format only when every expert is quantized: its 16-bit experts "
            "would not load. Choose a group that divides the experts' widths."
        )


def plain_tensors(snapshot: SourceSnapshot, linears: Collection[str]) -> list[PlannedTensor]:
    """Every tensor that is no quantized weight, byte for byte; the output layer is left out where it is tied."""
    replaced = {f"{name}.weight" for name in linears}
    planned = []
    for name in snapshot.names():
        if name in replaced or snapshot.is_tied_copy(name):
            continue
        planned.append(PlannedTensor(name, snapshot.stored_dtype(name), snapshot.shape(name), _reader(snapshot, name)))
    return planned


def _reader(snapshot: SourceSnapshot, name: str) -> Callable[[], torch.Tensor]:
    return lambda: snapshot.read(name)


def unquantized_weights(snapshot: SourceSnapshot, linears: Collection[str]) -> list[UnquantizedWeight]:
    """Matrices outside ``linears`` with the checkpoint's own type."""
    replaced = {f"{name}.weight" for name in linears}
    result = []
    for name in snapshot.names():
        if name in replaced or snapshot.is_tied_copy(name) or len(snapshot.shape(name)) < 2:
            continue
        reason = "embedding or output layer, kept as it was" if _VOCABULARY.search(name) else "not quantized"
        result.append(
            UnquantizedWeight(name=name, type=str(snapshot.stored_dtype(name)).removeprefix("torch."), reason=reason)
        )
    return result


def weight_file_of(directory: Path, name: str) -> Path:
    """The safetensors file in ``directory`` that holds tensor ``name``."""
    index = directory / "model.safetensors.index.json"
    if index.is_file():
        file = str(json.loads(index.read_text(encoding="utf-8"))["weight_map"].get(name, ""))
        if SHARD_NAME.fullmatch(file) is None:
            raise ExportError(f"The index names no file for {name[:200]!r}.")
        return directory / file
    path = directory / "model.safetensors"
    with safe_open(path, framework="pt", device="cpu") as handle:
        names = handle.keys()
        if name not in names:
            raise ExportError(f"{path.name} has no tensor {name[:200]!r}.")
    return path
