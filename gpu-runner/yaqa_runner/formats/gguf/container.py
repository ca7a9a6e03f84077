"""GGUF files, as llama.cpp, Ollama, LM Studio and transformers load them.

Names, orders, shapes, header and tokenizer are llama.cpp's own converter's (``converter``). Quantized linears take the
types of the recipe's mix (``mixes``), or each its own within a budget. A linear whose inputs are no multiple of the
type's block takes the fallback type of ``grids.gguf.gguf_type_for``; one that no block fits stays F16. Embedding and
output layer have the mix's types, rounded to nearest, and Q8_0 within a budget (F16 where their width is no multiple
of 32); what llama.cpp wants in float32 is F32, other tensors F16. ``config.json`` travels beside the file so that the
original architecture can be rebuilt without guessing.
"""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt
import torch

from yaqa_runner.formats.blockwise_reference import DecodedTensors, decoded_model
from yaqa_runner.formats.container import QuantizedLinear, ReferenceModel
from yaqa_runner.formats.gguf.arrangement import Arrangement, as_matrix
from yaqa_runner.formats.gguf.blocks import GGUF_TYPES, ggml_type, nearest_rows, pack_rows
from yaqa_runner.formats.gguf.converter import layout_of
from yaqa_runner.formats.gguf.file_plan import FilePlan, Part
from yaqa_runner.formats.gguf.layout import Layout, LayoutTensor
from yaqa_runner.formats.gguf.mixes import (
    MIX_NAMES,
    VOCABULARY_TENSORS,
    mix_base,
    mix_file_type,
    mix_types,
    model_shape,
)
from yaqa_runner.formats.grid_choice import ContainerGrid
from yaqa_runner.formats.output_folder import files_of, output_folder
from yaqa_runner.formats.source import ExportError, SourceSnapshot
from yaqa_runner.grids.gguf import gguf_grid, gguf_type_for
from yaqa_runner.grids.symmetric import SymmetricGrid
from yaqa_runner.protocol.manifest import UnquantizedWeight

SPLIT_BYTES = 45_000_000_000
ALIGNMENT = int(gguf.GGUF_DEFAULT_ALIGNMENT)
# Of each part of a split file: a header, three entries that number the part, and padding before the data.
_PART_BYTES = 24 + 82 + ALIGNMENT
SMALLEST_TYPE = "q2_k"
# The mix of nothing but a type, whose number a file of one type bears.
_SMALL_MIXES = {"q3_k": "q3_k_s", "q4_k": "q4_k_s", "q5_k": "q5_k_s"}
# One scale a block and no offset: the grid that ONNX, compressed-tensors and GPTQ share, so that one
# set of codes serves all of them.
_SHARED_BITS = {"q4_0": 4, "q5_0": 5, "q8_0": 8}
# What every file says for itself.
_OWN_KEYS = ("general.architecture", "general.name", "general.file_type", "general.quantization_version")


@dataclass(frozen=True)
class _Entry:
    name: str
    shape: tuple[int, ...]
    type: gguf.GGMLQuantizationType
    make: Callable[[], npt.NDArray[np.generic]]

    @property
    def nbytes(self) -> int:
        block, size = gguf.GGML_QUANT_SIZES[self.type]
        return math.prod(self.shape) // int(block) * int(size)


class GgufContainer:
    """One GGUF type, for example ``q4_0``, and other ones for the linears that ``types`` names.

    ``mix`` is one of ``mixes``, whose types :meth:`composed` finds; ``budget`` the words of a budget.
    """

    name = "gguf"

    def __init__(
        self,
        type_name: str,
        model_name: str | None = None,
        types: Mapping[str, str] | None = None,
        *,
        mix: str | None = None,
        budget: str | None = None,
    ) -> None:
        self.types = dict(types or {})
        for name in (type_name, *self.types.values()):
            if name not in GGUF_TYPES:
                raise ExportError(f"GGUF type {name!r} is not one of {', '.join(GGUF_TYPES)}.")
        self.type = type_name
        self.model_name = model_name
        self.mix = mix
        self.budget = budget
        self._source: Path | None = None
        # Searched once: the files of every quantizer have the same.
        self._packed_vocabulary: dict[str, npt.NDArray[np.generic]] = {}

    @classmethod
    def of_mix(cls, mix: str, model_name: str | None = None) -> GgufContainer:
        """The mix ``mix``, for example ``q4_k_m``; which linear has which type, :meth:`composed` finds.

        Raises:
            ExportError: there is no such mix.
        """
        if mix not in MIX_NAMES:
            raise ExportError(f"GGUF type {mix!r} is not one of {', '.join(MIX_NAMES)}.")
        return cls(mix_base(mix), model_name, mix=mix)

    @property
    def label(self) -> str:
        """What ends the file's name: the last word of it is one that the Hub and llama.cpp know a quantization by."""
        if self.mix is not None:
            return self.mix.upper()
        if self.budget is None:
            return self.type.upper()
        # As files are called that mix types otherwise than llama-quantize does.
        digit = next(letter for letter in self.type if letter.isdigit())
        return f"{self.budget}-Q{digit}_K_XL"

    def composed(self, source: Path, linears: Collection[str]) -> GgufContainer:
        """This mix with the type of every one of ``linears``, which are stored; itself where it is no mix.

        Raises:
            ExportError: As for :meth:`write`.
        """
        if self.mix is None:
            return self
        snapshot = SourceSnapshot(source)
        layout = layout_of(snapshot)
        plan = FilePlan(snapshot, layout, linears)
        by_tensor = self._mix_types(layout, plan)
        types: dict[str, str] = {}
        settled = False
        # A linear has one type, and so has a tensor: where one spreads over several, the widest counts for all.
        while not settled:
            settled = True
            for name, parts in plan.quantized.items():
                found = [by_tensor[name], *(types[linear] for linear in parts if linear in types)]
                widest = max(found, key=lambda name: gguf_grid(name).bits_per_weight)
                for linear in parts:
                    if types.get(linear) != widest:
                        types[linear] = widest
                        settled = False
        return GgufContainer(self.type, self.model_name, types, mix=self.mix)

    def _mix_types(self, layout: Layout, plan: FilePlan) -> dict[str, str]:
        assert self.mix is not None
        shapes = [
            (tensor.name, tensor.shape[-1])
            for tensor in layout.tensors
            if tensor.name in plan.quantized or tensor.name in VOCABULARY_TENSORS
        ]
        chosen = mix_types(self.mix, shapes, model_shape(layout.architecture, layout.metadata))
        return {name: type_name for name, type_name in chosen.items() if type_name is not None}

    def grid(self, layer: str | None = None) -> ContainerGrid:
        """The type's own grid; rows that its block does not divide take the fallback type's."""
        if layer is not None and layer in self.types:
            chosen = gguf_grid(self.types[layer])
            return ContainerGrid(chosen, chosen.supports)
        bits = _SHARED_BITS.get(self.type)
        if bits is not None:
            return ContainerGrid(SymmetricGrid(bits, 32), lambda rows, columns: rows > 0 and columns % 32 == 0)
        own = gguf_grid(self.type)
        fallback = gguf_type_for(self.type, 1, 32)
        return ContainerGrid(own, own.supports, None if fallback in (None, self.type) else gguf_grid(fallback))

    def storable(self, source: Path, linears: set[str]) -> dict[str, torch.Tensor | None]:
        """Those of ``linears`` that the file has whole, in tensors of nothing but such; with the order of their inputs.

        Codes and grids are those of the file, whose blocks are of neighbours there.

        Raises:
            ExportError: As for :meth:`write`.
        """
        snapshot = SourceSnapshot(source)
        plan = FilePlan(snapshot, layout_of(snapshot), linears)
        return {name: part.column for parts in plan.quantized.values() for name, part in parts.items()}

    def unquantized(self, source: Path, linears: set[str]) -> list[UnquantizedWeight]:
        """Matrices that are not in ``linears``, with the type they are stored in, and tensors that are left out."""
        self._source = source
        snapshot = SourceSnapshot(source)
        layout = layout_of(snapshot)
        plan = FilePlan(snapshot, layout, linears)
        vocabulary = self._vocabulary_types(layout, plan)
        result = {}
        for tensor in layout.tensors:
            if tensor.name in plan.quantized or len(tensor.shape) < 2:
                continue
            inside = tensor.name in VOCABULARY_TENSORS
            reason = "embedding or output layer, rounded to nearest" if inside else "not quantized"
            if tensor.arrangement is None and not tensor.full:
                reason = "not quantized: llama.cpp stores it otherwise than the checkpoint does"
            kind = _plain_type(tensor, vocabulary)
            for name in tensor.sources:
                result[name] = UnquantizedWeight(name=name, type=kind.name, reason=reason)
        for name, reason in layout.dropped.items():
            result[name] = UnquantizedWeight(name=name, type="none", reason=f"left out: {reason}")
        return [result[name] for name in snapshot.stored_names() if name in result]

    def write(self, source: Path, linears: dict[str, QuantizedLinear], output: Path) -> list[Path]:
        """Write ``{model}-{label}.gguf`` (split above 45 GB), ``config.json`` and the licence files.

        Raises:
            ExportError: llama.cpp has no form for the model, one of its tensors or its tokenizer; a scale that half
                precision does not hold; a linear that :meth:`storable` does not name.
        """
        self._source = source
        snapshot = SourceSnapshot(source)
        layout = layout_of(snapshot)
        shapes = {name: (linear.codes.shape[0], linear.codes.shape[1]) for name, linear in linears.items()}
        entries = self._entries(snapshot, layout, shapes, linears)
        with output_folder(output) as scratch:
            is_split = sum(entry.nbytes for entry in entries) > SPLIT_BYTES
            writer = self._begun(snapshot, layout, entries, scratch, SPLIT_BYTES if is_split else 0)
            for entry in entries:
                writer.write_tensor_data(entry.make())
            writer.close()
            snapshot.copy("gguf", scratch)
        return files_of(output)

    def bytes_besides(self, source: Path, shapes: Mapping[str, tuple[int, int]], budget: int) -> int:
        """Bytes of all files that :meth:`write` leaves, but for the blocks of the linears, whatever types those have.

        Each linear then adds its blocks, rounded up to :data:`ALIGNMENT`. Exact for one file; where files of ``budget``
        bytes may be split, what every part adds is counted at its most.

        Args:
            source: The snapshot.
            shapes: ``(out, in)`` of every linear that is quantized, by module name.
            budget: Bytes that the files will have at most.

        Raises:
            ExportError: As for :meth:`write`; or linears share a tensor of the file, and so a type.
        """
        snapshot = SourceSnapshot(source)
        layout = layout_of(snapshot)
        plan = FilePlan(snapshot, layout, shapes)
        plan.require_own_tensors()
        entries = self._entries(snapshot, layout, shapes, {})
        with tempfile.TemporaryDirectory() as folder:
            self._begun(snapshot, layout, entries, Path(folder), 0).close()
            headers = sum(path.stat().st_size for path in files_of(Path(folder)))
        kept = sum(_aligned(entry.nbytes) for entry in entries if entry.name not in plan.quantized)
        copied = sum(path.stat().st_size for path in snapshot.copied_files("gguf"))
        # Two parts beside each other hold more than one part may.
        parts = 0 if budget <= SPLIT_BYTES else 2 * budget // SPLIT_BYTES + 2
        return _aligned(headers) + kept + copied + parts * _PART_BYTES

    def _begun(
        self, snapshot: SourceSnapshot, layout: Layout, entries: list[_Entry], folder: Path, split_bytes: int
    ) -> gguf.GGUFWriter:
        """The file, or its parts, in ``folder``, up to where the tensors' data begin."""
        model_name = self.model_name or snapshot.model_name
        writer = gguf.GGUFWriter(path=None, arch=layout.architecture, split_max_size=split_bytes)
        writer.add_name(model_name)
        writer.add_file_type(mix_file_type(self.mix or _SMALL_MIXES.get(self.type, self.type)))
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        for key, field in gguf.GGUFReader(layout.metadata).fields.items():
            if key in _OWN_KEYS or key.startswith("GGUF."):
                continue
            kind = field.types[0]
            inner = field.types[-1] if kind is gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(key, field.contents(), kind, inner)
        for entry in entries:
            writer.add_tensor_info(entry.name, entry.shape, np.dtype(np.float32), entry.nbytes, entry.type)
        writer.write_header_to_file(folder / f"{model_name}-{self.label}.gguf")
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        return writer

    def _entries(
        self,
        snapshot: SourceSnapshot,
        layout: Layout,
        shapes: Mapping[str, tuple[int, int]],
        linears: Mapping[str, QuantizedLinear],
    ) -> list[_Entry]:
        """Every tensor of the file; ``linears`` are asked for when a linear's blocks are made."""
        plan = FilePlan(snapshot, layout, shapes)
        left = set(shapes) - {name for parts in plan.quantized.values() for name in parts}
        if left:
            raise ExportError(
                f"The file has no tensor of nothing but quantized rows for {min(left)[:200]!r}: it is not stored."
            )
        vocabulary = self._vocabulary_types(layout, plan)
        return [
            self._packed(tensor, plan.quantized[tensor.name], shapes, linears)
            if tensor.name in plan.quantized
            else self._plain(snapshot, layout, tensor, _plain_type(tensor, vocabulary))
            for tensor in layout.tensors
        ]

    def _vocabulary_types(self, layout: Layout, plan: FilePlan) -> dict[str, str]:
        """The types of embedding and output layer, of those that a block fits."""
        if self.mix is not None:
            return self._mix_types(layout, plan)
        return dict.fromkeys(VOCABULARY_TENSORS, "q8_0")

    def _plain(
        self, snapshot: SourceSnapshot, layout: Layout, tensor: LayoutTensor, kind: gguf.GGMLQuantizationType
    ) -> _Entry:
        def value() -> torch.Tensor:
            if tensor.arrangement is None:
                return layout.value(tensor.name).to(torch.float32)
            return tensor.arrangement.assemble(snapshot.read_stored).to(torch.float32)

        if kind is gguf.GGMLQuantizationType.F16 and float(value().abs().max()) > 65504:
            kind = gguf.GGMLQuantizationType.F32

        def make() -> npt.NDArray[np.generic]:
            if tensor.name not in VOCABULARY_TENSORS or kind.name.lower() not in GGUF_TYPES:
                stored: npt.NDArray[np.generic] = gguf.quants.quantize(value().reshape(tensor.shape).numpy(), kind)
                return stored
            if tensor.name not in self._packed_vocabulary:
                self._packed_vocabulary[tensor.name] = nearest_rows(tensor.name, value(), kind.name.lower())
            return self._packed_vocabulary[tensor.name]

        return _Entry(tensor.name, tensor.shape, kind, make)

    def _packed(
        self,
        tensor: LayoutTensor,
        parts: Mapping[str, Part],
        shapes: Mapping[str, tuple[int, int]],
        linears: Mapping[str, QuantizedLinear],
    ) -> _Entry:
        types = {gguf_type_for(self.types.get(name, self.type), *shapes[name]) for name in parts}
        chosen = types.pop()
        if types:
            raise ExportError(f"The linears of {tensor.name} are to have unlike types, and a tensor has one.")
        if chosen is None:
            raise ExportError(f"{min(parts)}: no block of {self.type} divides {tensor.shape[-1]} inputs.")

        def make() -> npt.NDArray[np.generic]:
            result: npt.NDArray[np.generic] | None = None
            for name, part in parts.items():
                if not _same_order(linears[name].columns, part.column):
                    raise ExportError(f"{name}: the codes are not in the order that the file has the inputs in.")
                packed = pack_rows(linears[name], chosen)
                if result is None:
                    result = np.empty((math.prod(tensor.shape[:-1]), packed.shape[1]), dtype=packed.dtype)
                result[part.places.numpy()] = packed[part.rows.numpy()]
            assert result is not None
            return result

        return _Entry(tensor.name, tensor.shape, ggml_type(chosen), make)

    def load(
        self, directory: Path, device: str = "cpu", source: Path | None = None, by_blocks: bool = False
    ) -> ReferenceModel:
        """The original architecture with every tensor that the file rearranges dequantized by the ``gguf`` library.

        ``directory`` may be the file itself, and anybody's, of whatever types.
        What the file holds in another form than the checkpoint, in float32 (norms with one added), comes from
        ``source``: by default the snapshot that was written last.
        """
        snapshot = self._snapshot(source)
        stored = _DecodedFile(snapshot, layout_of(snapshot), read_tensors(directory))
        tensors = DecodedTensors(stored.names, stored.reader)
        return decoded_model(snapshot.config, tensors, device=device, by_blocks=by_blocks)

    def decode(self, directory: Path, name: str, source: Path | None = None) -> torch.Tensor:
        """Weight ``[out, in]`` float32 of module ``name``, rows and columns back in the checkpoint's order."""
        snapshot = self._snapshot(source)
        layout = layout_of(snapshot)
        plan = FilePlan(snapshot, layout, [name])
        tensors = read_tensors(directory)
        result: torch.Tensor | None = None
        for tensor in layout.tensors:
            part = plan.parts.get(tensor.name, {}).get(name)
            if part is None:
                continue
            matrix = _dequantized(tensors, tensor)
            if result is None:
                result = torch.empty(plan.heights[name], matrix.shape[1])
            rows = matrix[part.places]
            if part.column is not None:
                restored = torch.empty_like(rows)
                restored[:, part.column] = rows
                rows = restored
            result[part.rows] = rows
        if result is None:
            raise ExportError(f"The file has no tensor of {name[:200]!r}.")
        return result

    def _snapshot(self, source: Path | None) -> SourceSnapshot:
        source = source or self._source
        if source is None:
            raise ExportError("A GGUF file is decoded beside the checkpoint that it was made of, which is not given.")
        return SourceSnapshot(source)


class _DecodedFile:
    """The checkpoint's tensors as a file has them; those that it has not are the checkpoint's own."""

    def __init__(self, snapshot: SourceSnapshot, layout: Layout, tensors: Mapping[str, gguf.ReaderTensor]) -> None:
        self._snapshot = snapshot
        self._tensors = tensors
        self._places: dict[str, list[tuple[LayoutTensor, Arrangement, int]]] = {}
        for tensor in layout.tensors:
            if tensor.arrangement is None:
                continue
            for number, name in enumerate(tensor.arrangement.sources):
                self._places.setdefault(name, []).append((tensor, tensor.arrangement, number))
        self.names = [
            name for name in snapshot.stored_names() if name in self._places or not snapshot.is_tied_copy(name)
        ]

    def reader(self) -> Callable[[str], torch.Tensor]:
        """Decodes one of ``names``. What several are parts of is decoded once, and held until all of them were read."""
        held: dict[str, torch.Tensor] = {}
        read: dict[str, set[str]] = {}

        def matrix_of(name: str, tensor: LayoutTensor, arrangement: Arrangement) -> torch.Tensor:
            matrix = held.pop(tensor.name, None)
            if matrix is None:
                matrix = _dequantized(self._tensors, tensor)
            done = read.setdefault(tensor.name, set())
            done.add(name)
            if len(done) < len(set(arrangement.sources)):
                held[tensor.name] = matrix
            return matrix

        def decoded(name: str) -> torch.Tensor:
            weight = self._snapshot.read_stored(name)
            for tensor, arrangement, number in self._places.get(name, ()):
                matrix = matrix_of(name, tensor, arrangement)
                target = as_matrix(weight.to(torch.float32), arrangement.axis).contiguous()
                # One that is float32 and contiguous already is the checkpoint's own memory.
                target = target.clone() if target.data_ptr() == weight.data_ptr() else target
                arrangement.scatter(number, matrix, target)
                weight = _from_matrix(target, weight.shape, arrangement.axis)
            return weight

        return decoded


def _same_order(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    return one is other if one is None or other is None else torch.equal(one, other)


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _plain_type(tensor: LayoutTensor, vocabulary: Mapping[str, str]) -> gguf.GGMLQuantizationType:
    if tensor.full:
        return gguf.GGMLQuantizationType.F32
    wanted = vocabulary.get(tensor.name) if tensor.name in VOCABULARY_TENSORS else None
    if wanted is not None and gguf_grid(wanted).supports(1, tensor.shape[-1]):
        return ggml_type(wanted)
    return gguf.GGMLQuantizationType.F16


def _dequantized(tensors: Mapping[str, gguf.ReaderTensor], tensor: LayoutTensor) -> torch.Tensor:
    """``[rows, columns]`` float32 of ``tensor`` as the file has it."""
    found = tensors.get(tensor.name)
    if found is None:
        raise ExportError(f"The file has no tensor {tensor.name}.")
    value = np.array(gguf.quants.dequantize(found.data, found.tensor_type), dtype=np.float32)
    matrix = torch.from_numpy(value).reshape(-1, value.shape[-1])
    if matrix.shape != (math.prod(tensor.shape[:-1]), tensor.shape[-1]):
        raise ExportError(f"{tensor.name} has shape {tuple(value.shape)}, not {tensor.shape}.")
    return matrix


def _from_matrix(matrix: torch.Tensor, shape: torch.Size, axis: int) -> torch.Tensor:
    """What :func:`as_matrix` undoes: a tensor of ``shape``."""
    moved = [size for other, size in enumerate(shape) if other != axis]
    return matrix.reshape(*moved, shape[axis]).movedim(-1, axis).contiguous()


_PART = re.compile(r"-\d{5}-of-(\d{5})\.gguf$")


def shards_of(file: Path) -> tuple[Path, ...]:
    """All parts of the model that ``file`` is a part of; itself where it is whole.

    Raises:
        ExportError: a part is missing.
    """
    found = _PART.search(file.name)
    if found is None:
        return (file,)
    total, stem = int(found[1]), file.name[: found.start()]
    parts = tuple(file.with_name(f"{stem}-{number:05d}-of-{total:05d}.gguf") for number in range(1, total + 1))
    missing = [part.name for part in parts if not part.is_file()]
    if missing:
        raise ExportError(f"{missing[0]} is missing: {file.name} is one of {total} parts.")
    return parts


def read_tensors(path: Path) -> dict[str, gguf.ReaderTensor]:
    """The tensors of the GGUF model at ``path``: its file, one of its parts, or a folder with nothing else.

    Raises:
        ExportError: there is no such file, or there are several models.
    """
    if path.is_file():
        files: tuple[Path, ...] = shards_of(path)
    else:
        files = tuple(sorted(path.glob("*.gguf")))
    if not files:
        raise ExportError(f"{path.name} holds no GGUF file.")
    shards = [file for file in files if _PART.search(file.name)]
    if len(files) > 1 and len(shards) != len(files):
        raise ExportError(f"{path.name} holds several GGUF models.")
    return {tensor.name: tensor for file in files for tensor in gguf.GGUFReader(file).tensors}
