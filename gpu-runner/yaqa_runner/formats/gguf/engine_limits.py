"""What llama.cpp does otherwise than a checkpoint's configuration asks, architecture by architecture.

Each of these gave a file that loads and computes something else. Found by running llama.cpp beside transformers; what
is not known here is caught when the finished file is run.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from transformers.models.auto.configuration_auto import CONFIG_MAPPING

SMALLEST_WINDOW = 1024
"""Tokens of context that people use at the least; a file that is right no further is not written."""

_ACTIVATIONS = ("hidden_act", "hidden_activation", "activation_function", "activation", "mlp_hidden_act")
_SAME_ACTIVATION = {"swish": "silu", "relu_squared": "relu2"}
# llama.cpp's architectures whose attention has no window.
_NO_WINDOW = (
    "llama",
    "qwen2",
    "qwen2moe",
    "qwen3",
    "qwen3moe",
    "phi3",
    "phimoe",
    "starcoder2",
    "mistral3",
    "smollm3",
    "dots1",
)
# Every so-manieth layer sees the whole context; the others a window.
_WINDOW_PERIOD = {"gemma2": 2, "gemma3": 6, "cohere2": 4}
_LINEAR_HYBRIDS = ("qwen3next", "qwen35", "qwen35moe")
# It aborts on files of these.
_NOT_RUN = {"deepseek32": "it chooses keys by an indexer, whose matrices do not fit there"}
_ONE_ROTARY_BASE = ("mellum",)
_WIDTH_BY_LAYER = 256
_SPARSITY, _SPARSE_LAYERS = 0.95, 10
_ROTARY_PERIOD = {"smollm3": 4, "llama4": 4}
_HEADS_SHARE_WIDTH = ("chatglm", "cohere2", "nemotron")
_TURNS_WHOLE_HEADS = ("llama", "deci", "falcon")
_NO_ATTENTION_BIAS = ("qwen3", "qwen3moe", "gemma", "gemma2", "gemma3", "gemma3n", "gemma4", "olmo2", "exaone4")
# Settings that llama.cpp's architecture has built in, with the value it has there.
_BUILT_IN: dict[str, dict[str, Any]] = {
    "gpt2": {"scale_attn_by_inverse_layer_idx": False, "scale_attn_weights": True},
    "starcoder": {"scale_attn_by_inverse_layer_idx": False, "scale_attn_weights": True},
    "qwen3moe": {"norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": []},
    "qwen2moe": {"norm_topk_prob": False, "decoder_sparse_step": 1, "mlp_only_layers": []},
    "qwen3next": {"norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": []},
    "olmoe": {"norm_topk_prob": False},
    "mellum": {"norm_topk_prob": True},
    "afmoe": {"mup_enabled": True},
    "minicpm3": {"scale_emb": 12, "scale_depth": 1.4, "dim_model_base": 256},
}


def refusals_of_settings(architecture: str, settings: Mapping[str, Any]) -> Iterator[str]:
    """Why llama.cpp's ``architecture`` cannot compute what ``settings`` (of the language model) ask."""
    if architecture in _NOT_RUN:
        yield f"{_NOT_RUN[architecture]}, and llama.cpp's {architecture} ends"
    yield from _activation(settings)
    for name, value in _BUILT_IN.get(architecture, {}).items():
        asked = settings.get(name)
        if asked is not None and asked != value:
            yield f"{name} is {asked!r}, and llama.cpp's {architecture} computes as if it were {value!r}"
    window = window_ignored(architecture, settings)
    if window is not None and window < SMALLEST_WINDOW:
        yield f"it has an attention window of {window} tokens, which llama.cpp's {architecture} does not apply"
    hidden, heads, head = (settings.get(key) for key in ("hidden_size", "num_attention_heads", "head_dim"))
    if architecture in _HEADS_SHARE_WIDTH and head and hidden and heads and head * heads != hidden:
        yield f"{heads} heads of {head} are not its width of {hidden}, as llama.cpp's {architecture} has it"
    yield from _layer_pattern(architecture, settings)
    yield from _rotary_bases(architecture, settings)
    yield from _inputs_by_layer(architecture, settings)
    yield from _attention_scale(architecture, settings)


def window_ignored(architecture: str, settings: Mapping[str, Any]) -> int | None:
    """The attention window that llama.cpp does not apply, in tokens, where the context is longer."""
    window = settings.get("sliding_window")
    if not isinstance(window, int) or settings.get("use_sliding_window") is False:
        return None
    ignored = architecture in _NO_WINDOW or (architecture == "exaone4" and settings.get("num_hidden_layers") != 64)
    kinds = settings.get("layer_types")
    if not ignored or (isinstance(kinds, list) and "sliding_attention" not in kinds):
        return None
    context = settings.get("max_position_embeddings")
    return window if not isinstance(context, int) or window < context else None


def refusals_of_tensors(architecture: str, settings: Mapping[str, Any], names: set[str]) -> Iterator[str]:
    """Why llama.cpp's ``architecture`` does not read a file of tensors ``names``."""
    if architecture in _NO_ATTENTION_BIAS:
        biases = sorted(name for name in names if re.search(r"\.attn_(q|k|v|qkv|output)\.bias$", name))
        if biases:
            yield f"its attention has biases ({biases[0]}), which llama.cpp's {architecture} does not read"
    kind = _rope(settings).get("rope_type")
    if kind == "llama3" and "rope_freqs.weight" not in names:
        yield f"it stretches its rotary angles (llama3), which llama.cpp's {architecture} does not"
    if kind == "longrope" and not any("rope_factors" in name for name in names):
        yield f"it stretches its rotary angles (longrope), which llama.cpp's {architecture} does not"


def refusals_of_header(architecture: str, settings: Mapping[str, Any], header: Mapping[str, Any]) -> Iterator[str]:
    """Why a file with ``header`` makes llama.cpp compute something else."""
    turned = _turned_dimensions(settings)
    if turned is None or architecture not in _TURNS_WHOLE_HEADS:
        return
    head = _head_dimension(settings)
    if turned != head:
        yield f"it turns {turned} of {head} dimensions of a head, and llama.cpp's {architecture} turns all"


def _head_dimension(settings: Mapping[str, Any]) -> int | None:
    head = settings.get("head_dim")
    hidden, heads = settings.get("hidden_size"), settings.get("num_attention_heads")
    if head is None and isinstance(hidden, int) and isinstance(heads, int) and heads > 0:
        return hidden // heads
    return head if isinstance(head, int) else None


def _turned_dimensions(settings: Mapping[str, Any]) -> int | None:
    """Dimensions of a head that rotary angles turn; ``None`` where that is said in another way."""
    rope = _rope(settings)
    head = _head_dimension(settings)
    kinds = [part for part in (settings.get("rope_parameters") or {}).values() if isinstance(part, dict)]
    if head is None or not rope or kinds or settings.get("kv_lora_rank") is not None:
        return None
    fraction = rope.get("partial_rotary_factor", settings.get("partial_rotary_factor"))
    return head if fraction is None else int(head * fraction)


def corrected_header(
    architecture: str,
    settings: Mapping[str, Any],
    header: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
) -> dict[str, int | float]:
    """Numbers that the converter derives from others, or has built in, as the model has them."""
    corrected: dict[str, int | float] = {}
    rope = _rope(settings)
    factor, attention = rope.get("factor"), rope.get("attention_factor")
    if rope.get("rope_type") == "yarn" and attention is not None and factor is not None and factor > 1:
        # llama.cpp multiplies by what it derives from the factor; transformers takes one in place of the other.
        corrected[f"{architecture}.rope.scaling.attn_factor"] = attention / (1 + 0.1 * math.log(factor))
        # The converter writes it under this key as well, and llama.cpp multiplies by both.
        corrected[f"{architecture}.rope.scaling.yarn_attn_factor"] = 1.0
    turned, key = _turned_dimensions(settings), f"{architecture}.rope.dimension_count"
    if turned is not None and header.get(key, _head_dimension(settings)) != turned:
        corrected[key] = turned
    for key, ending, axis in (
        (f"{architecture}.feed_forward_length", r"\.ffn_down\.weight$", -1),
        (f"{architecture}.expert_shared_feed_forward_length", r"\.ffn_down_shexp\.weight$", -1),
    ):
        widths = {shape[axis] for name, shape in shapes.items() if re.search(ending, name)}
        told = header.get(key)
        if len(widths) == 1 and isinstance(told, int) and told not in widths:
            corrected[key] = widths.pop()
    return corrected


def _rope(settings: Mapping[str, Any]) -> dict[str, Any]:
    rope = settings.get("rope_parameters")
    rope = rope if isinstance(rope, dict) else {}
    full = rope.get("full_attention")
    return dict(full) if isinstance(full, dict) else dict(rope)


def _activation(settings: Mapping[str, Any]) -> Iterator[str]:
    try:
        usual = CONFIG_MAPPING[str(settings.get("model_type"))]()
    except (KeyError, TypeError, ValueError):
        return
    for name in _ACTIVATIONS:
        asked, known = settings.get(name), getattr(usual, name, None)
        if isinstance(asked, str) and isinstance(known, str) and _canonical(asked) != _canonical(known):
            yield f"its activation is {asked[:40]!r}, and llama.cpp's is {known!r} for this architecture"


def _canonical(activation: str) -> str:
    # Its tangent form and the exact one differ by less than the rounding of any 8-bit file.
    if activation.startswith("gelu"):
        return "gelu"
    return _SAME_ACTIVATION.get(activation, activation)


def _layer_pattern(architecture: str, settings: Mapping[str, Any]) -> Iterator[str]:
    kinds, period = settings.get("layer_types"), _WINDOW_PERIOD.get(architecture)
    if period is not None and isinstance(kinds, list):
        wanted = [
            "full_attention" if (number + 1) % period == 0 else "sliding_attention" for number in range(len(kinds))
        ]
        if kinds != wanted:
            yield f"its layer_types are not every {period}th with full attention, as llama.cpp's {architecture} has it"
    if architecture in _LINEAR_HYBRIDS and isinstance(kinds, list) and "full_attention" in kinds:
        interval = kinds.index("full_attention") + 1
        if any((kind == "full_attention") != ((number + 1) % interval == 0) for number, kind in enumerate(kinds)):
            yield f"its full attention is not every {interval}th layer, as llama.cpp's {architecture} has it"
    turned, period = settings.get("no_rope_layers"), _ROTARY_PERIOD.get(architecture)
    if period is None or not isinstance(turned, list):
        return
    if turned != [int((number + 1) % period != 0) for number in range(len(turned))]:
        yield f"its no_rope_layers are not every {period}th, as llama.cpp's {architecture} has it"


def _rotary_bases(architecture: str, settings: Mapping[str, Any]) -> Iterator[str]:
    """Layers with a window can turn by angles of their own."""
    parts = settings.get("rope_parameters")
    bases: set[float] = set()
    for part in parts.values() if isinstance(parts, dict) else ():
        if isinstance(part, dict) and isinstance(part.get("rope_theta"), (int, float)):
            bases.add(float(part["rope_theta"]))
    if architecture in _ONE_ROTARY_BASE and len(bases) > 1:
        told = " and ".join(f"{base:g}" for base in sorted(bases))
        yield f"its layers turn by angles of unlike bases ({told}), and llama.cpp's {architecture} has one for all"


def _inputs_by_layer(architecture: str, settings: Mapping[str, Any]) -> Iterator[str]:
    """Gemma 3n and 4 feed every layer a small embedding of its own."""
    width = settings.get("hidden_size_per_layer_input")
    if architecture in ("gemma3n", "gemma4") and width not in (None, 0, _WIDTH_BY_LAYER):
        yield f"every layer's own input is {width} wide, and llama.cpp's {architecture} has {_WIDTH_BY_LAYER}"
    pattern = settings.get("activation_sparsity_pattern")
    if architecture == "gemma3n" and isinstance(pattern, list):
        wanted = [_SPARSITY if number < _SPARSE_LAYERS else 0.0 for number in range(len(pattern))]
        if pattern != wanted:
            yield (
                f"its activation_sparsity_pattern is not {_SPARSITY} in the first {_SPARSE_LAYERS} layers and 0 in the "
                f"others, as llama.cpp's {architecture} has it"
            )


def _attention_scale(architecture: str, settings: Mapping[str, Any]) -> Iterator[str]:
    """Gemmas divide queries by the root of a number of the configuration; llama.cpp by one of the shapes'."""
    scalar, head = settings.get("query_pre_attn_scalar"), settings.get("head_dim")
    if architecture not in ("gemma2", "gemma3") or not isinstance(scalar, (int, float)) or not isinstance(head, int):
        return
    largest = settings.get("num_hidden_layers") == {"gemma2": 46, "gemma3": 62}[architecture]
    hidden, heads = settings.get("hidden_size"), settings.get("num_attention_heads")
    used = hidden // heads if largest and isinstance(hidden, int) and isinstance(heads, int) and heads > 0 else head
    if scalar != used:
        yield f"query_pre_attn_scalar is {scalar}, and llama.cpp's {architecture} scales by {used}"
