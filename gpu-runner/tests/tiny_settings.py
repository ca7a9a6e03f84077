"""What a kind of tiny model needs beyond its sizes, and forms of one kind that are released beside the usual one."""

from __future__ import annotations

from typing import Any

BLOCKS = 4
LLAMA3_ROPE: dict[str, Any] = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
# What a kind needs beyond that.
OWN: dict[str, dict[str, Any]] = {
    "afmoe": {"mup_enabled": True, "route_norm": True},
    "axk1": {"qk_head_dim": 48, "head_dim": 16},
    "axk2": {"qk_head_dim": 48, "head_dim": 16, "gated_norm_rank": 16},
    # Smaller weights: its scans make much of what llama.cpp rounds activations by.
    "bamba": {"attn_layer_indices": [1, 3], "initializer_range": 0.01},
    "codegen": {"rotary_dim": 16},
    "cohere": {"logit_scale": 1.0},
    "cohere2": {"head_dim": 16, "logit_scale": 1.0},
    "cohere2_moe": {"logit_scale": 1.0},
    "cohere_compass_text": {
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 10000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        }
    },
    "dbrx": {
        "attn_config": {"clip_qkv": 8, "kv_n_heads": 2, "rope_theta": 10000.0},
        "ffn_config": {"ffn_hidden_size": 96, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "deepseek_v4": {"o_groups": 2, "o_lora_rank": 32},
    "dots1": {"num_key_value_heads": 4},
    "exaone4": {"sliding_window": None, "layer_types": ["full_attention"] * BLOCKS},
    "falcon": {
        "multi_query": False,
        "new_decoder_architecture": True,
        "num_kv_heads": 2,
        "num_ln_in_parallel_attn": 2,
        "ffn_hidden_size": 256,
    },
    "gemma3n_text": {
        "num_kv_shared_layers": 0,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        # What llama.cpp has built in: the released ones have these.
        "activation_sparsity_pattern": [0.95] * BLOCKS,
        "hidden_size_per_layer_input": 256,
        "intermediate_size": [96] * BLOCKS,
    },
    "gemma2": {"query_pre_attn_scalar": 32},
    "gemma3_text": {"query_pre_attn_scalar": 32},
    # What llama.cpp has built in.
    "gemma4_text": {"hidden_size_per_layer_input": 256},
    "glm": {"head_dim": 16},
    "gptj": {"rotary_dim": 16},
    # Smaller weights: what llama.cpp rounds activations by changes the choice of experts less.
    "granitemoeshared": {"initializer_range": 0.01},
    "granitemoehybrid": {"layer_types": ["mamba", "attention", "mamba", "attention"]},
    "helium": {"head_dim": 16, "num_key_value_heads": 4},
    "jamba": {
        "attn_layer_offset": 1,
        "attn_layer_period": 2,
        "expert_layer_offset": 1,
        "expert_layer_period": 2,
        "use_mamba_kernels": False,
    },
    "kimi_linear": {"linear_head_dim": 32, "linear_num_heads": 4},
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2, "block_auto_adjust_ff_dim": False},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "longcat_flash": {
        "head_dim": 16,
        "num_layers": 2,
        "moe_topk": 2,
        "zero_expert_num": 2,
        "expert_ffn_hidden_size": 64,
    },
    "mamba2": {"num_heads": 8, "head_dim": 16, "n_groups": 1, "state_size": 32},
    "mellum": {
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 10000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
    },
    "minicpm3": {"v_head_dim": 16},
    "ministral3": {"sliding_window": None},
    "mistral": {"sliding_window": None},
    "mixtral": {"sliding_window": None},
    "nemotron": {"head_dim": 16},
    "nemotron_h": {"n_groups": 1, "layers_block_type": ["mamba", "attention", "mlp", "mamba"]},
    "olmoe": {"num_key_value_heads": 4},
    "phi": {"num_key_value_heads": 4},
    "phi3": {"sliding_window": None},
    "phimoe": {"sliding_window": None},
    "qwen2_moe": {"sliding_window": None},
    "qwen3_5_moe_text": {"layer_types": ["linear_attention", "full_attention"] * 2},
    "qwen3_5_text": {"layer_types": ["linear_attention", "full_attention"] * 2},
    "qwen3_moe": {"norm_topk_prob": True, "initializer_range": 0.01},
    "qwen3_next": {"layer_types": ["linear_attention", "full_attention"] * 2},
    # llama.cpp does not load one without sections.
    "qwen3_vl_text": {
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "mrope_section": [6, 5, 5],
            "mrope_interleaved": True,
        }
    },
    "starcoder2": {"sliding_window": None},
    "xglm": {"attention_heads": 4, "num_layers": BLOCKS, "ffn_dim": 96},
    "zamba2": {
        "layers_block_type": ["mamba", "hybrid"] * 2,
        "n_mamba_heads": 8,
        "mamba_headdim": 16,
        "attention_head_dim": 32,
        "attention_hidden_size": 128,
        "num_query_groups": 4,
        "kv_channels": 16,
        "hybrid_layer_ids": [1, 3],
        "num_key_value_heads": 4,
        "adapter_rank": 16,
        "intermediate_size": 96,
    },
    "youtu": {"initializer_range": 0.01},
    "zaya": {"num_experts_per_tok": 1, "router_hidden_size": 32},
}
# Models of images and text, with what their configurations need beyond that of the language model.
IMAGE_TEXT: dict[str, dict[str, Any]] = {
    "gemma3": {"mm_tokens_per_image": 4, "image_token_index": 300, "boi_token_index": 301, "eoi_token_index": 302},
    "llama4": {"image_token_index": 300, "boi_token_index": 301, "eoi_token_index": 302},
    "llava": {"image_token_index": 300},
    "mistral3": {"image_token_index": 300},
    "qwen3_5": {"image_token_id": 300, "video_token_id": 301, "vision_start_token_id": 302, "vision_end_token_id": 303},
    "qwen3_vl": {
        "image_token_id": 300,
        "video_token_id": 301,
        "vision_start_token_id": 302,
        "vision_end_token_id": 303,
    },
}
# Forms that checkpoints of a kind are released in, ``kind:form``.
_YARN_ROPE = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64}
FORMS: dict[str, dict[str, Any]] = {
    "llama:tied": {
        "rope_parameters": {**LLAMA3_ROPE, "original_max_position_embeddings": 64},
        "tie_word_embeddings": True,
    },
    "llama:biased": {"attention_bias": True, "mlp_bias": True},
    "qwen2:tied": {"tie_word_embeddings": True},
    "qwen2:yarn": {"rope_parameters": _YARN_ROPE},
    "qwen3:tied": {"tie_word_embeddings": True},
    "qwen3:yarn": {"rope_parameters": _YARN_ROPE},
    "granite:untied": {"tie_word_embeddings": False},
    "stablelm:biased": {"use_qkv_bias": True},
    "smollm3:untied": {"tie_word_embeddings": False},
    "gemma4_text:dense": {"hidden_size_per_layer_input": 0},
    # Stored as `quantized_originals.py` has it.
    "qwen3:float8": {},
    "qwen3_moe:float8": {},
    "deepseek_v3:float8": {},
    "gpt_oss:mxfp4": {},
}


def own_settings(kind: str) -> dict[str, Any]:
    """Everything in this file that the tiny model of ``kind`` is made with."""
    base = kind.partition(":")[0]
    return {"own": OWN.get(base), "image": IMAGE_TEXT.get(base), "form": FORMS.get(kind)}
