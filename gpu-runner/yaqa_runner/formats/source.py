"""The source snapshot: what containers read from, one tensor at a time."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, PretrainedConfig

from yaqa_runner.model.auto_class import auto_class, model_class
from yaqa_runner.model.source_files import MAXIMUM_COPIED_BYTES, copied_patterns, listed_files
from yaqa_runner.model.stored_names import Renaming
from yaqa_runner.model.weight_files import UnreadableSource, read_json_object, weight_files

STORED_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


class ExportError(ValueError):
    """A model cannot be written in a container. ``str()`` names the cause and what to do about it."""


class SourceSnapshot:
    """A model folder, opened lazily: headers at once, tensors on request.

    Tensor names are given as the loaded model calls them. Checkpoints that leave out the base model's
    prefix (GPT-2's ``h.0.attn…``) are found all the same.

    Raises:
        ExportError: No safetensors, an index that points outside the folder, remote code, unreadable files.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        try:
            self.raw_config = read_json_object(directory / "config.json")
            paths = weight_files(directory)
        except UnreadableSource as error:
            raise ExportError(f"{error.cause} {error.remedy}") from error
        if "auto_map" in self.raw_config:
            raise ExportError("config.json asks for remote code (auto_map), which is never run.")
        try:
            self.config: PretrainedConfig = AutoConfig.from_pretrained(
                directory, trust_remote_code=False, local_files_only=True
            )
        except Exception as error:
            raise ExportError(f"config.json is not a model configuration that transformers knows: {error}") from error
        self._files: dict[str, Path] = {}
        self._handles: dict[Path, Any] = {}
        for path in paths:
            names = self._handle(path).keys()
            for name in names:
                self._files[name] = path
        self._class = model_class(self.config)
        prefix = getattr(self._class, "base_model_prefix", None)
        self._prefix = prefix if isinstance(prefix, str) else "model"
        if self._prefix and not any(name.startswith(f"{self._prefix}.") for name in self._files):
            self._prefix = self._prefix if self._is_stored_without_prefix() else ""
        self._tied_copies: frozenset[str] | None = None

    def _is_stored_without_prefix(self) -> bool:
        """Whether the model calls tensors as the files do but for its prefix: some classes tell one that is no name."""
        loader = auto_class(self.config)
        if loader is None:
            return True
        with torch.device("meta"):
            model = loader.from_config(self.config, trust_remote_code=False)
        renaming, parameters = Renaming(model), model.state_dict()
        targets = {name: renaming.target(name)[0] for name in self._files}
        known = {name: loaded for name, loaded in targets.items() if loaded in parameters}
        return all(loaded in (name, f"{self._prefix}.{name}") for name, loaded in known.items()) and any(
            loaded != name for name, loaded in known.items()
        )

    def _handle(self, path: Path) -> Any:
        handle = self._handles.get(path)
        if handle is None:
            try:
                handle = safe_open(path, framework="pt", device="cpu")
            except (SafetensorError, OSError) as error:
                raise ExportError(f"{path.name} is not a readable safetensors file: {error}") from error
            self._handles[path] = handle
        return handle

    def stored_name(self, name: str) -> str | None:
        """What the files call the tensor that the loaded model calls ``name``; ``None`` where they have none."""
        if name in self._files:
            return name
        if self._prefix:
            start = f"{self._prefix}."
            candidate = name[len(start) :] if name.startswith(start) else start + name
            if candidate in self._files:
                return candidate
        return None

    def names(self) -> list[str]:
        """Tensor names as the loaded model calls them, in a fixed order."""
        start = f"{self._prefix}."
        prefixed = not self._prefix or any(name.startswith(start) for name in self._files)
        if prefixed:
            return sorted(self._files, key=_natural)
        renamed = (name if name.startswith("lm_head.") else start + name for name in self._files)
        return sorted(renamed, key=_natural)

    def stored_names(self) -> list[str]:
        """Tensor names as the files have them, in a fixed order."""
        return sorted(self._files, key=_natural)

    def stored_shape(self, name: str) -> tuple[int, ...]:
        """Shape of the tensor that the files call ``name``."""
        return tuple(int(size) for size in self._handle(self._files[name]).get_slice(name).get_shape())

    def read_stored(self, name: str) -> torch.Tensor:
        """The tensor that the files call ``name``: its own dtype, CPU."""
        tensor: torch.Tensor = self._handle(self._files[name]).get_tensor(name)
        return tensor

    def __contains__(self, name: str) -> bool:
        return self.stored_name(name) is not None

    def shape(self, name: str) -> tuple[int, ...]:
        stored = self._require(name)
        return tuple(int(size) for size in self._handle(self._files[stored]).get_slice(stored).get_shape())

    def stored_dtype(self, name: str) -> torch.dtype:
        """The type the checkpoint stores ``name`` in."""
        stored = self._require(name)
        code = self._handle(self._files[stored]).get_slice(stored).get_dtype()
        dtype = STORED_DTYPES.get(code)
        if dtype is None:
            raise ExportError(f"{name[:200]!r} is stored as {code}, which is not carried over.")
        return dtype

    def read(self, name: str) -> torch.Tensor:
        """The tensor as stored: its own dtype, CPU."""
        stored = self._require(name)
        tensor: torch.Tensor = self._handle(self._files[stored]).get_tensor(stored)
        return tensor

    def _require(self, name: str) -> str:
        stored = self.stored_name(name)
        if stored is None:
            raise ExportError(f"The checkpoint has no tensor {name[:200]!r}.")
        return stored

    @property
    def dtype(self) -> torch.dtype:
        """The model's own 16-bit type; bfloat16 where it is wider or not told."""
        dtype = getattr(self.config, "dtype", None)
        if isinstance(dtype, str):
            dtype = getattr(torch, dtype, None)
        return dtype if dtype in (torch.float16, torch.bfloat16) else torch.bfloat16

    @property
    def tied(self) -> bool:
        """Whether the output layer is the embedding."""
        return "lm_head.weight" not in self or self.is_tied_copy("lm_head.weight")

    def is_tied_copy(self, name: str) -> bool:
        """Whether ``name`` only repeats the embedding: the configuration says so, and the values do.

        A head of its own beside a flag that says tied, as merged adapters have, is what transformers computes with.
        """
        if self._tied_copies is None:
            self._tied_copies = frozenset(self._find_tied_copies())
        stored = self.stored_name(name)
        return stored is not None and stored in self._tied_copies

    def _find_tied_copies(self) -> Iterator[str]:
        ties = getattr(self._class, "_tied_weights_keys", None)
        if not isinstance(ties, dict) or not bool(getattr(self.config, "tie_word_embeddings", False)):
            return
        for copy, original in ties.items():
            stored, other = self.stored_name(str(copy)), self.stored_name(str(original))
            if stored is None or other is None or self.stored_shape(stored) != self.stored_shape(other):
                continue
            if torch.equal(self.read_stored(stored), self.read_stored(other)):
                yield stored

    @property
    def model_name(self) -> str:
        """A name for files and titles: the folder's, or the repo's when the folder is a Hub cache snapshot."""
        directory = self.directory.resolve()
        if directory.parent.name == "snapshots" and directory.parent.parent.name.startswith("models--"):
            return safe_name(directory.parent.parent.name.rsplit("--", 1)[-1])
        return safe_name(directory.name)

    def copied_files(self, container: str) -> list[Path]:
        """The files that a variant in ``container`` takes along byte for byte."""
        return [self.directory / path for path in listed_files(self.directory, copied_patterns(container))]

    def copy(self, container: str, output: Path) -> list[Path]:
        """Copy the files that a variant in ``container`` takes along."""
        copied = []
        for path in self.copied_files(container):
            name = path.relative_to(self.directory)
            if path.stat().st_size > MAXIMUM_COPIED_BYTES:
                raise ExportError(f"{name} is larger than {MAXIMUM_COPIED_BYTES} bytes.")
            (output / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, output / name)
            copied.append(output / name)
        return copied


def safe_name(text: str) -> str:
    """``text`` with only letters, digits, dot, underscore and minus, at most 96 characters."""
    cleaned = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip(".-_")[:96]
    return cleaned or "model"


def _natural(name: str) -> list[tuple[int, int, str]]:
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name)]
