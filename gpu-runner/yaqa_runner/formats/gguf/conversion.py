"""Runs the converter on a snapshot and writes down what it makes of it. In the converter's process only."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from yaqa_runner.formats.gguf.arrangement import (
    MAXIMUM_AXES,
    Arrangement,
    find_arrangement,
    number_tensor,
    without_repetition,
)
from yaqa_runner.formats.gguf.engine_limits import (
    corrected_header,
    refusals_of_header,
    refusals_of_settings,
    refusals_of_tensors,
    window_ignored,
)
from yaqa_runner.formats.gguf.layout import METADATA_FILE, LayoutTensor, write_layout
from yaqa_runner.formats.gguf.upstream import Upstream, bridge_settings
from yaqa_runner.formats.gguf.vocabulary import Vocabulary
from yaqa_runner.formats.source import ExportError, SourceSnapshot
from yaqa_runner.machine.allocator import give_large_blocks_back, give_small_blocks_back
from yaqa_runner.model.left_out import reason_left_out

_log = logging.getLogger(__name__)

_TOWERS = re.compile(
    r"(^|\.)(vision|visual|vision_\w+|audio_\w+|multi_modal_projector|embed_vision|embed_audio|connector)(\.|$)"
)


class _Traced(torch.Tensor):
    """A tensor that knows which of the checkpoint's it was made from, through every operation."""

    origins: frozenset[str] = frozenset()

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = super().__torch_function__(func, types, args, kwargs or {})  # type: ignore[no-untyped-call]
        origins = frozenset().union(*(_origins(item) for item in (*args, *(kwargs or {}).values())))
        for item in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(item, _Traced):
                item.origins = origins
        return result

    def numpy(self, *, force: bool = False) -> Any:
        array = self.as_subclass(torch.Tensor).contiguous().numpy(force=force).view(_TracedArray)
        array.tensor = self
        return array


class _TracedArray(np.ndarray[Any, Any]):
    tensor: _Traced | None = None

    def __array_finalize__(self, obj: Any) -> None:
        self.tensor = getattr(obj, "tensor", None)


def _origins(item: Any) -> frozenset[str]:
    if isinstance(item, _Traced):
        return item.origins
    if isinstance(item, (tuple, list)):
        return frozenset().union(*(_origins(part) for part in item))
    return frozenset()


class _Captured:
    """What one run of the converter over all tensors put out: sources by name. Values are handed on, and not held."""

    def __init__(self) -> None:
        self.origins: dict[str, frozenset[str]] = {}
        self.passed_over: set[str] = set()


_Take = Callable[[str, torch.Tensor, frozenset[str], bool], None]
"""Called with each tensor's name, value and sources, and whether it stays in full."""


def convert(upstream: Upstream, snapshot_directory: Path, output: Path) -> None:
    """Write the layout of ``snapshot_directory`` into ``output``.

    Raises:
        ExportError: llama.cpp has no form for the model, one of its tensors or its tokenizer.
    """
    torch.set_num_threads(max(1, torch.get_num_threads() // 2))
    give_large_blocks_back()
    snapshot = SourceSnapshot(snapshot_directory)
    raw = snapshot.raw_config
    known = snapshot.config.to_dict()
    settings = bridge_settings(known, raw)
    model_class = upstream.model_class(settings)
    if model_class is None:
        raise ExportError(f"llama.cpp's converter does not know {_architecture(settings)}. Choose another container.")
    architecture = str(upstream.gguf.MODEL_ARCH_NAMES.get(model_class.model_arch))
    language = {**settings, **(settings.get("text_config") or {})}
    _refuse(refusals_of_settings(architecture, language))
    names = [name for name in snapshot.stored_names() if not snapshot.is_tied_copy(name)]
    vocabulary = Vocabulary(snapshot_directory)
    view = output / "view"
    view.mkdir()
    (view / "config.json").write_text(json.dumps(settings, default=str), encoding="utf-8")
    if (snapshot_directory / "README.md").is_file():
        (view / "README.md").symlink_to((snapshot_directory / "README.md").resolve())
    vocabulary.write_files(view)
    if any(part.__name__ == "Gemma3Model" for part in model_class.__mro__):
        vocabulary.write_count(view, int(settings.get("text_config", settings)["vocab_size"]))
    runner = _Runner(upstream, model_class, settings, view)
    with torch.inference_mode():
        shapes = {name: snapshot.stored_shape(name) for name in names}
        settling = _Settling(names, shapes, runner.traces(names, shapes), snapshot)
        model, real = runner.run(names, lambda name: snapshot.read_stored(name), settling.take)
        entries, values = settling.entries, settling.values
    # Some classes hand everything over to another, which writes the header.
    model = getattr(model, "impl", model)
    dropped = _dropped(snapshot, names, real)
    _refuse(refusals_of_tensors(architecture, language, {entry.name for entry in entries}))
    vocabulary.write_files(view)
    vocabulary.install(model)
    try:
        model.prepare_metadata(vocab_only=False)
    except ExportError:
        raise
    except Exception as error:
        _log.warning("the converter writes no header", exc_info=True)
        raise ExportError(
            f"llama.cpp's converter cannot write the header of this model: {type(error).__name__}: {error}."
        ) from error
    header = model.gguf_writer.kv_data[-1]
    shapes_of = {entry.name: entry.shape for entry in entries}
    told = {key: field.value for key, field in header.items()}
    for key, number in corrected_header(architecture, language, told, shapes_of).items():
        header.pop(key, None)
        (model.gguf_writer.add_uint32 if isinstance(number, int) else model.gguf_writer.add_float32)(key, number)
    _refuse(refusals_of_header(architecture, language, {key: field.value for key, field in header.items()}))
    window = window_ignored(architecture, language)
    if window is not None:
        header.pop(f"{architecture}.context_length", None)
        model.gguf_writer.add_context_length(window)
        vocabulary.notes.append(
            f"The original's attention sees {window} tokens back, and llama.cpp's all: the context is limited to that, "
            "and beyond it the file computes something else."
        )
    _write_metadata(model.gguf_writer, output / METADATA_FILE)
    write_layout(
        output,
        str(model.gguf_writer.arch),
        tuple(entries),
        values,
        dropped,
        tuple(vocabulary.notes),
    )


def _refuse(causes: Iterable[str]) -> None:
    for cause in causes:
        raise ExportError(f"llama.cpp cannot run this model as it is: {cause}. Choose another container.")


def _architecture(settings: dict[str, Any]) -> str:
    names = settings.get("architectures") or [settings.get("model_type")]
    return str(names[0])[:80]


class _Runner:
    """Runs the converter's class over tensors of our choice."""

    def __init__(self, upstream: Upstream, model_class: Any, settings: dict[str, Any], directory: Path) -> None:
        self._upstream = upstream
        self._class = model_class
        self._settings = settings
        self._directory = directory

    def run(self, names: Iterable[str], read: Callable[[str], torch.Tensor], take: _Take) -> tuple[Any, _Captured]:
        """The converter's model, and where what it put out came from; ``take`` is given each tensor as it comes."""
        base, gguf = self._upstream.base, self._upstream.gguf
        captured = _Captured()

        def index_tensors(model: Any, remote_hf_model_id: str | None = None) -> dict[str, Callable[[], torch.Tensor]]:
            found = {}
            for name in names:

                def generate(name: str = name) -> torch.Tensor:
                    tensor = read(name).as_subclass(_Traced)
                    tensor.origins = frozenset({name})
                    return tensor

                kept = model.filter_tensors((name, generate))
                if kept is None:
                    captured.passed_over.add(name)
                else:
                    found[kept[0]] = kept[1]
            return found

        def add_tensor(
            writer: Any, name: str, tensor: Any, raw_shape: Any = None, raw_dtype: Any = None, **_: Any
        ) -> None:
            value = getattr(tensor, "tensor", None)
            if value is None:
                value = torch.from_numpy(np.array(tensor))
            if name in captured.origins:
                raise ExportError(f"llama.cpp's converter gives two tensors the name {name[:200]!r}.")
            full = raw_dtype is None or raw_dtype == gguf.GGMLQuantizationType.F32
            captured.origins[name] = _origins(value)
            take(name, value.as_subclass(torch.Tensor), captured.origins[name], full)
            # Freed tensors would stay with the C library otherwise: three times a model that passes through here.
            give_small_blocks_back(value.numel())
            writer.tensors[-1][name] = gguf.gguf_writer.TensorInfo(shape=tuple(value.shape), dtype=raw_dtype, nbytes=0)

        quantize, index, add = gguf.quants.quantize, base.ModelBase.index_tensors, gguf.GGUFWriter.add_tensor
        load = base.ModelBase.load_hparams
        try:
            base.ModelBase.index_tensors = index_tensors
            base.ModelBase.load_hparams = staticmethod(lambda *_, **__: _copied(self._settings))
            gguf.GGUFWriter.add_tensor = add_tensor
            gguf.quants.quantize = lambda data, _type: data
            model = self._class(
                self._directory, gguf.LlamaFileType.MOSTLY_F16, self._directory / "unused.gguf", eager=True
            )
            model.prepare_tensors()
        except ExportError:
            raise
        except Exception as error:
            _log.warning("the converter refuses %s", self._directory, exc_info=True)
            raise ExportError(_told(error)) from error
        finally:
            base.ModelBase.index_tensors, base.ModelBase.load_hparams = index, load
            gguf.GGUFWriter.add_tensor, gguf.quants.quantize = add, quantize
        return model, captured

    def traces(self, names: list[str], shapes: dict[str, tuple[int, ...]]) -> list[dict[str, torch.Tensor]]:
        """Outputs of every pass of numbers."""
        numbers = {name: number for number, name in enumerate(names)}
        axes = max((len(shapes[name]) for name in names if len(shapes[name]) <= MAXIMUM_AXES), default=0)
        result: list[dict[str, torch.Tensor]] = []
        for pass_number in range(axes + 1):
            found: dict[str, torch.Tensor] = {}

            def numbered(name: str, pass_number: int = pass_number) -> torch.Tensor:
                return number_tensor(shapes[name], pass_number, numbers[name])

            def take(
                name: str, value: torch.Tensor, _: frozenset[str], __: bool, found: dict[str, torch.Tensor] = found
            ) -> None:
                found[name] = without_repetition(value)

            self.run(names, numbered, take)
            result.append(found)
        return result


def _copied(settings: dict[str, Any]) -> dict[str, Any]:
    copied: dict[str, Any] = json.loads(json.dumps(settings, default=str))
    return copied


def _told(error: Exception) -> str:
    text = str(error)
    found = re.search(r"Can not map tensor '([^']*)'", text)
    if found is not None:
        return f"llama.cpp has no name for the tensor {found.group(1)[:200]!r} of this architecture."
    return f"llama.cpp's converter cannot write this model: {type(error).__name__}: {text[:500]}."


class _Settling:
    """Holds each real tensor, as it comes, to what the numbers told of it. Whole models pass through here."""

    def __init__(
        self,
        names: list[str],
        shapes: dict[str, tuple[int, ...]],
        traces: list[dict[str, torch.Tensor]],
        snapshot: SourceSnapshot,
    ) -> None:
        self._names = names
        self._shapes = shapes
        self._traces = traces
        self._snapshot = snapshot
        self.entries: list[LayoutTensor] = []
        self.values: dict[str, torch.Tensor] = {}

    def take(self, name: str, value: torch.Tensor, origins: frozenset[str], full: bool) -> None:
        """Note how tensor ``name`` is put together; its ``value`` where that is not by rearranging."""
        arrangement: Arrangement | None = None
        if value.ndim >= 2 and all(name in trace for trace in self._traces) and origins:
            arrangement = find_arrangement([trace[name] for trace in self._traces], self._names, self._shapes)
        if arrangement is not None:
            wanted = value.reshape(-1, value.shape[-1])
            if not torch.equal(arrangement.assemble(self._snapshot.read_stored).to(wanted.dtype), wanted):
                arrangement = None
        if arrangement is None:
            self.values[name] = value.detach().clone()
        is_full = full or value.ndim < 2
        self.entries.append(LayoutTensor(name, tuple(value.shape), is_full, tuple(sorted(origins)), arrangement))


def _dropped(snapshot: SourceSnapshot, names: list[str], real: _Captured) -> dict[str, str]:
    """The checkpoint's tensors that are not in the file, with the reason.

    Raises:
        ExportError: one is left out for no reason that is known.
    """
    used = frozenset().union(*real.origins.values())
    dropped = {}
    for name in snapshot.stored_names():
        if name in used:
            continue
        if snapshot.is_tied_copy(name):
            dropped[name] = "the output layer, a copy of the embedding"
        elif snapshot.stored_shape(name) in ((), (1,)):
            dropped[name] = "a number that the converter puts into the header"
        elif (reason := reason_left_out(name)) is not None:
            dropped[name] = reason
        elif name in real.passed_over and _TOWERS.search(name):
            dropped[name] = "image or audio tower, which is no part of the language model's file"
        else:
            raise ExportError(f"llama.cpp's converter leaves out the tensor {name[:200]!r}, for no reason known here.")
    return dropped


def _write_metadata(writer: Any, path: Path) -> None:
    writer.tensors = [{}]
    writer.write_header_to_file(path)
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
