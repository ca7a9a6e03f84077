"""What mlx-lm (0.32) makes of a checkpoint's configuration: which it reads, and what it computes whatever they say.

The kinds of models are those whose tensors mlx-lm calls as transformers does. Its ``sanitize`` takes nothing of theirs
but a tied output layer and stored rotary angles, which are not written in the first place. Each was run beside
transformers (``tests/test_mlx_files.py``); settings that mlx-lm ignores were found by holding the fields of its
``ModelArgs`` against transformers' configurations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from transformers import PretrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from yaqa_runner.config import read_list
from yaqa_runner.formats.gguf.engine_limits import SMALLEST_WINDOW
from yaqa_runner.formats.source import ExportError, SourceSnapshot

MODEL_TYPES: tuple[str, ...] = tuple(read_list("containers.json")["mlx"]["modelTypes"])
_ACTIVATIONS = ("hidden_act", "hidden_activation", "activation_function")
_STRETCHED = ("linear", "llama3", "yarn")
# Keys that mlx-lm reads and transformers does not: a checkpoint has no say in them.
_FOREIGN = ("model_file", "quantization", "quantization_config", "rope_traditional", "auto_map")


@dataclass(frozen=True)
class _Family:
    """What mlx-lm has built in for a kind of model.

    Attributes:
        stretched: Whether it reads how rotary angles are stretched.
        turned: Whether it reads which part of a head they turn.
        head: Whether it reads ``head_dim``; else a head is the width by the number of heads.
        tied: Whether the output layer is the embedding; ``None``: as the configuration says.
        windowed: Whether it applies attention windows.
        settings: Settings with the value that it has built in.
    """

    stretched: bool = False
    turned: bool = False
    head: bool = False
    tied: bool | None = None
    windowed: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)


_FAMILIES: dict[str, _Family] = {
    "cohere": _Family(tied=True, settings={"use_qk_norm": False}),
    "cohere2": _Family(tied=True, windowed=True),
    "ernie4_5": _Family(head=True),
    "gemma": _Family(head=True, tied=True, settings={"attention_bias": False}),
    "gemma2": _Family(head=True, tied=True, settings={"attention_bias": False}),
    "gemma3_text": _Family(
        head=True,
        windowed=True,
        settings={"attention_bias": False, "final_logit_softcapping": None, "attn_logit_softcapping": None},
    ),
    "glm4": _Family(turned=True, head=True, tied=False),
    "granite": _Family(stretched=True),
    "helium": _Family(),
    "hunyuan_v1_dense": _Family(head=True),
    "llama": _Family(stretched=True, head=True),
    "mistral": _Family(stretched=True, head=True),
    "nemotron": _Family(turned=True, head=True),
    "olmo2": _Family(stretched=True),
    "phi": _Family(turned=True, tied=False, settings={"qk_layernorm": False}),
    "phi3": _Family(turned=True),
    "qwen2": _Family(stretched=True),
    "qwen3": _Family(stretched=True, head=True, settings={"attention_bias": False}),
    "seed_oss": _Family(stretched=True, head=True),
    "smollm3": _Family(stretched=True),
    "stablelm": _Family(turned=True, tied=False, settings={"qk_layernorm": False}),
    "starcoder2": _Family(settings={"use_bias": True}),
}


def refuse_unlike(snapshot: SourceSnapshot) -> None:
    """Raise :class:`ExportError` where mlx-lm would not compute what the checkpoint asks."""
    kind = snapshot.config.model_type
    if kind not in MODEL_TYPES:
        raise ExportError(
            f"MLX folders are written for {', '.join(MODEL_TYPES)}; not for {kind[:64]!r}. Choose another container."
        )
    reason = next(refusals_of_settings(kind, snapshot.config.to_dict(), snapshot.tied), None)
    if reason is not None:
        raise ExportError(f"mlx-lm would compute something else: {reason}. Choose another container.")


def refusals_of_settings(kind: str, settings: Mapping[str, Any], tied: bool) -> Iterator[str]:
    """Why mlx-lm's ``kind`` cannot compute what ``settings`` ask; ``tied``: whether the files have no output layer."""
    family = _FAMILIES[kind]
    yield from _activation(kind, settings)
    for name, value in family.settings.items():
        asked = settings.get(name)
        if asked is not None and asked != value:
            yield f"{name} is {asked!r}, and mlx-lm's {kind} computes as if it were {value!r}"
    if settings.get("use_bidirectional_attention"):
        yield "its attention looks ahead"
    if family.tied is not None and family.tied != tied:
        has = "has no output layer of its own" if family.tied else "always has one"
        yield f"its output layer is {'the embedding' if tied else 'one of its own'}, and mlx-lm's {kind} {has}"
    head, hidden, heads = (settings.get(key) for key in ("head_dim", "hidden_size", "num_attention_heads"))
    if not family.head and head and hidden and heads and head * heads != hidden:
        yield f"{heads} heads of {head} are not its width of {hidden}, as mlx-lm's {kind} has it"
    yield from _windows(kind, family, settings)
    yield from _angles(kind, family, settings)


def engine_config(snapshot: SourceSnapshot) -> dict[str, Any]:
    """``config.json`` with the kind's every setting told, rotary ones as mlx-lm looks for them.

    What a checkpoint leaves to transformers' defaults, mlx-lm takes from its own, or asks for.
    """
    settings = snapshot.config.to_dict()
    general = PretrainedConfig().to_dict()
    own = {key: value for key, value in settings.items() if key not in general and not key.startswith("_")}
    config = {**own, **snapshot.raw_config, "tie_word_embeddings": snapshot.tied}
    for name in _FOREIGN:
        config.pop(name, None)
    whole, local = _rotary(settings)
    config["rope_theta"] = whole["rope_theta"]
    kind = whole.get("rope_type", "default")
    config["rope_scaling"] = None if kind == "default" else {**whole, "type": kind}
    if "partial_rotary_factor" in whole:
        config["partial_rotary_factor"] = whole["partial_rotary_factor"]
    if local is not None:
        config["rope_local_base_freq"] = local["rope_theta"]
    period = _period(settings)
    if period is not None:
        config["sliding_window_pattern"] = period
    return config


def _rotary(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """How angles turn in layers that see everything, and in those with a window where that is said apart."""
    rope = settings.get("rope_parameters") or {}
    if isinstance(rope.get("full_attention"), dict):
        return dict(rope["full_attention"]), dict(rope.get("sliding_attention") or rope["full_attention"])
    return dict(rope), None


def _period(settings: Mapping[str, Any]) -> int | None:
    """Every so-manieth layer sees the whole context; ``None`` where no layer has a window."""
    kinds = settings.get("layer_types")
    if not isinstance(kinds, list) or "sliding_attention" not in kinds:
        return None
    return kinds.index("full_attention") + 1 if "full_attention" in kinds else len(kinds) + 1


def _activation(kind: str, settings: Mapping[str, Any]) -> Iterator[str]:
    usual = CONFIG_MAPPING[kind]()
    for name in _ACTIVATIONS:
        asked, known = settings.get(name), getattr(usual, name, None)
        if isinstance(asked, str) and isinstance(known, str) and _canonical(asked) != _canonical(known):
            yield f"its activation is {asked[:40]!r}, and mlx-lm's {kind} has {known!r}"


def _canonical(activation: str) -> str:
    # Its tangent form and the exact one differ by less than the rounding of any 8-bit file.
    return "gelu" if activation.startswith("gelu") else {"swish": "silu"}.get(activation, activation)


def _windows(kind: str, family: _Family, settings: Mapping[str, Any]) -> Iterator[str]:
    kinds, period = settings.get("layer_types"), _period(settings)
    if family.windowed:
        if isinstance(kinds, list) and period is not None:
            wanted = ["full_attention" if (at + 1) % period == 0 else "sliding_attention" for at in range(len(kinds))]
            if kinds != wanted or period > len(kinds):
                yield f"its layer_types do not repeat, as mlx-lm's {kind} has it"
        return
    window = settings.get("sliding_window")
    if not isinstance(window, int) or settings.get("use_sliding_window") is False:
        return
    if isinstance(kinds, list) and period is None:
        return
    context = settings.get("max_position_embeddings")
    if window < SMALLEST_WINDOW and (not isinstance(context, int) or window < context):
        yield f"it has an attention window of {window} tokens, which mlx-lm's {kind} does not apply"


def _angles(kind: str, family: _Family, settings: Mapping[str, Any]) -> Iterator[str]:
    whole, local = _rotary(settings)
    stretch = whole.get("rope_type", "default")
    allowed = _STRETCHED if family.stretched else ("linear",) if kind == "gemma3_text" else ()
    if not isinstance(whole.get("rope_theta"), (int, float)):
        yield "its rotary angles have no base"
    if stretch != "default" and stretch not in allowed:
        yield f"it stretches its rotary angles ({stretch}), which mlx-lm's {kind} does in another way or not at all"
    if stretch == "yarn" and (whole.get("attention_factor") is not None or whole.get("truncate") is False):
        yield "its yarn has an attention_factor of its own or does not truncate, which mlx-lm does not read"
    if local is not None and local.get("rope_type", "default") != "default":
        yield f"its layers with a window stretch their rotary angles, which mlx-lm's {kind} does not"
    turned = whole.get("partial_rotary_factor", settings.get("partial_rotary_factor"))
    if not family.turned and turned not in (None, 1, 1.0):
        yield f"it turns {turned} of a head's dimensions, and mlx-lm's {kind} turns all"
