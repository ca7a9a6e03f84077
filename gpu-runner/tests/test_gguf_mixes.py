"""Mixes as llama-quantize composes them: held against llama.cpp's own library, tensor by tensor."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from llama_cpp_library import llama_quantize_types
from tiny_checkpoints import load_original, save_checkpoint

from yaqa_runner.formats.container import QuantizedLinear
from yaqa_runner.formats.gguf.container import GgufContainer
from yaqa_runner.formats.gguf.mixes import MIX_NAMES, mix_types, model_shape
from yaqa_runner.grids.gguf import gguf_grid
from yaqa_runner.protocol.recipes import RECIPE_NAMES, parse_recipe


def plain_file(
    path: Path,
    *,
    architecture: str = "llama",
    blocks: int = 16,
    heads: tuple[int, int] = (4, 2),
    experts: int = 0,
    inner: int = 256,
    ties: bool = False,
    fused: bool = False,
) -> list[tuple[str, int]]:
    """A file in float32 of a model's header and matrices, all of them low; names and lengths of rows."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(blocks)
    writer.add_context_length(64)
    writer.add_embedding_length(256)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads[0])
    writer.add_head_count_kv(heads[1])
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_layer_norm_eps(1e-5)
    writer.add_vocab_size(8)
    if experts:
        writer.add_expert_count(experts)
        writer.add_expert_used_count(2)
    names = ["token_embd"] if ties else ["token_embd", "output"]
    attention = ("attn_qkv",) if fused else ("attn_q", "attn_k", "attn_v")
    parts = ("ffn_gate_exps", "ffn_up_exps", "ffn_down_exps") if experts else ("ffn_gate", "ffn_up", "ffn_down")
    names += [f"blk.{block}.{part}" for block in range(blocks) for part in (*attention, "attn_output", *parts)]
    shapes = [(f"{name}.weight", inner if "ffn_down" in name else 256) for name in names]
    noise = np.random.default_rng(0)
    for name, columns in shapes:
        height = (experts, 2) if "exps" in name else (2,)
        writer.add_tensor(name, noise.standard_normal((*height, columns)).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return shapes


@pytest.mark.parametrize("mix", MIX_NAMES)
def test_every_tensor_has_the_type_that_llama_quantize_gives_it(mix: str, tmp_path: Path) -> None:
    models: dict[str, dict[str, object]] = {
        "two heads a value": {},
        "four heads a value, tied": {"heads": (4, 1), "ties": True, "blocks": 9},
        "rows that no 256 divides": {"inner": 96, "blocks": 8},
        "eight experts": {"experts": 8, "blocks": 8},
        "four experts": {"experts": 4, "blocks": 8},
        "80 blocks": {"heads": (8, 1), "blocks": 80},
        "fused": {"architecture": "gpt2", "fused": True, "blocks": 8},
    }
    for label, settings in models.items():
        source = tmp_path / "plain.gguf"
        shapes = plain_file(source, **settings)  # type: ignore[arg-type]
        # Without one, what has few bits is refused; with one, the first blocks of Q4_0 and Q5_0 take offsets.
        theirs = llama_quantize_types(source, mix, with_importance=mix.startswith("iq"))
        ours = mix_types(mix, shapes, model_shape(str(settings.get("architecture", "llama")), source))
        expected = {name: theirs[name] for name, _ in shapes}
        assert ours == expected, label


def test_every_recipe_of_gguf_is_a_mix_and_says_which_types_it_has() -> None:
    rows = {row.name: row for row in RECIPE_NAMES if row.container == "gguf"}
    assert set(rows) == {f"gguf:{mix}" for mix in MIX_NAMES}
    for older, newer in (("gguf:q4_k", "gguf:q4_k_m"), ("gguf:q3_k,tune=off", "gguf:q3_k_m,tune=off")):
        assert parse_recipe(older) == parse_recipe(newer)


def test_a_mix_is_written_with_its_types_and_decodes_to_the_chosen_weights(tmp_path: Path) -> None:
    source = save_checkpoint(
        tmp_path / "tiny", "llama", hidden_size=256, intermediate_size=256, num_hidden_layers=3, num_attention_heads=4
    )
    model = load_original(source)
    modules = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name != "lm_head"
    }
    container = GgufContainer.of_mix("q4_k_m").composed(source, modules)
    linears = {}
    for name, module in modules.items():
        weight = module.weight.detach()
        grid = container.grid(name)
        fixed = grid.fit(weight)
        linears[name] = QuantizedLinear(name, fixed.nearest(weight), fixed, grid.type_of(*weight.shape))
    container.write(source, linears, tmp_path / "out")
    path = tmp_path / "out" / "tiny-Q4_K_M.gguf"
    reader = gguf.GGUFReader(path)
    assert reader.fields["general.file_type"].contents() == gguf.LlamaFileType.MOSTLY_Q4_K_M
    stored = {tensor.name: tensor for tensor in reader.tensors}
    types = {name: tensor.tensor_type.name.lower() for name, tensor in stored.items()}
    # Three blocks: of their eighths none is whole, so that every third takes more.
    assert [types[f"blk.{block}.attn_v.weight"] for block in range(3)] == ["q4_k", "q4_k", "q6_k"]
    assert [types[f"blk.{block}.ffn_down.weight"] for block in range(3)] == ["q4_k", "q4_k", "q6_k"]
    assert (types["token_embd.weight"], types["output.weight"]) == ("q4_k", "q6_k")
    unquantized = {weight.name: weight.type for weight in container.unquantized(source, set(linears))}
    assert unquantized["model.embed_tokens.weight"] == "Q4_K"
    for name, linear in linears.items():
        assert torch.equal(container.decode(tmp_path / "out", name), linear.grid.decode(linear.codes)), name
    embedding = model.get_input_embeddings().weight.detach()
    fixed = gguf_grid("q4_k").fit(embedding)
    decoded = gguf.quants.dequantize(stored["token_embd.weight"].data, stored["token_embd.weight"].tensor_type)
    assert np.array_equal(decoded, fixed.decode(fixed.nearest(embedding)).numpy())
