"""llama.cpp's converter as this project uses it, and what has to be bridged until it follows transformers 5.

Runs in the converter's process only: what is changed here is changed for that process. Each bridge names what it is
for; ``tests/test_gguf_upstream.py`` says when one is no longer needed.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterator
from enum import IntEnum
from pathlib import Path
from types import ModuleType
from typing import Any

import transformers

# Classes of transformers that the converter knows by another name.
CLASS_NAMES = {
    "PhimoeForCausalLM": "PhiMoEForCausalLM",
    "MptForCausalLM": "MPTForCausalLM",
    "CwmForCausalLM": "LlamaForCausalLM",
}


class Upstream:
    """The converter's modules."""

    def __init__(self, conversion: ModuleType, gguf: ModuleType) -> None:
        self.conversion = conversion
        self.gguf = gguf
        self.base: Any = importlib.import_module("conversion.base")

    def load_all(self) -> None:
        """Import the module of every architecture."""
        self.conversion.load_all_models()

    def model_class(self, config: dict[str, Any]) -> Any | None:
        """The converter's class for a model of ``config``; ``None`` where it has none."""
        name = self.base.get_model_architecture(config, self.base.ModelType.TEXT)
        try:
            found = self.conversion.get_model_class(CLASS_NAMES.get(name, name))
        except NotImplementedError:
            return None
        # Prediction layers are left out and listed; without this, some classes count blocks that are not there.
        found.no_mtp = True
        return found


def load_upstream(folder: Path) -> Upstream:
    """Import the converter that lies in ``folder``: the package, or a checkout of llama.cpp.

    Raises:
        ImportError: there is none.
    """
    for part in (folder / "gguf-py", folder):
        if (part / "gguf").is_dir() or (part / "conversion").is_dir():
            sys.path.insert(0, str(part))
    for name in [name for name in sys.modules if name == "gguf" or name.startswith("gguf.")]:
        # The runner's own gguf package: an older one than the converter's.
        del sys.modules[name]
    gguf = importlib.import_module("gguf")
    for kind, names in missing_constants(folder, gguf).items():
        for name in sorted(names):
            _add_member(getattr(gguf, kind), name)
    upstream = Upstream(importlib.import_module("conversion"), gguf)
    _trust_no_code()
    return upstream


def missing_constants(folder: Path, gguf: ModuleType) -> dict[str, set[str]]:
    """Constants that the converter names and its ``gguf`` lacks: one such line keeps a whole module from loading."""
    text = "".join(path.read_text(encoding="utf-8") for path in sorted((folder / "conversion").glob("*.py")))
    missing = {}
    for kind in ("MODEL_ARCH", "MODEL_TENSOR"):
        known = set(getattr(gguf, kind).__members__)
        missing[kind] = set(re.findall(rf"gguf\.{kind}\.(\w+)", text)) - known
    return missing


def _add_member(kind: type[IntEnum], name: str) -> None:
    value = max(kind) + 1
    member = int.__new__(kind, value)
    member._name_, member._value_ = name, value
    kind._member_map_[name] = member
    kind._member_names_.append(name)
    kind._value2member_map_[value] = member


def _trust_no_code() -> None:
    """Some of the converter's classes ask for the model's own code; nobody gets it here."""
    for owner in (transformers.AutoTokenizer, transformers.AutoConfig):
        original = owner.from_pretrained

        def safe(path: Any, *arguments: Any, original: Callable[..., Any] = original, **settings: Any) -> Any:
            return original(path, *arguments, **{**settings, "trust_remote_code": False, "local_files_only": True})

        owner.from_pretrained = staticmethod(safe)


def bridge_settings(settings: dict[str, Any], raw: dict[str, Any]) -> dict[str, Any]:
    """``settings`` (transformers' view of ``config.json``) with the keys that transformers 5 no longer writes.

    ``raw`` is the file itself: what it says beyond ``settings`` is kept.
    """
    bridged = {**raw, **settings}
    for part in ("text_config", "vision_config", "audio_config"):
        if isinstance(bridged.get(part), dict):
            own = raw.get(part)
            bridged[part] = bridge_settings(bridged[part], own if isinstance(own, dict) else {})
    for name, value in _derived(bridged):
        if bridged.get(name) is None:
            bridged[name] = value
    if bridged.get("model_type") == "hunyuan_v1_moe" and isinstance(bridged.get("moe_topk"), int):
        bridged["moe_topk"] = [bridged["moe_topk"]] * int(bridged.get("num_hidden_layers") or 0)
    if bridged.get("model_type") == "mimo_v2_flash" and isinstance(bridged.get("rope_parameters"), dict):
        bridged["rope_parameters"] = {
            "partial_rotary_factor": bridged.get("partial_rotary_factor"),
            **bridged["rope_parameters"],
        }
    if bridged.get("model_type") == "nemotron_h" and "E" not in str(bridged.get("hybrid_override_pattern")):
        # Defaults of the configuration class, by which the converter would take it for a mixture.
        for name in _MIXTURE_KEYS:
            bridged.pop(name, None)
    for name in ("layer_types", "layers_block_type"):
        if isinstance(bridged.get(name), list) and bridged.get("model_type") in _MIXED_KINDS:
            bridged[name] = [_BLOCK_KINDS.get(kind, kind) for kind in bridged[name]]
    return bridged


# Hybrids whose kinds of blocks the converter reads by the names that they had before transformers 5.
_MIXED_KINDS = ("granitemoehybrid", "nemotron_h")
_BLOCK_KINDS = {"linear_attention": "mamba", "full_attention": "attention"}


# Routers that transformers gives a sigmoid, whatever the configuration says.
_SIGMOID_ROUTERS = (
    "deepseek_v3",
    "deepseek_v32",
    "dots1",
    "exaone_moe",
    "glm4_moe",
    "glm4_moe_lite",
    "glm_moe_dsa",
    "kimi_linear",
    "minimax_m2",
    "nemotron_h",
    "solar_open",
)
# Kinds of blocks, as one letter each.
_PATTERN = {"mamba": "M", "attention": "*", "mlp": "-", "moe": "E"}
_MIXTURE_KEYS = (
    "num_experts_per_tok",
    "n_routed_experts",
    "n_shared_experts",
    "moe_intermediate_size",
    "n_group",
    "topk_group",
    "scoring_func",
)


def _derived(settings: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Keys of older configurations, from those that say the same today."""
    kind = settings.get("model_type")
    rope = settings.get("rope_parameters")
    rope = rope if isinstance(rope, dict) else {}
    full = rope.get("full_attention")
    flat = full if isinstance(full, dict) else rope
    if "rope_theta" in flat:
        yield "rope_theta", flat["rope_theta"]
    fraction = flat.get("partial_rotary_factor", settings.get("partial_rotary_factor"))
    yield "rotary_pct", 1.0 if fraction is None else fraction
    if fraction is not None:
        yield "partial_rotary_factor", fraction
    if "n_positions" in settings:
        yield "n_ctx", settings["n_positions"]
    hidden, heads = settings.get("hidden_size"), settings.get("num_attention_heads")
    head = settings.get("head_dim")
    if head is None and isinstance(hidden, int) and isinstance(heads, int) and heads > 0:
        head = hidden // heads
    if kind == "falcon_h1":
        yield "head_dim", head
    if kind == "minimax_m2":
        yield "rotary_dim", int(head * fraction) if isinstance(head, int) and fraction is not None else head
    if kind in ("gemma4_text", "gemma4"):
        yield "global_head_dim", head
    if kind in _SIGMOID_ROUTERS:
        yield "scoring_func", "sigmoid"
    if kind == "bamba" and isinstance(head, int) and fraction is not None:
        yield "attn_rotary_emb", int(head * fraction)
    kinds = settings.get("layer_types")
    if isinstance(kinds, list) and "linear_attention" in kinds and "full_attention" in kinds:
        yield "full_attention_interval", kinds.index("full_attention") + 1
    if kind == "mimo_v2_flash":
        yield from (("swa_head_dim", head), ("swa_num_attention_heads", heads), ("topk_method", "noaux_tc"))
        yield "swa_v_head_dim", settings.get("v_head_dim")
        # transformers gives layers with a window twice as many.
        key_value_heads = settings.get("num_key_value_heads")
        yield "swa_num_key_value_heads", 2 * key_value_heads if isinstance(key_value_heads, int) else None
        yield "hybrid_layer_pattern", [int(kind == "sliding_attention") for kind in settings.get("layer_types") or []]
    if kind == "hunyuan_v1_moe":
        count = int(settings.get("num_hidden_layers") or 0)
        yield "moe_intermediate_size", [settings.get("intermediate_size")] * count
        yield "num_shared_expert", [1] * count
    dense = settings.get("mlp_layer_types")
    if isinstance(dense, list):
        yield (
            "first_k_dense_replace",
            next((number for number, part in enumerate(dense) if part != "dense"), len(dense)),
        )
    blocks = settings.get("layers_block_type")
    if isinstance(blocks, list):
        yield "num_hidden_layers", len(blocks)
        if kind == "nemotron_h":
            yield (
                "hybrid_override_pattern",
                "".join(_PATTERN.get(_BLOCK_KINDS.get(str(part), str(part)), "?") for part in blocks),
            )
