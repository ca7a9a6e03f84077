"""The mixes that GGUF files are named for: which tensor has which type in a ``Q4_K_M``.

As llama-quantize composes them (``llama_tensor_get_type`` of llama.cpp): the values of attention, its output and the
down projections take more bits than the rest, in some mixes only in some blocks; the output layer, or the embedding
where a model ties them, is Q6_K or Q5_K. What a row does not fit gives way as ``grids.gguf.gguf_type_for`` says. IQ
mixes are those that llama-quantize makes with an importance matrix, as everybody publishes them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import gguf

from yaqa_runner.grids.gguf import gguf_grid, gguf_type_for

_BLOCK = re.compile(r"blk\.(\d+)\.")
_OUTPUT = "output.weight"
_EMBEDDINGS = ("token_embd.weight", "per_layer_token_embd.weight")
VOCABULARY_TENSORS = (*_EMBEDDINGS, _OUTPUT)
_EIGHT_EXPERTS = 8
_FOUR_EXPERTS = 4
_MANY_SHARED_HEADS = 4
# 80 blocks: what llama.cpp calls the 70B of these, whose values are shared by eight heads.
_LARGE_BLOCKS = 80
_LARGE_ARCHITECTURES = ("llama", "qwen2", "deci")


@dataclass(frozen=True)
class ModelShape:
    """What a mix asks of the model.

    Attributes:
        architecture: llama.cpp's name.
        blocks: Of the decoder.
        heads_per_value: Heads of the queries that share one of the values.
        experts: Of a mixture; 0 without.
    """

    architecture: str
    blocks: int
    heads_per_value: int
    experts: int


@dataclass(frozen=True)
class _Place:
    """Number ``index`` of ``count`` tensors of a kind, in the order of the blocks."""

    index: int
    count: int
    model: ModelShape

    @property
    def in_first_eighth(self) -> bool:
        return self.index < self.count // 8

    @property
    def in_last_eighth(self) -> bool:
        return self.index >= 7 * self.count // 8

    @property
    def takes_more_bits(self) -> bool:
        """The first and the last eighth, and every third between."""
        return self.in_first_eighth or self.in_last_eighth or (self.index - self.count // 8) % 3 == 2


_Rule = Callable[[_Place], str | None]


def _shared(type_name: str) -> _Rule:
    """Where four heads or more share the values."""
    return lambda place: type_name if _is_shared(place) else None


def _is_shared(place: _Place) -> bool:
    return place.model.heads_per_value >= _MANY_SHARED_HEADS


def _keep(place: _Place) -> str | None:
    return None


def _always(type_name: str) -> _Rule:
    return lambda place: type_name


def _more_bits(type_name: str) -> _Rule:
    return lambda place: type_name if place.takes_more_bits else None


@dataclass(frozen=True)
class _Mix:
    """A mix: its type, and what rules change.

    Attributes:
        type: Of whatever no rule names.
        file_type: ``general.file_type``.
        value: The values of attention, alone or fused with queries and keys.
        value_of_large: Whether models of eight experts, and those of 80 blocks, take more for their values.
        down: The down projections.
        gate_and_up: The other projections of a block's feed-forward part.
        output: The output projection of attention, but for mixtures of eight experts.
        output_of_eight: The same of those.
        query_and_key: Queries and keys.
        key_of_eight: Keys of mixtures of eight experts.
        vocabulary: The output layer, or the embedding where a model ties them.
        embedding: The embedding where it is not tied.
    """

    type: str
    file_type: gguf.LlamaFileType
    value: _Rule = _keep
    value_of_large: bool = True
    down: _Rule = _keep
    gate_and_up: _Rule = _keep
    output: str | None = None
    output_of_eight: str | None = None
    query_and_key: str | None = None
    key_of_eight: str = "q8_0"
    vocabulary: str = "q6_k"
    embedding: str | None = None


def _two_bit_value(type_name: str) -> _Rule:
    """``q4_k`` where four heads or more share the values, or experts are four or more; else ``type_name``."""
    return lambda place: "q4_k" if _is_shared(place) or place.model.experts >= _FOUR_EXPERTS else type_name


def _first_eighth(type_name: str) -> _Rule:
    return lambda place: type_name if place.in_first_eighth else None


_MIXES: dict[str, _Mix] = {
    **{
        name: _Mix(
            name,
            file_type,
            value=_two_bit_value("q2_k"),
            value_of_large=False,
            down=_first_eighth("q2_k"),
            output_of_eight="q5_k",
            key_of_eight="q4_k",
            vocabulary="q5_k",
            embedding="q2_k",
        )
        for name, file_type in (
            ("iq2_xxs", gguf.LlamaFileType.MOSTLY_IQ2_XXS),
            ("iq2_xs", gguf.LlamaFileType.MOSTLY_IQ2_XS),
        )
    },
    **{
        name: _Mix(
            type_name,
            file_type,
            value=_two_bit_value("iq3_s"),
            value_of_large=False,
            down=_first_eighth("iq3_s"),
            output="iq3_s",
            output_of_eight="q5_k",
            key_of_eight="q4_k",
            vocabulary="q5_k",
            embedding="iq3_s",
        )
        for name, type_name, file_type in (
            ("iq2_s", "iq2_xs", gguf.LlamaFileType.MOSTLY_IQ2_S),
            ("iq2_m", "iq2_s", gguf.LlamaFileType.MOSTLY_IQ2_M),
        )
    },
    "iq3_xxs": _Mix(
        "iq3_xxs",
        gguf.LlamaFileType.MOSTLY_IQ3_XXS,
        value=_shared("q4_k"),
        output="iq3_s",
        output_of_eight="q5_k",
        query_and_key="iq2_s",
        vocabulary="q5_k",
        embedding="iq3_s",
    ),
    "iq3_xs": _Mix(
        "iq3_s",
        gguf.LlamaFileType.MOSTLY_IQ3_XS,
        value=_shared("q4_k"),
        gate_and_up=lambda place: None if place.in_first_eighth or place.in_last_eighth else "iq3_xxs",
        output_of_eight="q5_k",
        query_and_key="iq3_xxs",
    ),
    "iq3_s": _Mix("iq3_s", gguf.LlamaFileType.MOSTLY_IQ3_S, value=_shared("q4_k"), output_of_eight="q5_k"),
    "iq3_m": _Mix(
        "iq3_s",
        gguf.LlamaFileType.MOSTLY_IQ3_M,
        value=_always("q4_k"),
        down=lambda place: (
            "q4_k"
            if place.in_first_eighth or (place.model.experts == _EIGHT_EXPERTS and place.takes_more_bits)
            else None
        ),
        output="q4_k",
        output_of_eight="q5_k",
    ),
    "q4_0": _Mix("q4_0", gguf.LlamaFileType.MOSTLY_Q4_0),
    "q4_1": _Mix("q4_1", gguf.LlamaFileType.MOSTLY_Q4_1),
    "q5_0": _Mix("q5_0", gguf.LlamaFileType.MOSTLY_Q5_0),
    "q8_0": _Mix("q8_0", gguf.LlamaFileType.MOSTLY_Q8_0),
    "q2_k": _Mix(
        "q2_k",
        gguf.LlamaFileType.MOSTLY_Q2_K,
        value=lambda place: "q4_k" if _is_shared(place) else "q3_k",
        down=_always("q3_k"),
        output="q3_k",
        output_of_eight="q5_k",
    ),
    "q3_k_s": _Mix("q3_k", gguf.LlamaFileType.MOSTLY_Q3_K_S, output_of_eight="q5_k"),
    "q3_k_m": _Mix(
        "q3_k",
        gguf.LlamaFileType.MOSTLY_Q3_K_M,
        value=lambda place: "q5_k" if place.index < 2 else "q4_k",
        down=lambda place: "q5_k" if place.index < place.count // 16 else "q4_k",
        output="q4_k",
        output_of_eight="q5_k",
    ),
    "q3_k_l": _Mix(
        "q3_k", gguf.LlamaFileType.MOSTLY_Q3_K_L, value=_always("q5_k"), down=_always("q5_k"), output="q5_k"
    ),
    "q4_k_s": _Mix(
        "q4_k",
        gguf.LlamaFileType.MOSTLY_Q4_K_S,
        value=lambda place: "q5_k" if place.index < 4 else None,
        down=lambda place: "q5_k" if place.in_first_eighth else None,
        output_of_eight="q5_k",
    ),
    "q4_k_m": _Mix(
        "q4_k",
        gguf.LlamaFileType.MOSTLY_Q4_K_M,
        value=_more_bits("q6_k"),
        down=_more_bits("q6_k"),
        output_of_eight="q5_k",
    ),
    "iq4_nl": _Mix("iq4_nl", gguf.LlamaFileType.MOSTLY_IQ4_NL, value=_shared("q5_k"), output_of_eight="q5_k"),
    "iq4_xs": _Mix("iq4_xs", gguf.LlamaFileType.MOSTLY_IQ4_XS, value=_shared("q5_k"), output_of_eight="q5_k"),
    "q5_k_s": _Mix("q5_k", gguf.LlamaFileType.MOSTLY_Q5_K_S),
    "q5_k_m": _Mix("q5_k", gguf.LlamaFileType.MOSTLY_Q5_K_M, value=_more_bits("q6_k"), down=_more_bits("q6_k")),
    "q6_k": _Mix("q6_k", gguf.LlamaFileType.MOSTLY_Q6_K),
}
MIX_NAMES = tuple(_MIXES)


def mix_base(mix: str) -> str:
    """The type of most of the mix ``mix``: ``q4_k`` of ``q4_k_m``."""
    return _MIXES[mix].type


def mix_file_type(mix: str) -> int:
    """``general.file_type`` of a file of the mix ``mix``."""
    return int(_MIXES[mix].file_type)


def mix_types(mix: str, shapes: Sequence[tuple[str, int]], model: ModelShape) -> dict[str, str | None]:
    """The type of every tensor in a file of the mix ``mix``; ``None`` for one that no block fits.

    Args:
        mix: ``q4_k_m``.
        shapes: Names of the file's matrices that are quantized, embedding and output layer included, each with the
            length of its rows; blocks in their order.
        model: The model's shape.
    """
    rules = _MIXES[mix]
    ties = all(name != _OUTPUT for name, _ in shapes)
    values = sum(_is_value(name) for name, _ in shapes)
    seen = 0
    downs = 0
    chosen: dict[str, str | None] = {}
    for name, columns in sorted(shapes, key=lambda shape: _block_of(shape[0])):
        if name == _OUTPUT or (ties and name == _EMBEDDINGS[0]):
            wanted = _vocabulary_type(rules, columns)
        elif name in _EMBEDDINGS:
            wanted = rules.embedding or rules.type
        elif _is_value(name):
            wanted = _value_type(rules, _Place(seen, values, model))
            seen += 1
        elif "ffn_down" in name:
            # The experts of a block stand in one tensor, and shared ones beside it: their block tells the place.
            place = _block_of(name) if model.experts > 1 else downs
            wanted = rules.down(_Place(place, model.blocks, model)) or rules.type
            downs += 1
        elif "attn_k.weight" in name and model.experts == _EIGHT_EXPERTS:
            wanted = rules.key_of_eight
        elif "attn_k.weight" in name or "attn_q.weight" in name:
            wanted = rules.query_and_key or rules.type
        elif "ffn_gate" in name or "ffn_up" in name:
            wanted = rules.gate_and_up(_Place(_block_of(name), model.blocks, model)) or rules.type
        elif "attn_output.weight" in name:
            own = rules.output_of_eight if model.experts == _EIGHT_EXPERTS else rules.output
            wanted = own or rules.type
        else:
            wanted = rules.type
        chosen[name] = gguf_type_for(wanted, 1, columns)
    return chosen


def model_shape(architecture: str, metadata: Path) -> ModelShape:
    """What the header of a GGUF file says of the model."""
    fields = gguf.GGUFReader(metadata).fields

    def number(key: str, missing: int) -> int:
        field = fields.get(f"{architecture}.{key}")
        value = missing if field is None else field.contents()
        # Models whose blocks differ give one for each; llama-quantize looks at the first.
        return int(value[0] if isinstance(value, list) else value)

    heads = number("attention.head_count", 1)
    return ModelShape(
        architecture=architecture,
        blocks=number("block_count", 0),
        heads_per_value=heads // max(1, number("attention.head_count_kv", heads)),
        experts=number("expert_count", 0),
    )


def _value_type(rules: _Mix, place: _Place) -> str:
    wanted = rules.value(place) or rules.type
    model = place.model
    if not rules.value_of_large:
        return wanted
    if model.blocks == _LARGE_BLOCKS and model.architecture in _LARGE_ARCHITECTURES and wanted in ("q3_k", "q4_k"):
        wanted = "q5_k"
    return "q8_0" if model.experts == _EIGHT_EXPERTS else wanted


def _vocabulary_type(rules: _Mix, columns: int) -> str:
    if rules.type == "q8_0" or not gguf_grid(rules.type).supports(1, columns):
        return "q8_0"
    return rules.vocabulary


def _is_value(name: str) -> bool:
    return any(part in name for part in ("attn_v.weight", "attn_qkv.weight", "attn_kv_b.weight"))


def _block_of(name: str) -> int:
    found = _BLOCK.match(name)
    return -1 if found is None else int(found[1])
