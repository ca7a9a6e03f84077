"""What llama.cpp cannot do as a checkpoint asks is refused by name before anything is computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import pytest
from tiny_checkpoints import save_checkpoint

from yaqa_runner.formats import ExportError
from yaqa_runner.formats.gguf.container import GgufContainer
from yaqa_runner.formats.gguf.engine_limits import refusals_of_settings

MINICPM3 = {
    "dim_model_base": 64,
    "num_key_value_heads": 4,
    "q_lora_rank": 32,
    "kv_lora_rank": 32,
    "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 16,
    "v_head_dim": 16,
}
MELLUM = {
    "num_experts": 4,
    "moe_intermediate_size": 32,
    "head_dim": 16,
    "layer_types": ["sliding_attention", "full_attention"],
}
LIMITS: dict[str, tuple[str, dict[str, Any], str]] = {
    "activation": ("llama", {"hidden_act": "relu"}, r"activation is 'relu', and llama\.cpp's is 'silu'"),
    "biases of qwen3": ("qwen3", {"attention_bias": True}, r"attention has biases \(blk\.0\.attn_k\.bias\)"),
    "biases of gemma3": (
        "gemma3_text",
        {"attention_bias": True, "head_dim": 16, "query_pre_attn_scalar": 16},
        "attention has biases",
    ),
    "short window": ("mistral", {"sliding_window": 8}, "attention window of 8 tokens"),
    "short window of qwen2": (
        "qwen2",
        {"sliding_window": 8, "use_sliding_window": True, "max_window_layers": 0},
        "attention window of 8 tokens",
    ),
    "short window of starcoder2": ("starcoder2", {"sliding_window": 8}, "attention window of 8 tokens"),
    "short window of phi3": ("phi3", {"sliding_window": 8}, "attention window of 8 tokens"),
    "query scale": ("gemma2", {"head_dim": 16, "query_pre_attn_scalar": 64}, "query_pre_attn_scalar is 64"),
    "layer types": (
        "gemma3_text",
        {"head_dim": 16, "query_pre_attn_scalar": 16, "layer_types": ["full_attention", "sliding_attention"]},
        "layer_types are not every 6th",
    ),
    "scale by layer": ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is True"),
    "part of a head turned": (
        "llama",
        {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}},
        "turns 8 of 16 dimensions",
    ),
    "width of another model": ("minicpm3", MINICPM3, "dim_model_base is 64"),
    "wide heads": ("cohere2", {"head_dim": 32}, "4 heads of 32 are not its width of 64"),
    "two rotary bases": (
        "mellum",
        {
            **MELLUM,
            "rope_parameters": {
                "full_attention": {"rope_type": "default", "rope_theta": 500000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            },
        },
        r"unlike bases \(10000 and 500000\)",
    ),
    "weights of experts of mellum": ("mellum", {**MELLUM, "norm_topk_prob": False}, "norm_topk_prob is False"),
    "weights of experts": (
        "qwen3_moe",
        {"num_experts": 4, "moe_intermediate_size": 32, "head_dim": 16, "norm_topk_prob": False},
        "norm_topk_prob is False",
    ),
}


@pytest.mark.parametrize("label", LIMITS)
def test_a_setting_that_the_engine_has_not_is_named(label: str, tmp_path: Path) -> None:
    kind, settings, message = LIMITS[label]
    source = save_checkpoint(tmp_path / "tiny", kind, **settings)
    with pytest.raises(ExportError, match=message):
        GgufContainer("q8_0").storable(source, set())


def test_a_wide_window_that_is_not_applied_limits_the_context_and_is_told(tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "tiny", "mistral", sliding_window=2048, max_position_embeddings=4096)
    GgufContainer("q8_0").write(source, {}, tmp_path / "out")
    (path,) = (tmp_path / "out").glob("*.gguf")
    assert gguf.GGUFReader(path).fields["llama.context_length"].contents() == 2048


def test_a_tensor_that_the_file_has_no_place_for_is_a_refusal(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    source = save_checkpoint(tmp_path / "tiny", "llama")
    tensors = load_file(source / "model.safetensors")
    tensors["model.layers.0.self_attn.extra_proj.weight"] = tensors["model.layers.0.mlp.up_proj.weight"].clone()
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ExportError, match=r"no name for the tensor 'model\.layers\.0\.self_attn\.extra_proj"):
        GgufContainer("q8_0").storable(source, set())


def test_every_tensor_of_a_source_is_quantized_kept_or_left_out_with_a_reason(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    source = save_checkpoint(tmp_path / "tiny", "llama", tie_word_embeddings=True)
    tensors = load_file(source / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = tensors["model.norm.weight"][:8].clone()
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    container = GgufContainer("q8_0")
    linears = {name.removesuffix(".weight") for name in tensors if "_proj" in name}
    quantized = set(container.storable(source, linears))
    listed = {weight.name: weight.reason for weight in container.unquantized(source, quantized)}
    assert quantized == linears
    assert "copy of the embedding" in listed["lm_head.weight"]
    assert "buffer" in listed["model.layers.0.self_attn.rotary_emb.inv_freq"]
    vectors = {name for name, tensor in tensors.items() if tensor.ndim == 1 and name not in listed}
    assert {f"{name}.weight" for name in quantized} | set(listed) | vectors == set(tensors)
    assert all("norm" in name for name in vectors)


@pytest.mark.parametrize(
    ("architecture", "settings", "told"),
    [
        ("gemma4", {"hidden_size_per_layer_input": 32}, "own input is 32 wide, and llama.cpp's gemma4 has 256"),
        ("gemma4", {"hidden_size_per_layer_input": 256}, None),
        ("gemma4", {"hidden_size_per_layer_input": 0}, None),
        ("gemma3n", {"activation_sparsity_pattern": [0.0] * 4}, "activation_sparsity_pattern is not 0.95"),
        ("gemma3n", {"activation_sparsity_pattern": [0.95] * 10 + [0.0] * 20}, None),
    ],
)
def test_what_the_engine_has_built_in_for_gemma_is_told(
    architecture: str, settings: dict[str, Any], told: str | None
) -> None:
    found = list(refusals_of_settings(architecture, {"model_type": "gemma3n_text", **settings}))
    assert (found == []) if told is None else (len(found) == 1 and told in found[0])
