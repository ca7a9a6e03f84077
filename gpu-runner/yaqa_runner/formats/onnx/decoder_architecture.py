"""What an ONNX graph must know of a decoder, read from its modules: their names, and what they compute when asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PretrainedConfig

from yaqa_runner.config import read_list
from yaqa_runner.formats.onnx.module_probes import Norm, Rotary, activation_of, norm_of, rotaries_of
from yaqa_runner.formats.source import ExportError, SourceSnapshot
from yaqa_runner.formats.torch_reference import empty_model

# Modules tell what they compute, and not in which order: decoders whose order was held to transformers' by a test.
MODEL_TYPES: tuple[str, ...] = tuple(read_list("containers.json")["onnx"]["modelTypes"])
_STATIC_ROPE = ("default", "linear", "llama3", "yarn", "proportional")
# A window on every layer, where the configuration has no list of kinds.
_WINDOWED = ("mistral", "ministral3", "phi3", "starcoder2")
# Norms of queries and keys come after the angles.
_TURNED_BEFORE_NORM = ("hunyuan_v1_dense",)
# Inputs, activation and output of a feed-forward, as modules are called.
_FEED_FORWARDS = (
    (("gate_proj", "up_proj"), "down_proj"),
    (("gate_up_proj",), "down_proj"),
    (("up_proj",), "down_proj"),
    (("fc1",), "fc2"),
    (("c_fc",), "c_proj"),
    (("dense_h_to_4h",), "dense_4h_to_h"),
)


@dataclass(frozen=True)
class LayerArchitecture:
    """One block; norms are ``None`` where it has none.

    Attributes:
        prefix: The block's name.
        norm_before_attention: Of what attention reads.
        norm_after_attention: Of what attention adds.
        norm_before_feed_forward: Of what the feed-forward reads; ``None`` in a parallel block.
        norm_after_feed_forward: Of what the feed-forward adds.
        parallel: Whether the feed-forward reads what attention reads.
        query_norm: By head or by row, as its weight has it.
        key_norm: As ``query_norm``.
        norm_before_output: Of what attention's output layer reads.
        attention: Names of attention's linears in it: three, one of rows of query, key and value (``qkv_proj``), or one
            of three by head (``query_key_value``); then its output layer.
        feed_forward: Names of the inputs (gate and up, both in one, or one without gate) and of the output.
        norm_inside: Of what the feed-forward's output reads.
        window: Tokens that are seen, ``None`` for all.
        rotary: Kind of angles, ``None`` for no rotation.
    """

    prefix: str
    norm_before_attention: Norm | None
    norm_after_attention: Norm | None
    norm_before_feed_forward: Norm | None
    norm_after_feed_forward: Norm | None
    parallel: bool
    query_norm: Norm | None
    key_norm: Norm | None
    norm_before_output: Norm | None
    attention: tuple[str, ...]
    feed_forward: tuple[tuple[str, ...], str]
    norm_inside: Norm | None
    window: int | None
    rotary: str | None


@dataclass(frozen=True)
class DecoderArchitecture:
    """A whole decoder.

    Attributes:
        norm_after_rotation: Whether queries and keys are normed after they are turned.
        query_growth: β and context of ``1 + β ln(1 + ⌊position / context⌋)``, which queries grow by.
        clipped: Largest magnitude of queries, keys and values.
        logits_factor: Multiplies logits.
    """

    hidden: int
    heads: int
    key_value_heads: int
    head: int
    inner: int
    vocabulary: int
    activation: str
    attention_scale: float
    attention_cap: float | None
    logits_cap: float | None
    logits_factor: float
    embedding_multiplier: float
    residual_multiplier: float
    norm_after_rotation: bool
    query_growth: tuple[float, int] | None
    clipped: float | None
    final_norm: Norm
    layers: tuple[LayerArchitecture, ...]
    rotaries: dict[str, Rotary]


def decoder_architecture(snapshot: SourceSnapshot) -> DecoderArchitecture:
    """Read the architecture of ``snapshot``.

    Raises:
        ExportError: A kind of model, a module or a setting that the graph builder does not know.
    """
    config = snapshot.config
    kind = config.model_type
    if kind not in MODEL_TYPES:
        raise ExportError(
            f"ONNX graphs are built for {', '.join(MODEL_TYPES)}; not for {kind[:64]!r}. Choose another container."
        )
    model: Any = empty_model(config)
    decoder = model.model
    hidden = int(config.hidden_size)
    blocks = list(decoder.layers)
    attention = blocks[0].self_attn
    rotaries = _rotaries(config, decoder, attention)
    feed_forward = blocks[0].mlp
    heads = int(config.num_attention_heads)
    key_value_heads = int(getattr(config, "num_key_value_heads", None) or heads)
    head = int(getattr(config, "head_dim", None) or hidden // heads)
    if hasattr(attention, "query_key_value"):
        key_value_heads = heads
    return DecoderArchitecture(
        hidden=hidden,
        heads=heads,
        key_value_heads=key_value_heads,
        head=head,
        inner=int(config.intermediate_size),
        vocabulary=int(config.vocab_size),
        activation=_activation(feed_forward),
        attention_scale=float(attention.scaling),
        attention_cap=_optional(config, "attn_logit_softcapping"),
        logits_cap=_optional(config, "final_logit_softcapping"),
        logits_factor=_logits_factor(config),
        embedding_multiplier=_embedding_multiplier(decoder),
        residual_multiplier=float(getattr(blocks[0], "residual_multiplier", 1.0)),
        norm_after_rotation=kind in _TURNED_BEFORE_NORM,
        query_growth=_query_growth(config),
        clipped=_optional(config, "clip_qkv"),
        final_norm=_final_norm(decoder, hidden),
        layers=tuple(_layer(config, index, block, rotaries) for index, block in enumerate(blocks)),
        rotaries=rotaries,
    )


def _optional(config: PretrainedConfig, name: str) -> float | None:
    value = getattr(config, name, None)
    return None if value is None else float(value)


def _logits_factor(config: PretrainedConfig) -> float:
    if config.model_type == "granite":
        return 1.0 / float(config.logits_scaling)
    return float(getattr(config, "logits_scaling" if config.model_type == "hyperclovax" else "logit_scale", 1.0))


def _embedding_multiplier(decoder: Any) -> float:
    scale = getattr(decoder.embed_tokens, "scalar_embed_scale", None)
    return float(getattr(decoder, "embedding_multiplier", 1.0) if scale is None else scale)


def _query_growth(config: PretrainedConfig) -> tuple[float, int] | None:
    rope = getattr(config, "rope_parameters", None) or {}
    beta = rope.get("llama_4_scaling_beta")
    return None if not beta else (float(beta), int(rope["original_max_position_embeddings"]))


def _activation(feed_forward: nn.Module) -> str:
    for name in ("act_fn", "activation_fn", "act"):
        found = getattr(feed_forward, name, None)
        if callable(found):
            return activation_of(f"mlp.{name}", found)
    raise ExportError("The model's feed-forward has no activation that ONNX graphs of this version know.")


def _final_norm(decoder: Any, hidden: int) -> Norm:
    for name in ("norm", "final_layernorm"):
        found = getattr(decoder, name, None)
        if isinstance(found, nn.Module):
            return norm_of(f"model.{name}", found, hidden)
    raise ExportError("The model has no norm before its output layer.")


def _rotaries(config: PretrainedConfig, decoder: Any, attention: nn.Module) -> dict[str, Rotary]:
    parameters = getattr(config, "rope_parameters", None) or {}
    nested = [value for value in parameters.values() if isinstance(value, dict)]
    for settings in nested or [parameters]:
        kind = settings.get("rope_type", "default")
        if kind not in _STATIC_ROPE:
            raise ExportError(f"ONNX graphs with rope type {str(kind)[:64]!r} are not built by this version.")
    module = getattr(decoder, "rotary_emb", None)
    if module is None:
        raise ExportError("The model has no rotary embedding.")
    # Made again outside the meta device, where its buffers have values.
    return rotaries_of(type(module)(config), attention)


def _layer(config: PretrainedConfig, index: int, block: nn.Module, rotaries: dict[str, Rotary]) -> LayerArchitecture:
    prefix = f"model.layers.{index}"
    hidden = int(config.hidden_size)

    def norm(*names: str, within: nn.Module = block, at: str = prefix) -> Norm | None:
        for name in names:
            found = getattr(within, name, None)
            if isinstance(found, nn.Module) and not isinstance(found, nn.Identity):
                return norm_of(f"{at}.{name}", found, hidden)
        return None

    attention, feed_forward = block.get_submodule("self_attn"), block.get_submodule("mlp")
    before = norm("input_layernorm")
    middle, between = norm("post_attention_layernorm"), norm("pre_feedforward_layernorm")
    after = norm("post_self_attn_layernorm", "post_norm1")
    # The same name is of what attention adds, where another norm is of what comes in between.
    ordinary = before is not None and between is None
    types = getattr(config, "layer_types", None)
    kind = str(types[index]) if types else None
    window = getattr(config, "sliding_window", None)
    sliding = kind == "sliding_attention" if kind is not None else config.model_type in _WINDOWED
    return LayerArchitecture(
        prefix=prefix,
        norm_before_attention=before,
        norm_after_attention=after if ordinary else middle,
        norm_before_feed_forward=middle if ordinary else between,
        norm_after_feed_forward=norm("post_feedforward_layernorm", "post_mlp_layernorm", "post_norm2"),
        parallel=ordinary and middle is None,
        query_norm=norm("q_norm", "q_layernorm", "query_layernorm", within=attention, at=f"{prefix}.self_attn"),
        key_norm=norm("k_norm", "k_layernorm", "key_layernorm", within=attention, at=f"{prefix}.self_attn"),
        norm_before_output=norm("attn_sub_norm", within=attention, at=f"{prefix}.self_attn"),
        attention=_attention_names(attention),
        feed_forward=_feed_forward_names(feed_forward),
        norm_inside=norm("ffn_sub_norm", within=feed_forward, at=f"{prefix}.mlp"),
        window=int(window) if sliding and window else None,
        rotary=_rotary(config, index, kind, sliding, rotaries),
    )


def _rotary(
    config: PretrainedConfig, index: int, kind: str | None, sliding: bool, rotaries: dict[str, Rotary]
) -> str | None:
    turned = getattr(config, "no_rope_layers", None)
    if turned is not None and not turned[index]:
        return None
    only_windowed = config.model_type == "cohere2" or (
        config.model_type == "exaone4" and config.sliding_window is not None
    )
    if only_windowed and not sliding:
        return None
    return kind if kind in rotaries else "all"


def _attention_names(attention: nn.Module) -> tuple[str, ...]:
    output = "o_proj" if hasattr(attention, "o_proj") else "dense"
    for inputs in (("q_proj", "k_proj", "v_proj"), ("qkv_proj",), ("query_key_value",)):
        if all(hasattr(attention, name) for name in inputs):
            return (*inputs, output)
    raise ExportError("The model's attention has other matrices than ONNX graphs of this version know.")


def _feed_forward_names(feed_forward: nn.Module) -> tuple[tuple[str, ...], str]:
    for inputs, output in _FEED_FORWARDS:
        if all(hasattr(feed_forward, name) for name in (*inputs, output)):
            return inputs, output
    raise ExportError("The model's feed-forward has other matrices than ONNX graphs of this version know.")
