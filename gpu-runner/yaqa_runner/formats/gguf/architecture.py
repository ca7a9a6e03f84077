"""How each transformers architecture is laid out in GGUF: names, row orders, metadata."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import gguf
import torch
from transformers import PretrainedConfig

from yaqa_runner.formats.source import ExportError


@dataclass(frozen=True)
class GgufLayout:
    """What differs between a checkpoint's tensors and llama.cpp's.

    Attributes:
        arch: llama.cpp's architecture.
        interleaved_rotary: q and k rows are stored with the two halves of every head interleaved.
        norm_offset: Added to norm weights (llama.cpp's Gemma multiplies by the stored value, transformers by 1 + it).
        transposed: Modules whose checkpoint weight is ``[in, out]`` (``Conv1D``).
        grouped_by_head: A fused query-key-value whose rows lie head by head, where llama.cpp wants all queries first.
    """

    arch: gguf.MODEL_ARCH
    interleaved_rotary: bool = False
    norm_offset: float = 0.0
    transposed: tuple[str, ...] = ()
    grouped_by_head: str | None = None


LAYOUTS: dict[str, GgufLayout] = {
    "llama": GgufLayout(gguf.MODEL_ARCH.LLAMA, interleaved_rotary=True),
    "mistral": GgufLayout(gguf.MODEL_ARCH.LLAMA, interleaved_rotary=True),
    "qwen2": GgufLayout(gguf.MODEL_ARCH.QWEN2),
    "qwen3": GgufLayout(gguf.MODEL_ARCH.QWEN3),
    "gemma": GgufLayout(gguf.MODEL_ARCH.GEMMA, norm_offset=1.0),
    "gemma2": GgufLayout(gguf.MODEL_ARCH.GEMMA2, norm_offset=1.0),
    "gemma3_text": GgufLayout(gguf.MODEL_ARCH.GEMMA3, norm_offset=1.0),
    "phi3": GgufLayout(gguf.MODEL_ARCH.PHI3),
    "olmo2": GgufLayout(gguf.MODEL_ARCH.OLMO2),
    "starcoder2": GgufLayout(gguf.MODEL_ARCH.STARCODER2),
    "gpt_neox": GgufLayout(gguf.MODEL_ARCH.GPTNEOX, grouped_by_head="query_key_value"),
    "phi": GgufLayout(gguf.MODEL_ARCH.PHI2),
    "gpt2": GgufLayout(gguf.MODEL_ARCH.GPT2, transposed=("c_attn", "c_proj", "c_fc")),
}
_IGNORED = re.compile(r"(rotary_emb\.inv_freq|\.(attn|attention)\.(masked_)?bias)$")


def layout_of(config: PretrainedConfig) -> GgufLayout:
    """The layout for ``config``.

    Raises:
        ExportError: llama.cpp's form of this architecture is not known here.
    """
    layout = LAYOUTS.get(config.model_type)
    if layout is None:
        known = ", ".join(sorted(LAYOUTS))
        raise ExportError(f"GGUF is written for {known}; not for {config.model_type[:64]!r}. Choose another container.")
    rope = rope_parameters(config)
    if rope.get("rope_type", "default") not in ("default", "linear", "llama3", "yarn", "dynamic"):
        raise ExportError(f"GGUF files with rope type {rope['rope_type']!r} are not written by this version.")
    return layout


def rope_parameters(config: PretrainedConfig) -> dict[str, Any]:
    """The rotary settings of full-attention layers, flat."""
    parameters = getattr(config, "rope_parameters", None) or {}
    nested = parameters.get("full_attention")
    return dict(nested) if isinstance(nested, dict) else dict(parameters)


class GgufNames:
    """Tensor names and row orders of one model."""

    def __init__(self, config: PretrainedConfig) -> None:
        self.config = config
        self.layout = layout_of(config)
        self.arch_name = gguf.MODEL_ARCH_NAMES[self.layout.arch]
        self._map = gguf.get_tensor_name_map(self.layout.arch, int(config.num_hidden_layers))

    def ignored(self, name: str) -> bool:
        """Buffers that every runtime computes for itself."""
        return _IGNORED.search(name) is not None

    def gguf_name(self, name: str) -> str:
        """``model.layers.0.mlp.up_proj.weight`` → ``blk.0.ffn_up.weight``."""
        mapped: str | None = self._map.get_name(name, try_suffixes=(".weight", ".bias"))
        if mapped is None and name == "lm_head.weight":
            mapped = "output.weight"
        if mapped is None:
            raise ExportError(f"llama.cpp has no name for the tensor {name[:200]!r} of {self.arch_name}.")
        return mapped

    def transposed(self, module: str) -> bool:
        """Whether the checkpoint keeps ``module``'s weight as ``[in, out]``."""
        return module.rsplit(".", 1)[-1] in self.layout.transposed

    def row_order(self, module: str) -> torch.Tensor | None:
        """Order in which ``module``'s output rows are stored; ``None`` where they stay.

        Row ``i`` of the file is row ``order[i]`` of the checkpoint. Rotary pairs ``(j, j + d/2)`` of a head become
        neighbours, as llama.cpp's llama rotates them; fused projections are sorted by part. Blocks run along inputs,
        so whole packed rows move.
        """
        kind = module.rsplit(".", 1)[-1]
        if kind == self.layout.grouped_by_head:
            heads, head = int(self.config.num_attention_heads), head_dimension(self.config)
            return torch.arange(heads * 3 * head).reshape(heads, 3, head).swapaxes(0, 1).reshape(-1)
        if not self.layout.interleaved_rotary or kind not in ("q_proj", "k_proj"):
            return None
        heads = int(self.config.num_attention_heads)
        if kind == "k_proj":
            heads = int(getattr(self.config, "num_key_value_heads", None) or heads)
        head = head_dimension(self.config)
        return torch.arange(heads * head).reshape(heads, 2, head // 2).swapaxes(1, 2).reshape(-1)


def head_dimension(config: PretrainedConfig) -> int:
    """Width of one attention head."""
    told = getattr(config, "head_dim", None)
    return int(told or config.hidden_size // config.num_attention_heads)


def add_metadata(writer: gguf.GGUFWriter, config: PretrainedConfig, model_name: str, file_type: int) -> None:
    """Write the ``general.*`` and architecture keys that llama.cpp reads."""
    layout = layout_of(config)
    writer.add_type("model")
    writer.add_name(model_name)
    writer.add_file_type(file_type)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    heads = int(config.num_attention_heads)
    key_values = int(getattr(config, "num_key_value_heads", None) or heads)
    writer.add_context_length(int(config.max_position_embeddings))
    writer.add_embedding_length(int(config.hidden_size))
    writer.add_block_count(int(config.num_hidden_layers))
    writer.add_feed_forward_length(int(_inner_size(config)))
    writer.add_head_count(heads)
    writer.add_vocab_size(int(config.vocab_size))
    if layout.arch is gguf.MODEL_ARCH.GPT2:
        writer.add_layer_norm_eps(float(config.layer_norm_epsilon))
        return
    writer.add_head_count_kv(key_values)
    if hasattr(config, "rms_norm_eps"):
        writer.add_layer_norm_rms_eps(float(config.rms_norm_eps))
    for key in ("norm_epsilon", "layer_norm_eps"):
        if not hasattr(config, "rms_norm_eps") and hasattr(config, key):
            writer.add_layer_norm_eps(float(getattr(config, key)))
    if hasattr(config, "use_parallel_residual"):
        writer.add_parallel_residual(bool(config.use_parallel_residual))
    head = head_dimension(config)
    if getattr(config, "head_dim", None):
        writer.add_key_length(head)
        writer.add_value_length(head)
    _add_rope(writer, config, head)
    window = getattr(config, "sliding_window", None)
    if window and layout.arch is not gguf.MODEL_ARCH.LLAMA and getattr(config, "use_sliding_window", True):
        writer.add_sliding_window(int(window))
    if getattr(config, "attn_logit_softcapping", None):
        writer.add_attn_logit_softcapping(float(config.attn_logit_softcapping))
    if getattr(config, "final_logit_softcapping", None):
        writer.add_final_logit_softcapping(float(config.final_logit_softcapping))


def _inner_size(config: PretrainedConfig) -> int:
    inner = getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None)
    return int(inner or 4 * config.hidden_size)


def _add_rope(writer: gguf.GGUFWriter, config: PretrainedConfig, head: int) -> None:
    rope = rope_parameters(config)
    fraction = float(rope.get("partial_rotary_factor", getattr(config, "partial_rotary_factor", 1.0)) or 1.0)
    writer.add_rope_dimension_count(int(head * fraction))
    theta = rope.get("rope_theta", getattr(config, "rope_theta", None))
    if theta is not None:
        writer.add_rope_freq_base(float(theta))
    local = (getattr(config, "rope_parameters", None) or {}).get("sliding_attention")
    if isinstance(local, dict) and local.get("rope_theta") is not None:
        writer.add_rope_freq_base_swa(float(local["rope_theta"]))
    kind = rope.get("rope_type", "default")
    if kind == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(rope["factor"]))
    elif kind == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(float(rope["factor"]))
        original = rope.get("original_max_position_embeddings") or config.max_position_embeddings
        writer.add_rope_scaling_orig_ctx_len(int(original))


def rope_frequency_factors(config: PretrainedConfig) -> torch.Tensor | None:
    """Float32 ``[head/2]`` divisors of the rotary frequencies for rope type ``llama3``; else ``None``.

    Long wavelengths are stretched by ``factor``, short ones stay, those between are blended (Llama 3.1).
    """
    rope = rope_parameters(config)
    if rope.get("rope_type") != "llama3":
        return None
    head = head_dimension(config)
    theta = float(rope.get("rope_theta", 10000.0))
    factor, low, high = (float(rope[key]) for key in ("factor", "low_freq_factor", "high_freq_factor"))
    original = float(rope["original_max_position_embeddings"])
    factors = []
    for index in range(0, head, 2):
        wavelength = 2 * math.pi * theta ** (index / head)
        if wavelength < original / high:
            factors.append(1.0)
        elif wavelength > original / low:
            factors.append(factor)
        else:
            smooth = (original / wavelength - low) / (high - low)
            factors.append(1 / ((1 - smooth) / factor + smooth))
    return torch.tensor(factors, dtype=torch.float32)
