"""ONNX folders for onnxruntime (Python, Node, web, C#) and transformers.js.

``onnx/model_q4.onnx`` and its siblings hold linears in ``MatMulNBits``. The embedding and the output layer stay in the
activations' type (float32, float16 for ``q4f16``), or take blocks of 4 or 8 bits, read by ``GatherBlockQuantized`` and
``MatMulNBits``; either way they share one tensor where the model ties them. Blocks of the embedding load in onnxruntime
1.23 and later (measured: 1.22 refuses the layout, and 1.24 two bits). Four bits compute exactly (``accuracy_level`` 0).
Two and eight bits take level 4, which rounds activations to int8 inside the operator: level 0 was measured 100 times
slower there on CPUs, and figures come from the files as shipped.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper

from yaqa_runner.formats.container import QuantizedLinear, ReferenceModel
from yaqa_runner.formats.grid_choice import ContainerGrid
from yaqa_runner.formats.onnx.decoder_architecture import decoder_architecture
from yaqa_runner.formats.onnx.decoder_graph import EMBEDDING, VOCABULARY_WEIGHTS, MatMulSettings, decoder_graph
from yaqa_runner.formats.onnx.model import EXTERNAL_BYTES, IR_VERSION, OPSET
from yaqa_runner.formats.output_folder import files_of, output_folder
from yaqa_runner.formats.plain_weights import replaced_tensors, unquantized_weights
from yaqa_runner.formats.source import ExportError, SourceSnapshot
from yaqa_runner.grids.symmetric import SymmetricGrid
from yaqa_runner.protocol.manifest import UnquantizedWeight

BITS = (2, 4, 8)
BLOCKS = (16, 32, 64, 128, 256)
EMBEDDING_BITS = (4, 8)
# transformers.js finds a file by its dtype's suffix.
SUFFIXES = {"q2": "q2", "q4": "q4", "q8": "quantized", "q4f16": "q4f16"}
_CHUNK = 1024


class OnnxContainer:
    """One of ``q2``, ``q4``, ``q8``, ``q4f16`` with blocks of ``block`` inputs.

    ``embedding_bits`` puts embedding and output layer into blocks of the same length.
    """

    name = "onnx"

    def __init__(
        self,
        dtype: str,
        bits: int,
        block: int,
        embedding_bits: int | None = None,
        external_bytes: int = EXTERNAL_BYTES,
    ) -> None:
        if dtype not in SUFFIXES or bits not in BITS:
            raise ExportError(f"ONNX files are written as {', '.join(SUFFIXES)}; not as {dtype[:32]!r}.")
        if block not in BLOCKS:
            raise ExportError(f"MatMulNBits takes blocks of {', '.join(map(str, BLOCKS))}; not {block}.")
        if embedding_bits is not None and embedding_bits not in EMBEDDING_BITS:
            raise ExportError(
                f"Embeddings are gathered from blocks of {' or '.join(map(str, EMBEDDING_BITS))} bits; "
                f"not {embedding_bits}."
            )
        self.dtype = dtype
        self.external_bytes = external_bytes
        self.settings = MatMulSettings(bits, block, dtype.endswith("f16"), embedding_bits)

    @property
    def file_name(self) -> str:
        """``model_q4.onnx``, as transformers.js looks for it."""
        return f"model_{SUFFIXES[self.dtype]}.onnx"

    def grid(self, layer: str | None = None) -> ContainerGrid:
        """Symmetric; the last block of a row may be short. Scales have the activations' width."""
        bits, block = self.settings.bits, self.settings.block
        stored = bits + (16 if self.settings.half else 32) / block
        return ContainerGrid(SymmetricGrid(bits, block), lambda rows, _: rows > 0, bits_per_weight=stored)

    def storable(self, source: Path, linears: set[str]) -> dict[str, torch.Tensor | None]:
        """Those of ``linears`` that the checkpoint has tensors of their own for; inputs in the model's order."""
        snapshot = SourceSnapshot(source)
        return dict.fromkeys(name for name in linears if f"{name}.weight" in snapshot)

    def unquantized(self, source: Path, linears: set[str]) -> list[UnquantizedWeight]:
        """Matrices kept in the activations' type, and the vocabulary's, which are rounded to nearest at best."""
        kind = "float16" if self.settings.half else "float32"
        snapshot = SourceSnapshot(source)
        decoder_architecture(snapshot)
        bits, block = self.settings.embedding_bits, self.settings.block
        result = []
        for weight in unquantized_weights(snapshot, linears):
            if bits is not None and weight.name in VOCABULARY_WEIGHTS:
                stored = f"int{bits}, blocks of {block}"
                result.append(
                    weight.model_copy(
                        update={"type": stored, "reason": "embedding or output layer, rounded to nearest"}
                    )
                )
            else:
                result.append(weight.model_copy(update={"type": kind}))
        return result

    def write(self, source: Path, linears: dict[str, QuantizedLinear], output: Path) -> list[Path]:
        """Write ``onnx/model_*.onnx`` (weights beside it above 1.9 GB), ``config.json``, tokenizer, licence.

        Raises:
            ExportError: An architecture the graph builder does not know, scales the activations' type does not hold,
                an embedding that is to be rounded and holds values that are not finite.
        """
        snapshot = SourceSnapshot(source)
        replaced_tensors(snapshot, linears)
        graph = decoder_graph(snapshot, decoder_architecture(snapshot), linears, self.settings)
        with output_folder(output) as scratch:
            (scratch / "onnx").mkdir()
            external = graph.save(scratch / "onnx" / self.file_name, "decoder", self.external_bytes)
            settings: dict[str, Any] = {"dtype": self.dtype}
            if external:
                settings["use_external_data_format"] = {self.file_name: len(external)}
            if self.settings.half:
                settings["kv_cache_dtype"] = {self.dtype: "float16"}
            config = {**snapshot.raw_config, "transformers.js_config": settings}
            (scratch / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
            snapshot.copy("onnx", scratch)
        return files_of(output)

    def load(
        self, directory: Path, device: str = "cpu", source: Path | None = None, by_blocks: bool = False
    ) -> ReferenceModel:
        """The graph in onnxruntime."""
        return OnnxReferenceModel(directory / "onnx" / self.file_name, device)

    def decode(self, directory: Path, name: str, source: Path | None = None) -> torch.Tensor:
        """Weight ``[out, in]`` float32 as onnxruntime's own operators give it back.

        Linears, and an output layer in blocks of its own: what MatMulNBits makes of an identity matrix. An embedding in
        blocks: the rows that GatherBlockQuantized gathers.
        """
        model = onnx.load(directory / "onnx" / self.file_name)
        if f"{name}.weight" == EMBEDDING and self.settings.embedding_bits is not None:
            return _gathered(model)
        wanted = f"{name}.weight_quantized"
        node = next((node for node in model.graph.node if len(node.input) > 1 and node.input[1] == wanted), None)
        if node is None:
            raise ExportError(f"The graph has no quantized weight for {name[:200]!r}.")
        return _dequantized(node, _initializers(model, [node]))


class OnnxReferenceModel:
    """Log-probabilities from an ONNX decoder with an empty cache."""

    def __init__(self, path: Path, device: str = "cpu") -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        available = onnxruntime.get_available_providers()
        providers = ["CPUExecutionProvider"]
        if device.startswith("cuda") and "CUDAExecutionProvider" in available:
            providers.insert(0, "CUDAExecutionProvider")
        self.session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        self._caches = [item for item in self.session.get_inputs() if item.name.startswith("past_key_values.")]

    def log_probabilities(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Float32 ``[sequences, length, vocabulary]`` for ``input_ids`` ``[sequences, length]`` int64."""
        ids = input_ids.cpu().numpy().astype(np.int64)
        batch, length = ids.shape
        feeds: dict[str, Any] = {
            "input_ids": ids,
            "attention_mask": np.ones_like(ids),
            "position_ids": np.tile(np.arange(length, dtype=np.int64), (batch, 1)),
        }
        for cache in self._caches:
            kind = np.float16 if cache.type == "tensor(float16)" else np.float32
            feeds[cache.name] = np.zeros((batch, cache.shape[1], 0, cache.shape[3]), dtype=kind)
        logits = self.session.run(["logits"], feeds)[0]
        return torch.from_numpy(logits).log_softmax(dim=-1)


def _initializers(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> list[onnx.TensorProto]:
    wanted = {name for node in nodes for name in node.input}
    return [tensor for tensor in model.graph.initializer if tensor.name in wanted]


def _session_of(graph: onnx.GraphProto) -> onnxruntime.InferenceSession:
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def _gathered(model: onnx.ModelProto) -> torch.Tensor:
    """The embedding's rows, all of them, by the graph's own nodes."""
    nodes = [node for node in model.graph.node if node.name.startswith("/model/embed_tokens/")]
    ends = [number for number, node in enumerate(nodes) if node.op_type in ("GatherBlockQuantized", "Slice")]
    nodes = nodes[: ends[-1] + 1]
    tensors = _initializers(model, nodes)
    rows = next(tensor.dims[0] for tensor in tensors if tensor.name == f"{EMBEDDING}_scales")
    output = helper.make_empty_tensor_value_info(nodes[-1].output[0])
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, [1, "rows"])
    session = _session_of(helper.make_graph(nodes, "embedding", [ids], [output], initializer=tensors))
    parts = [
        session.run(None, {"input_ids": np.arange(start, min(start + _CHUNK, rows), dtype=np.int64)[None]})[0][0]
        for start in range(0, rows, _CHUNK)
    ]
    return torch.from_numpy(np.concatenate(parts)).to(torch.float32)


def _dequantized(node: onnx.NodeProto, tensors: list[onnx.TensorProto]) -> torch.Tensor:
    attributes = {item.name: item.i for item in node.attribute}
    columns, rows = attributes["K"], attributes["N"]
    kind = next(tensor.data_type for tensor in tensors if tensor.name == node.input[2])
    copy = helper.make_node(
        "MatMulNBits",
        ["identity", *node.input[1:]],
        ["weight"],
        domain="com.microsoft",
        **{**attributes, "accuracy_level": 0},
    )
    graph = helper.make_graph(
        [copy],
        "weight",
        [helper.make_tensor_value_info("identity", kind, ["chunk", columns])],
        [helper.make_tensor_value_info("weight", kind, ["chunk", rows])],
        initializer=tensors,
    )
    session = _session_of(graph)
    dtype = np.float16 if kind == TensorProto.FLOAT16 else np.float32
    weight = np.empty((rows, columns), dtype=np.float32)
    for start in range(0, columns, _CHUNK):
        end = min(start + _CHUNK, columns)
        identity = np.zeros((end - start, columns), dtype=dtype)
        identity[np.arange(end - start), np.arange(start, end)] = 1
        weight[:, start:end] = session.run(["weight"], {"identity": identity})[0].T
    return torch.from_numpy(weight)
