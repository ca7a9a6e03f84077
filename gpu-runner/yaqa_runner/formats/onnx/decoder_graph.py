"""The graph of a decoder with a key-value cache, in ONNX operators, ``MatMulNBits`` and ``GatherBlockQuantized``.

Inputs and outputs are named as Optimum exports them, so transformers.js and Optimum find what they expect:
``input_ids``, ``attention_mask``, ``position_ids``, ``past_key_values.N.key|value`` → ``logits``,
``present.N.key|value`` with caches ``[batch, key-value heads, length, head]``. Masks may have padding on either side.
Norms, rotary angles and softmax run in float32 also where activations are float16.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from onnx import TensorProto

from yaqa_runner.formats.affine_codes import affine_scales, exact_cast, unsigned_codes
from yaqa_runner.formats.container import QuantizedLinear
from yaqa_runner.formats.onnx.decoder_architecture import DecoderArchitecture, LayerArchitecture
from yaqa_runner.formats.onnx.model import OnnxModel
from yaqa_runner.formats.onnx.module_probes import Norm
from yaqa_runner.formats.packing import pack_bits, pack_blocks
from yaqa_runner.formats.quantized_embedding import quantized_embedding
from yaqa_runner.formats.source import SourceSnapshot
from yaqa_runner.grids.affine_search import ScalePrecision
from yaqa_runner.grids.symmetric import SymmetricGrid

MICROSOFT = "com.microsoft"
EMBEDDING = "model.embed_tokens.weight"
OUTPUT_LAYER = "lm_head.weight"
VOCABULARY_WEIGHTS = (EMBEDDING, OUTPUT_LAYER)


@dataclass(frozen=True)
class MatMulSettings:
    """How matrices are stored.

    Attributes:
        bits: Of the linears: 2, 4 or 8.
        block: Inputs that share a scale.
        half: Whether activations, scales and caches are float16.
        embedding_bits: Of embedding and output layer, 4 or 8; ``None``: they stay in the activations' type.
    """

    bits: int
    block: int
    half: bool
    embedding_bits: int | None = None


def accuracy_level(bits: int) -> int:
    """MatMulNBits' own: 0 computes in the activations' type, 4 rounds activations to int8.

    Level 0 was measured 100 times slower on CPUs at 2 and 8 bits.
    """
    return 0 if bits == 4 else 4


def decoder_graph(
    snapshot: SourceSnapshot,
    architecture: DecoderArchitecture,
    linears: dict[str, QuantizedLinear],
    settings: MatMulSettings,
) -> OnnxModel:
    """The model of ``snapshot`` with ``linears`` in MatMulNBits.

    Every other weight is in the activations' type, but for embedding and output layer where ``settings`` say so.

    Raises:
        ExportError: An embedding that is to be quantized holds values that are not finite.
    """
    return _Builder(snapshot, architecture, linears, settings).build()


class _Builder:
    def __init__(
        self,
        snapshot: SourceSnapshot,
        architecture: DecoderArchitecture,
        linears: dict[str, QuantizedLinear],
        settings: MatMulSettings,
    ) -> None:
        self.snapshot = snapshot
        self.architecture = architecture
        self.linears = linears
        self.settings = settings
        self.model = OnnxModel()
        self.growth: str | None = None
        self._vocabulary: dict[str, QuantizedLinear] = {}
        self.type = TensorProto.FLOAT16 if settings.half else TensorProto.FLOAT
        self.numpy_type: Any = np.float16 if settings.half else np.float32

    def build(self) -> OnnxModel:
        model, shape = self.model, self.architecture
        ids = model.input("input_ids", TensorProto.INT64, ("batch_size", "sequence_length"))
        mask = model.input("attention_mask", TensorProto.INT64, ("batch_size", "total_sequence_length"))
        positions = model.input("position_ids", TensorProto.INT64, ("batch_size", "sequence_length"))
        cache = ("batch_size", shape.key_value_heads, "past_sequence_length", shape.head)
        for index in range(len(shape.layers)):
            for part in ("key", "value"):
                model.input(f"past_key_values.{index}.{part}", self.type, cache)
        model.output("logits", TensorProto.FLOAT, ("batch_size", "sequence_length", shape.vocabulary))
        present = ("batch_size", shape.key_value_heads, "total_sequence_length", shape.head)
        for index in range(len(shape.layers)):
            for part in ("key", "value"):
                model.output(f"present.{index}.{part}", self.type, present)

        self.growth = self._query_growth(positions)
        angles = {label: self._angles(positions, label) for label in self._used_rotaries()}
        biases = {window: self._bias(ids, mask, window) for window in {layer.window for layer in shape.layers}}
        stream = self._embedded(ids)
        if shape.embedding_multiplier != 1.0:
            stream = self._scaled(stream, shape.embedding_multiplier, "/model/embed_tokens/Mul")
        for index, layer in enumerate(shape.layers):
            rotary = None if layer.rotary is None else angles[layer.rotary]
            stream = self._layer(index, layer, stream, rotary, biases[layer.window])
        stream = self._norm(stream, shape.final_norm, "/model/norm")
        self._logits(stream, ids)
        return model

    def _embedded(self, ids: str) -> str:
        """Rows of the embedding, ``[batch, sequence, hidden]`` in the activations' type."""
        model, at = self.model, "/model/embed_tokens"
        bits, block = self.settings.embedding_bits, self.settings.block
        if bits is None:
            return model.node("Gather", [self._weight(EMBEDDING), ids], f"{at}/Gather", axis=0)
        # MatMulNBits wants the blocks as an axis of their own, the gathering operator wants plain rows. A reshaped
        # view lets both read one tensor of the file.
        packed, scales = self._packed(self._quantized_vocabulary(EMBEDDING), bits)
        rows, hidden = self.snapshot.shape(EMBEDDING)
        flat = model.node("Reshape", [packed, model.integers(rows, -1)], f"{at}/Reshape")
        value = model.node(
            "GatherBlockQuantized",
            [flat, ids, scales],
            f"{at}/GatherBlockQuantized",
            domain=MICROSOFT,
            bits=bits,
            block_size=block,
            gather_axis=0,
            quantize_axis=1,
        )
        if hidden % block == 0:
            return value
        bounds = [model.integers(0), model.integers(hidden), model.integers(-1)]
        return model.node("Slice", [value, *bounds], f"{at}/Slice")

    def _quantized_vocabulary(self, name: str) -> QuantizedLinear:
        """The embedding or the output layer in blocks, rounded once a graph."""
        bits = self.settings.embedding_bits
        assert bits is not None
        if name not in self._vocabulary:
            module = name.removesuffix(".weight")
            precision: ScalePrecision = "float16" if self.settings.half else "float32"
            grid = SymmetricGrid(bits, self.settings.block, precision)
            self._vocabulary[name] = quantized_embedding(module, self.snapshot.read(name), grid)
        return self._vocabulary[name]

    def _used_rotaries(self) -> list[str]:
        return sorted({layer.rotary for layer in self.architecture.layers if layer.rotary is not None})

    def _angles(self, positions: str, label: str) -> tuple[str, str]:
        """Cosine and sine ``[batch, 1, sequence, rotary width]``."""
        model, rotary = self.model, self.architecture.rotaries[label]
        at = f"/model/rotary_emb/{label}"
        wide = model.node("Cast", [positions], f"{at}/Cast", to=TensorProto.FLOAT)
        wide = model.node("Unsqueeze", [wide, model.integers(1, 3)], f"{at}/Unsqueeze")
        frequencies = model.constant(rotary.frequencies.numpy(), np.float32)
        half = model.node("Mul", [wide, frequencies], f"{at}/Mul")
        if rotary.interleaved:
            pairs = model.node("Unsqueeze", [half, model.integers(-1)], f"{at}/Pairs")
            pairs = model.node("Concat", [pairs, pairs], f"{at}/Concat", axis=-1)
            full = model.node("Reshape", [pairs, model.integers(0, 0, 0, -1)], f"{at}/Reshape")
        else:
            full = model.node("Concat", [half, half], f"{at}/Concat", axis=-1)
        results = []
        for kind in ("Cos", "Sin"):
            value = model.node(kind, [full], f"{at}/{kind}")
            if rotary.scaling != 1.0:
                scale = model.constant(rotary.scaling, np.float32)
                value = model.node("Mul", [value, scale], f"{at}/{kind}/Mul")
            results.append(self._narrow(value, f"{at}/{kind}/Cast"))
        return results[0], results[1]

    def _query_growth(self, positions: str) -> str | None:
        """What queries are multiplied by, ``[batch, 1, sequence, 1]``."""
        if self.architecture.query_growth is None:
            return None
        (beta, context), model, at = self.architecture.query_growth, self.model, "/model/query_growth"
        wide = model.node("Cast", [positions], f"{at}/Cast", to=TensorProto.FLOAT)
        wide = model.node("Unsqueeze", [wide, model.integers(1, 3)], f"{at}/Unsqueeze")
        times = model.node("Div", [wide, model.constant(float(context), np.float32)], f"{at}/Div")
        times = model.node("Floor", [times], f"{at}/Floor")
        grown = model.node(
            "Log", [model.node("Add", [times, model.constant(1.0, np.float32)], f"{at}/Add")], f"{at}/Log"
        )
        grown = model.node("Mul", [grown, model.constant(beta, np.float32)], f"{at}/Mul")
        grown = model.node("Add", [grown, model.constant(1.0, np.float32)], f"{at}/One")
        return self._narrow(grown, f"{at}/Narrow")

    def _bias(self, ids: str, mask: str, window: int | None) -> str:
        """Float32 ``[batch, 1, sequence, total]``: 0 where a query may look, the lowest float elsewhere.

        A finite lowest value keeps rows without any allowed key (left padding) free of NaN.
        """
        model = self.model
        at = f"/model/mask/{'full' if window is None else window}"

        def length(value: str, name: str) -> str:
            shape = model.node("Shape", [value], f"{at}/{name}/Shape")
            return model.node("Gather", [shape, model.constant(1, np.int64)], f"{at}/{name}/Gather", axis=0)

        sequence, total = length(ids, "sequence"), length(mask, "total")
        past = model.node("Sub", [total, sequence], f"{at}/past")
        one, zero = model.constant(1, np.int64), model.constant(0, np.int64)
        queries = model.node("Range", [past, total, one], f"{at}/queries")
        queries = model.node("Unsqueeze", [queries, model.integers(1)], f"{at}/queries/Unsqueeze")
        keys = model.node("Range", [zero, total, one], f"{at}/keys")
        keys = model.node("Unsqueeze", [keys, model.integers(0)], f"{at}/keys/Unsqueeze")
        allowed = model.node("LessOrEqual", [keys, queries], f"{at}/causal")
        if window is not None:
            first = model.node("Sub", [queries, model.constant(window, np.int64)], f"{at}/first")
            near = model.node("Greater", [keys, first], f"{at}/near")
            allowed = model.node("And", [allowed, near], f"{at}/windowed")
        kept = model.node("Cast", [mask], f"{at}/kept", to=TensorProto.BOOL)
        kept = model.node("Unsqueeze", [kept, model.integers(1, 2)], f"{at}/kept/Unsqueeze")
        allowed = model.node("And", [allowed, kept], f"{at}/allowed")
        lowest = model.constant(np.finfo(np.float32).min, np.float32)
        return model.node("Where", [allowed, model.constant(0.0, np.float32), lowest], f"{at}/bias")

    def _layer(
        self, index: int, layer: LayerArchitecture, stream: str, rotary: tuple[str, str] | None, bias: str
    ) -> str:
        at = f"/{layer.prefix.replace('.', '/')}"
        read = self._normed(stream, layer.norm_before_attention, f"{at}/input_layernorm")
        value = self._attention(index, layer, read, rotary, bias)
        value = self._normed(value, layer.norm_after_attention, f"{at}/post_attention_layernorm")
        attended = self._residual(stream, value, f"{at}/attention_residual")
        if not layer.parallel:
            read = self._normed(attended, layer.norm_before_feed_forward, f"{at}/feed_forward_layernorm")
        value = self._feed_forward(layer, read)
        value = self._normed(value, layer.norm_after_feed_forward, f"{at}/post_feedforward_layernorm")
        return self._residual(attended, value, f"{at}/feed_forward_residual")

    def _normed(self, value: str, norm: Norm | None, at: str) -> str:
        return value if norm is None else self._norm(value, norm, at)

    def _residual(self, stream: str, value: str, at: str) -> str:
        if self.architecture.residual_multiplier != 1.0:
            value = self._scaled(value, self.architecture.residual_multiplier, f"{at}/Mul")
        return self.model.node("Add", [stream, value], f"{at}/Add")

    def _attention(
        self, index: int, layer: LayerArchitecture, value: str, rotary: tuple[str, str] | None, bias: str
    ) -> str:
        model, shape = self.model, self.architecture
        prefix = f"{layer.prefix}.self_attn"
        at = f"/{prefix.replace('.', '/')}"
        query, key, content = self._projected(layer, value, prefix)
        norms = (layer.query_norm, layer.key_norm)
        later = shape.norm_after_rotation
        query = self._heads(query, shape.heads, None if later else norms[0], f"{at}/query")
        key = self._heads(key, shape.key_value_heads, None if later else norms[1], f"{at}/key")
        content = self._heads(content, shape.key_value_heads, None, f"{at}/value")
        if rotary is not None:
            query = self._rotated(query, rotary, layer, f"{at}/query/rotary")
            key = self._rotated(key, rotary, layer, f"{at}/key/rotary")
        if later:
            query, key = (
                self._normed(query, norms[0], f"{at}/query/norm"),
                self._normed(key, norms[1], f"{at}/key/norm"),
            )
        if self.growth is not None:
            query = model.node("Mul", [query, self.growth], f"{at}/query/Growth")
        keys = model.node("Concat", [f"past_key_values.{index}.key", key], f"{at}/key/Concat", axis=2)
        keys = model.rename(keys, f"present.{index}.key")
        contents = model.node("Concat", [f"past_key_values.{index}.value", content], f"{at}/value/Concat", axis=2)
        contents = model.rename(contents, f"present.{index}.value")
        keys = self._repeated(keys, f"{at}/key")
        contents = self._repeated(contents, f"{at}/value")
        turned = model.node("Transpose", [keys], f"{at}/key/Turn", perm=[0, 1, 3, 2])
        query = self._scaled(query, shape.attention_scale, f"{at}/query/Scale")
        scores = model.node("MatMul", [query, turned], f"{at}/scores")
        scores = self._wide(scores, f"{at}/scores/Cast")
        if shape.attention_cap is not None:
            scores = self._capped(scores, shape.attention_cap, f"{at}/scores/cap")
        scores = model.node("Add", [scores, bias], f"{at}/scores/Add")
        shares = model.node("Softmax", [scores], f"{at}/Softmax", axis=-1)
        shares = self._narrow(shares, f"{at}/Softmax/Cast")
        mixed = model.node("MatMul", [shares, contents], f"{at}/mix")
        mixed = model.node("Transpose", [mixed], f"{at}/mix/Transpose", perm=[0, 2, 1, 3])
        mixed = model.node("Reshape", [mixed, model.integers(0, 0, shape.heads * shape.head)], f"{at}/mix/Reshape")
        mixed = self._normed(mixed, layer.norm_before_output, f"{at}/mix/norm")
        return self._linear(f"{prefix}.{layer.attention[-1]}", mixed)

    def _projected(self, layer: LayerArchitecture, value: str, prefix: str) -> tuple[str, str, str]:
        """Queries, keys and values ``[batch, sequence, heads·head]``."""
        model, shape = self.model, self.architecture
        at = f"/{prefix.replace('.', '/')}"
        width, narrow = shape.heads * shape.head, shape.key_value_heads * shape.head
        inputs = layer.attention[:-1]
        if len(inputs) == 3:
            parts = [self._linear(f"{prefix}.{name}", value) for name in inputs]
        elif inputs == ("query_key_value",):
            # Three by head.
            joined = self._linear(f"{prefix}.{inputs[0]}", value)
            joined = model.node("Reshape", [joined, model.integers(0, 0, shape.heads, 3, shape.head)], f"{at}/ByHead")
            split = model.split_node("Split", [joined, model.integers(1, 1, 1)], f"{at}/Split", 3, axis=3)
            parts = [
                model.node("Reshape", [part, model.integers(0, 0, width)], f"{at}/Row/{number}")
                for number, part in enumerate(split)
            ]
        else:
            joined = self._linear(f"{prefix}.{inputs[0]}", value)
            sizes = model.integers(width, narrow, narrow)
            parts = model.split_node("Split", [joined, sizes], f"{at}/Split", 3, axis=-1)
        if shape.clipped is not None:
            bounds = [model.constant(bound, self.numpy_type) for bound in (-shape.clipped, shape.clipped)]
            parts = [model.node("Clip", [part, *bounds], f"{at}/Clip/{number}") for number, part in enumerate(parts)]
        return parts[0], parts[1], parts[2]

    def _heads(self, value: str, heads: int, norm: Norm | None, at: str) -> str:
        """``[batch, sequence, heads·head]`` → ``[batch, heads, sequence, head]``, normed by head or by row."""
        model, head = self.model, self.architecture.head
        by_head = norm is not None and (not norm.weighted or self.snapshot.shape(f"{norm.path}.weight")[-1] == head)
        if norm is not None and not by_head:
            value = self._norm(value, norm, f"{at}/norm")
        value = model.node("Reshape", [value, model.integers(0, 0, heads, head)], f"{at}/Reshape")
        if norm is not None and by_head:
            value = self._norm(value, norm, f"{at}/norm")
        return model.node("Transpose", [value], f"{at}/Transpose", perm=[0, 2, 1, 3])

    def _rotated(self, value: str, rotary: tuple[str, str], layer: LayerArchitecture, at: str) -> str:
        model, head = self.model, self.architecture.head
        assert layer.rotary is not None
        half = int(self.architecture.rotaries[layer.rotary].frequencies.shape[0])
        sizes = [half, half] if 2 * half == head else [half, half, head - 2 * half]
        parts = model.split_node("Split", [value, model.integers(*sizes)], f"{at}/Split", len(sizes), axis=-1)
        first, second = parts[0], parts[1]
        turning = value
        if len(parts) == 3:
            turning = model.node("Concat", [first, second], f"{at}/Front", axis=-1)
        if self.architecture.rotaries[layer.rotary].interleaved:
            turned = self._turned_pairs(turning, f"{at}/pairs")
        else:
            negative = model.node("Neg", [second], f"{at}/Neg")
            turned = model.node("Concat", [negative, first], f"{at}/Turned", axis=-1)
        along = model.node("Mul", [turning, rotary[0]], f"{at}/Cos")
        across = model.node("Mul", [turned, rotary[1]], f"{at}/Sin")
        result = model.node("Add", [along, across], f"{at}/Add")
        if len(parts) == 3:
            result = model.node("Concat", [result, parts[2]], f"{at}/Concat", axis=-1)
        return result

    def _turned_pairs(self, value: str, at: str) -> str:
        """``(a, b)`` → ``(−b, a)`` for neighbours of the last axis."""
        model = self.model
        pairs = model.node("Reshape", [value, model.integers(0, 0, 0, -1, 2)], f"{at}/Reshape")
        first, second = model.split_node("Split", [pairs, model.integers(1, 1)], f"{at}/Split", 2, axis=-1)
        negative = model.node("Neg", [second], f"{at}/Neg")
        pairs = model.node("Concat", [negative, first], f"{at}/Turned", axis=-1)
        return model.node("Reshape", [pairs, model.integers(0, 0, 0, -1)], f"{at}/Row")

    def _repeated(self, value: str, at: str) -> str:
        model, shape = self.model, self.architecture
        share = shape.heads // shape.key_value_heads
        if share == 1:
            return value
        value = model.node("Unsqueeze", [value, model.integers(2)], f"{at}/Unsqueeze")
        value = model.node("Expand", [value, model.integers(1, 1, share, 1, 1)], f"{at}/Expand")
        return model.node("Reshape", [value, model.integers(0, shape.heads, -1, shape.head)], f"{at}/Repeat")

    def _feed_forward(self, layer: LayerArchitecture, value: str) -> str:
        model = self.model
        prefix = f"{layer.prefix}.mlp"
        at = f"/{prefix.replace('.', '/')}"
        inputs, output = layer.feed_forward
        found = [self._linear(f"{prefix}.{name}", value) for name in inputs]
        if inputs == ("gate_up_proj",):
            sizes = model.integers(self.architecture.inner, self.architecture.inner)
            found = model.split_node("Split", [found[0], sizes], f"{at}/Split", 2, axis=-1)
        product = self._activated(found[0], f"{at}/act_fn")
        if len(found) == 2:
            product = model.node("Mul", [product, found[1]], f"{at}/Mul")
        product = self._normed(product, layer.norm_inside, f"{at}/norm")
        return self._linear(f"{prefix}.{output}", product)

    def _activated(self, value: str, at: str) -> str:
        model, kind = self.model, self.architecture.activation
        if kind in ("relu", "relu2"):
            kept = model.node("Relu", [value], f"{at}/Relu")
            return kept if kind == "relu" else model.node("Mul", [kept, kept], f"{at}/Mul")
        if kind == "silu":
            share = model.node("Sigmoid", [value], f"{at}/Sigmoid")
            return model.node("Mul", [value, share], f"{at}/Mul")
        half = self._scaled(value, 0.5, f"{at}/Half")
        if kind == "gelu":
            inner = self._scaled(value, 0.5**0.5, f"{at}/Scale")
            curve = model.node("Erf", [inner], f"{at}/Erf")
        else:
            square = model.node("Mul", [value, value], f"{at}/Square")
            cube = model.node("Mul", [square, value], f"{at}/Cube")
            inner = model.node("Add", [value, self._scaled(cube, 0.044715, f"{at}/Small")], f"{at}/Sum")
            curve = model.node("Tanh", [self._scaled(inner, (2 / np.pi) ** 0.5, f"{at}/Scale")], f"{at}/Tanh")
        lifted = model.node("Add", [curve, model.constant(1.0, self.numpy_type)], f"{at}/Add")
        return model.node("Mul", [half, lifted], f"{at}/Mul")

    def _norm(self, value: str, norm: Norm, at: str) -> str:
        """``norm`` over the last axis, in float32."""
        model = self.model
        wide = self._wide(value, f"{at}/Cast")
        if norm.centered:
            middle = model.node("ReduceMean", [wide, model.integers(-1)], f"{at}/Middle", keepdims=1)
            wide = model.node("Sub", [wide, middle], f"{at}/Sub")
        square = model.node("Mul", [wide, wide], f"{at}/Square")
        mean = model.node("ReduceMean", [square, model.integers(-1)], f"{at}/ReduceMean", keepdims=1)
        epsilon = model.constant(norm.epsilon, np.float32)
        root = model.node("Sqrt", [model.node("Add", [mean, epsilon], f"{at}/Add")], f"{at}/Sqrt")
        normed = model.node("Div", [wide, root], f"{at}/Div")
        if norm.weighted:
            normed = model.node("Mul", [normed, self._wide_weight(f"{norm.path}.weight", norm.offset)], f"{at}/Mul")
        if f"{norm.path}.bias" in self.snapshot:
            normed = model.node("Add", [normed, self._wide_weight(f"{norm.path}.bias", 0.0)], f"{at}/Shift")
        return self._narrow(normed, f"{at}/Narrow")

    def _wide_weight(self, name: str, offset: float) -> str:
        """A weight in float32, ``offset`` added."""

        def make() -> npt.NDArray[Any]:
            return (self.snapshot.read(name).to(torch.float32) + offset).numpy()

        return self.model.weight(name, TensorProto.FLOAT, self.snapshot.shape(name), make)

    def _linear(self, module: str, value: str) -> str:
        linear = self.linears.get(module)
        at = f"/{module.replace('.', '/')}"
        if linear is None:
            name = f"{module}.weight"
            shape = self.snapshot.shape(name)
            weight = self._weight(name, turned=True)
            result = self.model.node("MatMul", [value, weight], f"{at}/MatMul")
            assert len(shape) == 2
        else:
            result = self._matmul_nbits(linear, self.settings.bits, value, f"{at}/MatMulNBits")
        bias = f"{module}.bias"
        if bias in self.snapshot:
            result = self.model.node("Add", [result, self._weight(bias)], f"{at}/Add")
        return result

    def _packed(self, linear: QuantizedLinear, bits: int) -> list[str]:
        """Codes ``[out, blocks, bytes]`` and scales ``[out, blocks]``; zero points where they are not the middle."""
        block = self.settings.block
        rows, columns = linear.codes.shape
        blocks = -(-columns // block)
        dtype = torch.float16 if self.settings.half else torch.float32

        def weight() -> npt.NDArray[Any]:
            return pack_blocks(unsigned_codes(linear, bits), bits, block, padding=1 << (bits - 1))

        def scales() -> npt.NDArray[Any]:
            return exact_cast(linear.name, affine_scales(linear, bits, block).scale, dtype).numpy()

        inputs = [
            self.model.weight(
                f"{linear.name}.weight_quantized", TensorProto.UINT8, (rows, blocks, block * bits // 8), weight
            ),
            self.model.weight(f"{linear.name}.weight_scales", self.type, (rows, blocks), scales),
        ]
        if affine_scales(linear, bits, block).zero is not None:
            width = -(-blocks * bits // 8)

            def zeros() -> npt.NDArray[Any]:
                points = affine_scales(linear, bits, block).zero
                assert points is not None
                return pack_bits(points, bits)

            inputs.append(
                self.model.weight(f"{linear.name}.weight_zero_points", TensorProto.UINT8, (rows, width), zeros)
            )
        return inputs

    def _matmul_nbits(self, linear: QuantizedLinear, bits: int, value: str, at: str) -> str:
        rows, columns = linear.codes.shape
        return self.model.node(
            "MatMulNBits",
            [value, *self._packed(linear, bits)],
            at,
            domain=MICROSOFT,
            K=columns,
            N=rows,
            bits=bits,
            block_size=self.settings.block,
            accuracy_level=accuracy_level(bits),
        )

    def _logits(self, stream: str, ids: str) -> None:
        model, shape = self.model, self.architecture
        if "lm_head" in self.linears:
            logits = self._linear("lm_head", stream)
        elif self.settings.embedding_bits is not None:
            linear = self._quantized_vocabulary(self._output_weight())
            logits = self._matmul_nbits(linear, self.settings.embedding_bits, stream, "/lm_head/MatMulNBits")
            if "lm_head.bias" in self.snapshot:
                logits = model.node("Add", [logits, self._weight("lm_head.bias")], "/lm_head/Add")
        else:
            # Gemm reads the embedding as it lies, so that a tied output layer costs no bytes and no second copy.
            name = self._output_weight()
            flat = model.node("Reshape", [stream, model.integers(-1, shape.hidden)], "/lm_head/Flat")
            bias = ["lm_head.bias"] if "lm_head.bias" in self.snapshot else []
            inputs = [flat, self._weight(name), *(self._weight(item) for item in bias)]
            rows = model.node("Gemm", inputs, "/lm_head/Gemm", transB=1)
            lengths = model.node("Shape", [ids], "/lm_head/Shape")
            target = model.node("Concat", [lengths, model.integers(shape.vocabulary)], "/lm_head/Concat", axis=0)
            logits = model.node("Reshape", [rows, target], "/lm_head/Reshape")
        logits = self._wide(logits, "/lm_head/Cast")
        if shape.logits_factor != 1.0:
            factor = model.constant(shape.logits_factor, np.float32)
            logits = model.node("Mul", [logits, factor], "/lm_head/Mul")
        if shape.logits_cap is not None:
            logits = self._capped(logits, shape.logits_cap, "/lm_head/cap")
        model.rename(logits, "logits")

    def _output_weight(self) -> str:
        return EMBEDDING if self.snapshot.tied else OUTPUT_LAYER

    def _weight(self, name: str, turned: bool = False) -> str:
        """A plain weight in the activations' type; ``turned`` transposes it."""
        shape = self.snapshot.shape(name)
        dtype = torch.float16 if self.settings.half else torch.float32

        def make() -> npt.NDArray[Any]:
            value = self.snapshot.read(name).to(dtype)
            return (value.T if turned else value).contiguous().numpy()

        return self.model.weight(name, self.type, shape[::-1] if turned else shape, make)

    def _scaled(self, value: str, factor: float, at: str) -> str:
        return self.model.node("Mul", [value, self.model.constant(factor, self.numpy_type)], at)

    def _capped(self, value: str, cap: float, at: str) -> str:
        limit = self.model.constant(cap, np.float32)
        inner = self.model.node("Tanh", [self.model.node("Div", [value, limit], f"{at}/Div")], f"{at}/Tanh")
        return self.model.node("Mul", [inner, limit], f"{at}/Mul")

    def _wide(self, value: str, at: str) -> str:
        return self.model.node("Cast", [value], at, to=TensorProto.FLOAT) if self.settings.half else value

    def _narrow(self, value: str, at: str) -> str:
        return self.model.node("Cast", [value], at, to=self.type) if self.settings.half else value
