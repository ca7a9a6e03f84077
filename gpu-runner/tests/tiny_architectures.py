"""Tiny random checkpoints of the causal architectures that transformers builds, from its configuration classes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from quantized_originals import STORED
from tiny_checkpoints import save_tokenizer
from tiny_settings import BLOCKS, FORMS, IMAGE_TEXT, OWN
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, PretrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

VOCABULARY = 320
# What a size is called by the configuration classes, and the tiny value of it.
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "vocab_size_per_layer_input": VOCABULARY,
    "hidden_size": 64,
    "n_embd": 64,
    "d_model": 64,
    "num_hidden_layers": BLOCKS,
    "n_layer": BLOCKS,
    "n_layers": BLOCKS,
    "num_attention_heads": 4,
    "n_head": 4,
    "n_heads": 4,
    "num_key_value_heads": 2,
    "kv_n_heads": 2,
    "num_kv_heads": 4,
    "head_dim": 32,
    "global_head_dim": 32,
    "swa_head_dim": 32,
    "intermediate_size": 96,
    "ffn_hidden_size": 96,
    "shared_intermediate_size": 96,
    "prefix_dense_intermediate_size": 96,
    "intermediate_size_mlp": 96,
    "moe_intermediate_size": 64,
    "expert_intermediate_size": 64,
    "shared_expert_intermediate_size": 64,
    "moe_shared_expert_intermediate_size": 64,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "moe_num_experts": 4,
    "num_experts_per_tok": 2,
    "num_experts_per_token": 2,
    "moe_top_k": 2,
    "moe_k": 2,
    "top_k_experts": 2,
    "n_shared_experts": 1,
    "moe_num_shared_experts": 1,
    "num_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "num_dense_layers": 1,
    "moe_layer_start_index": 1,
    "moe_layer_end_index": BLOCKS - 1,
    "kv_lora_rank": 32,
    "q_lora_rank": 32,
    "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 16,
    "v_head_dim": 32,
    "max_position_embeddings": 256,
    "original_max_position_embeddings": 256,
    "n_positions": 256,
    "max_seq_len": 256,
    "seq_length": 256,
    "sliding_window": 8,
    "attention_chunk_size": 256,
    "linear_key_head_dim": 32,
    "linear_value_head_dim": 32,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "conv_L_cache": 3,
    "mamba_n_heads": 8,
    "mamba_d_head": 16,
    "mamba_d_state": 32,
    "mamba_d_ssm": 128,
    "mamba_n_groups": 1,
    "mamba_dt_rank": 8,
    "mamba_num_heads": 8,
    "mamba_head_dim": 16,
    "ssm_state_size": 32,
    "mamba_chunk_size": 32,
    "chunk_size": 32,
    "state_size": 16,
    "time_step_rank": 8,
    "hidden_size_per_layer_input": 32,
    "index_topk": 64,
    "index_head_dim": 32,
    "index_n_heads": 4,
    "num_nextn_predict_layers": 0,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
VISION: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
    "depth": 2,
    "num_heads": 2,
    "out_hidden_size": 64,
}
# Multi-head latent attention has as many key-value heads as heads.
LATENT = (
    "deepseek_v2",
    "deepseek_v3",
    "deepseek_v32",
    "axk1",
    "axk2",
    "glm4_moe_lite",
    "glm_moe_dsa",
    "kimi_linear",
    "minicpm3",
    "youtu",
)


_ROUTER = re.compile(r"\.(gate|router|router\.(gate|layer|classifier|proj)|gate\.wg)\.weight$")


def shrunk(settings: dict[str, Any]) -> dict[str, Any]:
    """The tiny value of every size among ``settings``, and of those of the configurations in it."""
    small = {key: value for key, value in SIZES.items() if key in settings}
    for key, value in settings.items():
        if key.endswith("_config") and isinstance(value, dict):
            small[key] = shrunk(value)
    return small


def tiny_config(kind: str, **settings: Any) -> PretrainedConfig:
    """A configuration of ``kind`` (or ``kind:form``) with :data:`SIZES`, changed by ``settings``."""
    settings = {**FORMS.get(kind, {}), **settings}
    kind = kind.partition(":")[0]
    small = shrunk(CONFIG_MAPPING[kind]().to_dict())
    if kind in IMAGE_TEXT:
        known = CONFIG_MAPPING[kind]().to_dict()
        small["vision_config"] = {name: value for name, value in VISION.items() if name in known["vision_config"]}
        small["text_config"] |= OWN.get(known["text_config"]["model_type"], {})
    if kind in LATENT:
        small["num_key_value_heads"] = small["num_attention_heads"]
        small.pop("head_dim", None)
    if "mamba" in kind:
        # Their inner width follows from the expansion.
        small.pop("intermediate_size", None)
    return CONFIG_MAPPING[kind](**{**small, **OWN.get(kind, {}), **IMAGE_TEXT.get(kind, {}), **settings})


def tiny_model(kind: str, **settings: Any) -> PreTrainedModel:
    """A random float32 model of ``kind`` whose layers all have a say in its answer."""
    torch.manual_seed(0)
    base = kind.partition(":")[0]
    loader = AutoModelForImageTextToText if base in IMAGE_TEXT else AutoModelForCausalLM
    model: PreTrainedModel = loader.from_config(tiny_config(kind, **settings))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2 and not parameter.any():
                # Routers of nothing but zeros choose at random.
                parameter.normal_(std=0.02)
            if _ROUTER.search(name) and parameter.ndim == 2:
                # Where two experts are as good, the least rounding changes the choice; trained ones decide.
                parameter.mul_(4.0)
            # Norms and biases start as ones and zeros, which would hide a mix-up.
            if parameter.ndim == 1 and "A_log" not in name and not name.endswith((".D", "dt_bias")):
                parameter.add_(torch.randn_like(parameter) * 0.1)
            elif parameter.ndim >= 2 and base not in ("mamba", "falcon_mamba"):
                # Their scans make much of little: larger weights show the order of sums.
                parameter.mul_(4.0)
    return model.eval()


def save_tiny_model(
    kind: str, directory: Path, dtype: torch.dtype = torch.bfloat16, tokenizer: bool = True, **settings: Any
) -> Path:
    """``tiny_model`` as the Hub would keep it, with a byte-level tokenizer."""
    store = STORED.get(kind.partition(":")[2])
    # Released in a quantized form, the rest is in 16 bits.
    tiny_model(kind, **settings).to(dtype if store is None else torch.bfloat16).save_pretrained(directory)
    if store is not None:
        store(directory)
    if tokenizer:
        save_tokenizer(directory)
    return directory
