"""Quantized models as anybody leaves them: what they are is found in the files, not told.

A folder of ours says in its manifest what made it. Others' are known by their own marks: a GGUF file by its header, an
ONNX graph by its name, a folder of safetensors by ``quantization_config`` or ``quantization`` of its ``config.json``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import torch

from yaqa_runner.formats.container import ReferenceModel
from yaqa_runner.formats.gguf.container import GgufContainer, read_tensors, shards_of
from yaqa_runner.formats.source import ExportError

_GGUF_KEY = "general.file_type"
_GPTQ_BITS = (2, 3, 4, 8)


@dataclass(frozen=True)
class FinishedFiles:
    """A quantized model on disk.

    Attributes:
        path: As it was named.
        label: What it says it is: ``Q4_K_M``, ``GPTQ, 4 bits``.
        weights: The files that hold its weights.
        load: Opens it on a device, beside the snapshot of its original, whole or block by block.
    """

    path: Path
    label: str
    weights: tuple[Path, ...]
    load: Callable[[str, Path, bool], ReferenceModel]

    @property
    def size(self) -> int:
        """Bytes of the weights' files."""
        return sum(path.stat().st_size for path in self.weights)


def find_finished_files(path: Path) -> FinishedFiles:
    """What ``path`` holds: a GGUF file, one of its parts, an ONNX graph, or a folder with a quantized model.

    Nothing is computed: headers and configurations are read.

    Raises:
        ExportError: there is none, there are several, or nothing here reads its format.
    """
    if path.is_file():
        if path.suffix == ".gguf":
            return _gguf(path, path)
        if path.suffix == ".onnx":
            return _onnx(path, path)
        raise ExportError(f"{path.name} is neither a GGUF file nor an ONNX graph.")
    if not path.is_dir():
        raise ExportError(f"There is no {path}.")
    models = sorted({shards_of(file)[0] for file in path.glob("*.gguf") if _is_model(file)})
    if models:
        return _gguf(path, _only(path, models))
    graphs = sorted([*path.glob("*.onnx"), *path.glob("onnx/*.onnx")])
    if graphs:
        return _onnx(path, _only(path, graphs))
    return _safetensors(path)


def _only(path: Path, found: list[Path]) -> Path:
    if len(found) > 1:
        names = ", ".join(str(file.relative_to(path)) for file in found[:6])
        raise ExportError(f"{path.name} holds {len(found)} models: name one of {names}.")
    return found[0]


def _is_model(file: Path) -> bool:
    """Not a projector or an importance matrix, which lie beside models."""
    return not file.name.startswith("mmproj-") and "imatrix" not in file.name


def _gguf(path: Path, file: Path) -> FinishedFiles:
    shards = shards_of(file)
    try:
        reader = gguf.GGUFReader(shards[0])
        field = reader.fields.get(_GGUF_KEY)
        label = gguf.LlamaFileType(field.contents()).name.removeprefix("MOSTLY_") if field is not None else "GGUF"
        read_tensors(file)
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise ExportError(f"{file.name} cannot be read as GGUF: {error}") from error

    def load(device: str, source: Path, by_blocks: bool) -> ReferenceModel:
        # The type is one of ours, for its name alone: every tensor says for itself which it has.
        return GgufContainer("q8_0").load(file, device, source, by_blocks)

    return FinishedFiles(path, label, shards, load)


def _onnx(path: Path, file: Path) -> FinishedFiles:
    from yaqa_runner.formats.onnx.container import OnnxReferenceModel

    beside = sorted(file.parent.glob(f"{file.name}_data*")) or sorted(file.parent.glob(f"{file.name}.data"))
    return FinishedFiles(
        path, f"ONNX, {file.stem}", (file, *beside), lambda device, source, by_blocks: OnnxReferenceModel(file, device)
    )


def _safetensors(path: Path) -> FinishedFiles:
    weights = tuple(sorted(path.glob("*.safetensors")))
    try:
        config = json.loads((path / "config.json").read_bytes())
    except (OSError, ValueError) as error:
        raise ExportError(f"{path.name} holds no GGUF file, no ONNX graph and no readable config.json.") from error
    if not weights:
        raise ExportError(f"{path.name} holds a config.json, but no safetensors.")
    settings = config.get("quantization_config") or {}
    method = str(settings.get("quant_method") or "")
    if method == "gptq":
        return _gptq(path, weights, settings)
    if not method and isinstance(config.get("quantization"), dict):
        return _mlx(path, weights)
    from yaqa_runner.formats.compressed_tensors.container import CompressedTensorsContainer, is_read_by_blocks
    from yaqa_runner.formats.compressed_tensors.integer_form import IntegerForm

    if method == "compressed-tensors":
        label = f"compressed-tensors, {re.sub(r'[^a-z0-9, .-]', '', _compressed_label(settings))}"
    elif method:
        label = method[:40]
    else:
        label = f"{config.get('dtype') or config.get('torch_dtype') or 'unquantized'}"

    def load(device: str, source: Path, by_blocks: bool) -> ReferenceModel:
        try:
            # Other libraries' formats are many, and decoded by transformers alone.
            own = by_blocks and (not method or is_read_by_blocks(settings))
            return CompressedTensorsContainer(IntegerForm(4, 128)).load(path, device, by_blocks=own)
        except (ImportError, ValueError, KeyError, NotImplementedError, RuntimeError) as error:
            raise ExportError(f"transformers does not open {path.name} ({label}): {error}") from error

    return FinishedFiles(path, label, weights, load)


def _gptq(path: Path, weights: tuple[Path, ...], settings: dict[str, Any]) -> FinishedFiles:
    from yaqa_runner.formats.gptq.container import GptqContainer

    bits = settings.get("bits")
    form = settings.get("checkpoint_format") or settings.get("format") or "gptq"
    if bits not in _GPTQ_BITS or form != "gptq":
        raise ExportError(f"{path.name} is GPTQ of {bits} bits in the form {form!r}; read are 2, 3, 4 and 8 in 'gptq'.")
    return FinishedFiles(
        path,
        f"GPTQ, {bits} bits",
        weights,
        lambda device, source, by_blocks: GptqContainer(bits, 128).load(path, device, by_blocks=by_blocks),
    )


def _mlx(path: Path, weights: tuple[Path, ...]) -> FinishedFiles:
    from yaqa_runner.formats.mlx.container import MlxContainer, stored_settings

    bits = stored_settings(path)["bits"]
    return FinishedFiles(
        path,
        f"MLX, {bits} bits",
        weights,
        lambda device, source, by_blocks: MlxContainer(4, 64).load(path, device, by_blocks=by_blocks),
    )


def _compressed_label(settings: dict[str, Any]) -> str:
    groups = settings.get("config_groups") or {}
    found = {str((group.get("weights") or {}).get("num_bits")) for group in groups.values() if isinstance(group, dict)}
    return f"{', '.join(sorted(found))} bits"


def parameters_of(model: torch.nn.Module) -> int:
    """Weights of ``model``, tied ones counted once."""
    return sum(parameter.numel() for parameter in model.parameters())
