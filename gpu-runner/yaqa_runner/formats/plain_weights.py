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
from yaqa_runner.formats.torch_reference import empty_model
from yaqa_runner.model.stored_names import Renaming, stored_names
from yaqa_runner.model.weight_files import SHARD_NAME
from yaqa_runner.protocol.manifest import UnquantizedWeight

_VOCABULARY = re.compile(r"(embed|wte|wpe|lm_head)")
_OUTPUT_LAYER = "lm_head.weight"

_EXPERT = re.compile(r"(.+\.experts)\.\d+\.(\w+)$")
# What one of an expert's matrices is a part of, where the checkpoint keeps experts fused.
_FUSED = {"gate_proj": "gate_up_proj", "up_proj": "gate_up_proj", "down_proj": "down_proj"}


def is_expert(name: str) -> bool:
    """Whether ``name`` is a matrix of one expert, as checkpoints of mixtures call them."""
    return _EXPERT.match(name) is not None


def routers(snapshot: SourceSnapshot) -> set[str]:
    """Routers of a mixture of experts: no ``nn.Linear`` in transformers, but linears in the servers."""
    lists = {found.group(1) for name in snapshot.names() if (found := _EXPERT.match(name.removesuffix(".weight")))}
    candidates = (f"{name.removesuffix('.experts')}.gate" for name in lists)
    return {name for name in candidates if f"{name}.weight" in snapshot}


def replaced_tensors(snapshot: SourceSnapshot, linears: Collection[str]) -> dict[str, set[str]]:
    """The checkpoint's tensors that ``linears`` take the place of, each with its linears.

    Raises:
        ExportError: The checkpoint has no weight of a linear.
    """
    replaced: dict[str, set[str]] = {}
    for name in sorted(linears):
        tensor = _tensor_of(snapshot, name)
        if tensor is None:
            raise ExportError(f"The checkpoint has no weight for {name[:200]!r}.")
        replaced.setdefault(tensor, set()).add(name)
    return replaced


def _tensor_of(snapshot: SourceSnapshot, name: str) -> str | None:
    if f"{name}.weight" in snapshot:
        return f"{name}.weight"
    found = _EXPERT.match(name)
    fused = None if found is None else _FUSED.get(found.group(2))
    tensor = None if found is None or fused is None else f"{found.group(1)}.{fused}"
    return tensor if tensor is not None and tensor in snapshot else None


def storable_linears(snapshot: SourceSnapshot, model: PreTrainedModel, linears: Collection[str]) -> set[str]:
    """Those of ``linears`` that a folder can hold and transformers loads from it.

    An expert's matrix that the checkpoint keeps fused with others is one where transformers takes experts one by one as
    well, and where all that it is fused with is quantized too.
    """
    known = {name for name in linears if _tensor_of(snapshot, name) is not None}
    renaming = Renaming(model)
    storable = set()
    for tensor, names in replaced_tensors(snapshot, known).items():
        if tensor.endswith(".weight") or (
            all(renaming.target(f"{name}.weight")[1] is not None for name in names)
            and len(names) == snapshot.shape(tensor)[0] * (2 if tensor.endswith(".gate_up_proj") else 1)
        ):
            storable |= names
    return storable


def loaded_paths(snapshot: SourceSnapshot, model: PreTrainedModel, linears: Collection[str]) -> dict[str, str]:
    """The module that transformers loads each of ``linears`` into; experts, which have none, go by their own name."""
    renaming = Renaming(model)
    return {
        name: name if is_expert(name) else renaming.target(f"{name}.weight")[0].removesuffix(".weight")
        for name in linears
    }


def stored_modules(snapshot: SourceSnapshot, model: PreTrainedModel, paths: Collection[str]) -> set[str]:
    """What the checkpoint calls the modules ``paths``: servers read names there."""
    return {
        stored.removesuffix(".weight")
        for loaded, stored in stored_names(model, snapshot.names()).items()
        if loaded.removesuffix(".weight") in paths
    }


def refuse_unpacked_experts(model: PreTrainedModel, snapshot: SourceSnapshot, linears: Collection[str]) -> None:
    """Raise :class:`ExportError` for a mixture with experts that would not load.

    Where transformers puts fused experts together from an expert's matrices, it looks for packed ones alone in a packed
    folder and makes up what it does not find: one in 16 bits would load and answer nonsense.
    """
    sources = Renaming(model).sources(snapshot.names())
    for parts in sources.values():
        names = {name.removesuffix(".weight") for group in parts.values() for name in group}
        if all("experts" in pattern for pattern in parts) and names - set(linears):
            raise ExportError(
                "A mixture of experts is written in this format only when every expert is quantized: those in 16 bits "
                "would not load. Choose a group that divides the experts' widths."
            )


def plain_tensors(snapshot: SourceSnapshot, linears: Collection[str]) -> list[PlannedTensor]:
    """Every tensor that is no quantized weight, byte for byte; the output layer is left out where it is tied.

    The output layer is called as transformers' module is. GPT-NeoX's checkpoints call it ``embed_out``, which gptqmodel
    7.7 and vLLM 0.32 do not find: gptqmodel then answers by the random numbers that it was made with.
    """
    replaced = replaced_tensors(snapshot, linears)
    renaming = Renaming(empty_model(snapshot.config))
    planned = []
    for name in snapshot.names():
        if name in replaced or snapshot.is_tied_copy(name):
            continue
        # A prefix before it is the same module's in an image-text model, whose servers know it.
        is_renamed = renaming.target(name)[0] == _OUTPUT_LAYER and not name.endswith(_OUTPUT_LAYER)
        written = _OUTPUT_LAYER if is_renamed else name
        kind, shape = snapshot.stored_dtype(name), snapshot.shape(name)
        planned.append(PlannedTensor(written, kind, shape, _reader(snapshot, name)))
    return planned


def _reader(snapshot: SourceSnapshot, name: str) -> Callable[[], torch.Tensor]:
    return lambda: snapshot.read(name)


def unquantized_weights(snapshot: SourceSnapshot, linears: Collection[str]) -> list[UnquantizedWeight]:
    """Matrices outside ``linears`` with the checkpoint's own type."""
    replaced = replaced_tensors(snapshot, linears)
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
