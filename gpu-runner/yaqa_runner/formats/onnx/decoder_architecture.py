"""What an ONNX graph must know of a decoder, read from its configuration and tensor names."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from transformers import PretrainedConfig

from yaqa_runner.formats.source import ExportError, SourceSnapshot
from yaqa_runner.formats.torch_reference import empty_model

# Decoders whose blocks are RMSNorm, rotary grouped-query attention and a gated feed-forward.
MODEL_TYPES = (
    "gemma",
    "gemma2",
    "gemma3_text",
    "granite",
    "llama",
    "mistral",
    "olmo2",
    "phi3",
    "qwen2",
    "qwen3",
    "smollm3",
)
ACTIVATIONS = ("silu", "swish", "gelu", "gelu_pytorch_tanh", "relu")
_STATIC_ROPE = ("default", "linear", "llama3", "yarn", "proportional")


@dataclass(frozen=True)
class Rotary:
    """Rotary angles of one kind of layer.

    Attributes:
        frequencies: Float32 ``[rotary width / 2]``.
        scaling: Multiplies cosine and sine.
    """

    frequencies: torch.Tensor
    scaling: float


@dataclass(frozen=True)
class LayerArchitecture:
    """One block. Norm fields are tensor names, ``None`` where the block has no such norm."""

    prefix: str
    norm_before_attention: str | None
    norm_after_attention: str | None
    norm_before_feed_forward: str | None
    norm_after_feed_forward: str | None
    fused_attention: bool
    fused_gate: bool
    query_norm: str | None
    key_norm: str | None
    window: int | None
    rotary: str | None


@dataclass(frozen=True)
class DecoderArchitecture:
    """A whole decoder."""

    hidden: int
    heads: int
    key_value_heads: int
    head: int
    inner: int
    vocabulary: int
    epsilon: float
    norm_offset: float
    activation: str
    attention_scale: float
    attention_cap: float | None
    logits_cap: float | None
    logits_divisor: float
    embedding_multiplier: float
    residual_multiplier: float
    layers: tuple[LayerArchitecture, ...]
    rotaries: dict[str, Rotary]


def head_dimension(config: PretrainedConfig) -> int:
    """Width of one attention head."""
    told = getattr(config, "head_dim", None)
    return int(told or config.hidden_size // config.num_attention_heads)


def decoder_architecture(snapshot: SourceSnapshot) -> DecoderArchitecture:
    """Read the architecture of ``snapshot``.

    Raises:
        ExportError: A kind of model or setting the graph builder does not know.
    """
    config = snapshot.config
    kind = config.model_type
    if kind not in MODEL_TYPES:
        raise ExportError(
            f"ONNX graphs are built for {', '.join(MODEL_TYPES)}; not for {kind[:64]!r}. Choose another container."
        )
    activation = getattr(config, "hidden_activation", None) or getattr(config, "hidden_act", None)
    if activation not in ACTIVATIONS:
        raise ExportError(f"ONNX graphs have no activation {str(activation)[:64]!r}.")
    gemma = kind.startswith("gemma")
    head = head_dimension(config)
    scalar = getattr(config, "query_pre_attn_scalar", None)
    scale = float(scalar) ** -0.5 if scalar is not None else head**-0.5
    if kind == "granite":
        scale = float(config.attention_multiplier)
    rotaries = _rotaries(config)
    layers = tuple(_layer(snapshot, index, rotaries) for index in range(int(config.num_hidden_layers)))
    heads = int(config.num_attention_heads)
    return DecoderArchitecture(
        hidden=int(config.hidden_size),
        heads=heads,
        key_value_heads=int(getattr(config, "num_key_value_heads", None) or heads),
        head=head,
        inner=int(config.intermediate_size),
        vocabulary=int(config.vocab_size),
        epsilon=float(config.rms_norm_eps),
        norm_offset=1.0 if gemma else 0.0,
        activation=str(activation),
        attention_scale=scale,
        attention_cap=_optional(config, "attn_logit_softcapping"),
        logits_cap=_optional(config, "final_logit_softcapping"),
        logits_divisor=float(getattr(config, "logits_scaling", 1.0)) if kind == "granite" else 1.0,
        embedding_multiplier=_embedding_multiplier(config, gemma),
        residual_multiplier=float(config.residual_multiplier) if kind == "granite" else 1.0,
        layers=layers,
        rotaries=rotaries,
    )


def _optional(config: PretrainedConfig, name: str) -> float | None:
    value = getattr(config, name, None)
    return None if value is None else float(value)


def _embedding_multiplier(config: PretrainedConfig, gemma: bool) -> float:
    if gemma:
        return math.sqrt(config.hidden_size)
    return float(getattr(config, "embedding_multiplier", 1.0)) if config.model_type == "granite" else 1.0


def _rotaries(config: PretrainedConfig) -> dict[str, Rotary]:
    parameters = getattr(config, "rope_parameters", None) or {}
    nested = [value for value in parameters.values() if isinstance(value, dict)]
    for settings in nested or [parameters]:
        kind = settings.get("rope_type", "default")
        if kind not in _STATIC_ROPE:
            raise ExportError(f"ONNX graphs with rope type {str(kind)[:64]!r} are not built by this version.")
    module = next((module for name, module in empty_model(config).named_modules() if name.endswith("rotary_emb")), None)
    if module is None:
        raise ExportError("The model has no rotary embedding.")
    # Made again outside the meta device, where its buffers have values.
    rotary = type(module)(config)
    result = {}
    for name, buffer in rotary.named_buffers():
        if not name.endswith("inv_freq") or name.endswith("original_inv_freq"):
            continue
        label = name.removesuffix("inv_freq").removesuffix("_") or "all"
        scaling = getattr(rotary, "attention_scaling" if label == "all" else f"{label}_attention_scaling")
        result[label] = Rotary(buffer.detach().to(torch.float32), float(scaling))
    return result


def _layer(snapshot: SourceSnapshot, index: int, rotaries: dict[str, Rotary]) -> LayerArchitecture:
    config = snapshot.config
    prefix = f"model.layers.{index}"

    def present(name: str) -> str | None:
        full = f"{prefix}.{name}.weight"
        return full if full in snapshot else None

    before = present("input_layernorm")
    after = present("post_attention_layernorm")
    between = present("pre_feedforward_layernorm")
    ordinary = before is not None and between is None
    types = getattr(config, "layer_types", None)
    kind = str(types[index]) if types else None
    window = getattr(config, "sliding_window", None)
    sliding = kind == "sliding_attention" if kind is not None else config.model_type in ("mistral", "phi3")
    rotary = kind if kind in rotaries else "all"
    no_rope = getattr(config, "no_rope_layers", None)
    return LayerArchitecture(
        prefix=prefix,
        norm_before_attention=before,
        norm_after_attention=None if ordinary else after,
        norm_before_feed_forward=after if ordinary else between,
        norm_after_feed_forward=present("post_feedforward_layernorm"),
        fused_attention=present("self_attn.qkv_proj") is not None,
        fused_gate=present("mlp.gate_up_proj") is not None,
        query_norm=present("self_attn.q_norm"),
        key_norm=present("self_attn.k_norm"),
        window=int(window) if sliding and window else None,
        rotary=None if no_rope is not None and not no_rope[index] else rotary,
    )
