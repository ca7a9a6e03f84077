"""GGUF files, as llama.cpp, Ollama, LM Studio and transformers load them.

Quantized linears take the recipe's type, or each its own where types are mixed. A linear whose inputs are no multiple
of the type's block takes the fallback type of ``grids.gguf.gguf_type_for``; one that no block fits stays F16. The
embedding and the output layer are Q8_0 (F16 where their width is no multiple of 32), other matrices F16, vectors F32,
as llama.cpp keeps them. ``config.json`` travels beside the file so that the original architecture can be rebuilt
without guessing.
"""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoConfig, PretrainedConfig

from yaqa_runner.formats.container import QuantizedLinear, ReferenceModel
from yaqa_runner.formats.gguf.architecture import GgufNames, add_metadata, rope_frequency_factors
from yaqa_runner.formats.gguf.blocks import GGUF_TYPES, ggml_type, pack_rows
from yaqa_runner.formats.gguf.tokenizer import add_tokenizer, read_vocabulary
from yaqa_runner.formats.grid_choice import ContainerGrid
from yaqa_runner.formats.output_folder import files_of, output_folder
from yaqa_runner.formats.source import ExportError, SourceSnapshot
from yaqa_runner.formats.torch_reference import empty_model, model_with_weights
from yaqa_runner.grids.gguf import gguf_grid, gguf_type_for
from yaqa_runner.grids.symmetric import SymmetricGrid
from yaqa_runner.protocol.manifest import UnquantizedWeight

SPLIT_BYTES = 45_000_000_000
ALIGNMENT = int(gguf.GGUF_DEFAULT_ALIGNMENT)
# Of each part of a split file: a header, three entries that number the part, and padding before the data.
_PART_BYTES = 24 + 82 + ALIGNMENT
SMALLEST_TYPE = "q2_k"
_FILE_TYPES = {
    "q4_0": gguf.LlamaFileType.MOSTLY_Q4_0,
    "q4_1": gguf.LlamaFileType.MOSTLY_Q4_1,
    "q5_0": gguf.LlamaFileType.MOSTLY_Q5_0,
    "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
    "q2_k": gguf.LlamaFileType.MOSTLY_Q2_K,
    "q3_k": gguf.LlamaFileType.MOSTLY_Q3_K_S,
    "q4_k": gguf.LlamaFileType.MOSTLY_Q4_K_S,
    "q5_k": gguf.LlamaFileType.MOSTLY_Q5_K_S,
    "q6_k": gguf.LlamaFileType.MOSTLY_Q6_K,
}
# One scale a block and no offset: the grid that ONNX, compressed-tensors and GPTQ share, so that one
# set of codes serves all of them.
_SHARED_BITS = {"q4_0": 4, "q5_0": 5, "q8_0": 8}
_VOCABULARY_TENSORS = ("token_embd.weight", "output.weight")


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

    ``label`` ends the file's name; without it the type does. ``general.file_type`` is ``type``.
    """

    name = "gguf"

    def __init__(
        self,
        type_name: str,
        model_name: str | None = None,
        types: Mapping[str, str] | None = None,
        label: str | None = None,
    ) -> None:
        self.types = dict(types or {})
        for name in (type_name, *self.types.values()):
            if name not in GGUF_TYPES:
                raise ExportError(f"GGUF type {name!r} is not one of {', '.join(GGUF_TYPES)}.")
        self.type = type_name
        self.model_name = model_name
        self.label = type_name.upper() if label is None else label

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

    def unquantized(self, source: Path, linears: set[str]) -> list[UnquantizedWeight]:
        """Matrices that are not in ``linears``, with the type they are stored in."""
        snapshot = SourceSnapshot(source)
        names = GgufNames(snapshot.config)
        read_vocabulary(source, int(snapshot.config.vocab_size))
        result = []
        for name in snapshot.names():
            module = name.rpartition(".")[0]
            if names.ignored(name) or snapshot.is_tied_copy(name) or module in linears:
                continue
            shape = snapshot.shape(name)
            if len(shape) < 2:
                continue
            vocabulary = names.gguf_name(name) in _VOCABULARY_TENSORS
            kind = _plain_type(names.gguf_name(name), shape)
            reason = "embedding or output layer, kept at higher precision" if vocabulary else "not quantized"
            result.append(UnquantizedWeight(name=name, type=kind.name, reason=reason))
        return result

    def write(self, source: Path, linears: dict[str, QuantizedLinear], output: Path) -> list[Path]:
        """Write ``{model}-{label}.gguf`` (split above 45 GB), ``config.json`` and the licence files.

        Raises:
            ExportError: Unknown architecture, a scale that half precision does not hold, a malformed tokenizer.
        """
        snapshot = SourceSnapshot(source)
        names = GgufNames(snapshot.config)
        shapes = {name: (linear.codes.shape[0], linear.codes.shape[1]) for name, linear in linears.items()}
        entries = self._entries(snapshot, names, shapes, linears)
        with output_folder(output) as scratch:
            is_split = sum(entry.nbytes for entry in entries) > SPLIT_BYTES
            writer = self._begun(snapshot, names, entries, scratch, SPLIT_BYTES if is_split else 0)
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
            ExportError: As for :meth:`write`.
        """
        snapshot = SourceSnapshot(source)
        names = GgufNames(snapshot.config)
        entries = self._entries(snapshot, names, shapes, {})
        quantized = {names.gguf_name(f"{name}.weight") for name in shapes}
        with tempfile.TemporaryDirectory() as folder:
            self._begun(snapshot, names, entries, Path(folder), 0).close()
            headers = sum(path.stat().st_size for path in files_of(Path(folder)))
        kept = sum(_aligned(entry.nbytes) for entry in entries if entry.name not in quantized)
        copied = sum(path.stat().st_size for path in snapshot.copied_files("gguf"))
        # Two parts beside each other hold more than one part may.
        parts = 0 if budget <= SPLIT_BYTES else 2 * budget // SPLIT_BYTES + 2
        return _aligned(headers) + kept + copied + parts * _PART_BYTES

    def _begun(
        self, snapshot: SourceSnapshot, names: GgufNames, entries: list[_Entry], folder: Path, split_bytes: int
    ) -> gguf.GGUFWriter:
        """The file, or its parts, in ``folder``, up to where the tensors' data begin."""
        model_name = self.model_name or snapshot.model_name
        writer = gguf.GGUFWriter(path=None, arch=names.arch_name, split_max_size=split_bytes)
        add_metadata(writer, snapshot.config, model_name, int(_FILE_TYPES[self.type]))
        add_tokenizer(writer, snapshot.directory, int(snapshot.config.vocab_size))
        for entry in entries:
            writer.add_tensor_info(entry.name, entry.shape, np.dtype(np.float32), entry.nbytes, entry.type)
        writer.write_header_to_file(folder / f"{model_name}-{self.label}.gguf")
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        return writer

    def _entries(
        self,
        snapshot: SourceSnapshot,
        names: GgufNames,
        shapes: Mapping[str, tuple[int, int]],
        linears: Mapping[str, QuantizedLinear],
    ) -> list[_Entry]:
        """Every tensor of the file; ``linears`` are asked for when a linear's blocks are made."""
        entries = []
        left = set(shapes)
        for name in snapshot.names():
            if names.ignored(name) or snapshot.is_tied_copy(name):
                continue
            module, _, kind = name.rpartition(".")
            target = names.gguf_name(name)
            if kind == "weight" and module in shapes:
                left.discard(module)
                entries.append(self._packed(names, module, shapes[module], linears, target))
            else:
                entries.append(_plain(snapshot, names, name, target))
        if left:
            raise ExportError(f"The checkpoint has no weight for {min(left)[:200]!r}.")
        factors = rope_frequency_factors(snapshot.config)
        if factors is not None:
            array = factors.numpy()
            entries.append(_Entry("rope_freqs.weight", array.shape, gguf.GGMLQuantizationType.F32, lambda: array))
        return entries

    def _packed(
        self,
        names: GgufNames,
        module: str,
        shape: tuple[int, int],
        linears: Mapping[str, QuantizedLinear],
        target: str,
    ) -> _Entry:
        rows, columns = shape
        chosen = gguf_type_for(self.types.get(module, self.type), rows, columns)
        if chosen is None:
            raise ExportError(f"{module}: no block of {self.type} divides {columns} inputs.")
        order = names.row_order(module)

        def make() -> npt.NDArray[np.generic]:
            packed = pack_rows(linears[module], chosen)
            return packed if order is None else np.ascontiguousarray(packed[order.numpy()])

        return _Entry(target, (rows, columns), ggml_type(chosen), make)

    def load(self, directory: Path, device: str = "cpu") -> ReferenceModel:
        """The original architecture with every tensor dequantized by the ``gguf`` library."""
        snapshot_config = _config_of(directory)
        names = GgufNames(snapshot_config)
        tensors = _read_tensors(directory)
        tied = set(getattr(empty := empty_model(snapshot_config), "_tied_weights_keys", None) or {})
        weights = {}
        for name, parameter in empty.named_parameters():
            target = names.gguf_name(name)
            if target not in tensors:
                if name in tied:
                    continue
                raise ExportError(f"The file has no tensor {target}.")
            value = _restored(names, name, tensors[target])
            if value.shape != parameter.shape:
                raise ExportError(f"{target} has shape {tuple(value.shape)}, not {tuple(parameter.shape)}.")
            weights[name] = value
        return model_with_weights(snapshot_config, weights, device)

    def decode(self, directory: Path, name: str) -> torch.Tensor:
        """Weight ``[out, in]`` float32 of module ``name``, rows back in the checkpoint's order."""
        names = GgufNames(_config_of(directory))
        target = names.gguf_name(f"{name}.weight")
        tensors = _read_tensors(directory)
        if target not in tensors:
            raise ExportError(f"The file has no tensor {target}.")
        value = _restored(names, f"{name}.weight", tensors[target])
        return value.T.contiguous() if names.transposed(name) else value


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _plain_type(target: str, shape: tuple[int, ...]) -> gguf.GGMLQuantizationType:
    if len(shape) < 2:
        return gguf.GGMLQuantizationType.F32
    if target in _VOCABULARY_TENSORS and shape[-1] % 32 == 0:
        return gguf.GGMLQuantizationType.Q8_0
    # llama.cpp adds position embeddings and multiplies convolutions in float32 only.
    if target.startswith("position_embd"):
        return gguf.GGMLQuantizationType.F32
    return gguf.GGMLQuantizationType.F16


def _plain(snapshot: SourceSnapshot, names: GgufNames, name: str, target: str) -> _Entry:
    module = name.rpartition(".")[0]
    shape = snapshot.shape(name)
    transposed = len(shape) == 2 and names.transposed(module)
    shape = shape[::-1] if transposed else shape
    kind = _plain_type(target, shape)
    if kind is gguf.GGMLQuantizationType.F16 and float(snapshot.read(name).abs().max()) > 65504:
        kind = gguf.GGMLQuantizationType.F32
    order = names.row_order(module)

    def make() -> npt.NDArray[np.generic]:
        value = snapshot.read(name).to(torch.float32)
        value = value.T.contiguous() if transposed else value
        value = value if order is None else value[order]
        if _is_norm(target):
            value = value + names.layout.norm_offset
        stored: npt.NDArray[np.generic] = gguf.quants.quantize(value.numpy(), kind)
        return stored

    return _Entry(target, shape, kind, make)


def _is_norm(target: str) -> bool:
    return target.endswith("norm.weight")


def _restored(names: GgufNames, name: str, tensor: gguf.ReaderTensor) -> torch.Tensor:
    value = torch.from_numpy(np.array(gguf.quants.dequantize(tensor.data, tensor.tensor_type), dtype=np.float32))
    module = name.rpartition(".")[0]
    order = names.row_order(module)
    if order is not None:
        restored = torch.empty_like(value)
        restored[order] = value
        value = restored
    if _is_norm(tensor.name):
        value = value - names.layout.norm_offset
    if value.ndim == 2 and names.transposed(module):
        value = value.T.contiguous()
    return value


def _read_tensors(directory: Path) -> dict[str, gguf.ReaderTensor]:
    files = sorted(path for path in directory.glob("*.gguf"))
    if not files:
        raise ExportError(f"{directory.name} holds no GGUF file.")
    shards = [path for path in files if re.search(r"-\d{5}-of-\d{5}\.gguf$", path.name)]
    if len(files) > 1 and len(shards) != len(files):
        raise ExportError(f"{directory.name} holds several GGUF models.")
    return {tensor.name: tensor for path in files for tensor in gguf.GGUFReader(path).tensors}


def _config_of(directory: Path) -> PretrainedConfig:
    return AutoConfig.from_pretrained(directory, trust_remote_code=False, local_files_only=True)
