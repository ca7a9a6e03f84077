"""What may be loaded, what is refused, and which linears are found."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_checkpoints import save_checkpoint

from yaqa_runner.model.fetch import fetch_snapshot
from yaqa_runner.model.load import load_source_model
from yaqa_runner.model.snapshot import fingerprint_files, inspect_snapshot, link_snapshot
from yaqa_runner.protocol.failures import SourceRefused, UnsupportedModel

CPU = torch.device("cpu")


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return save_checkpoint(tmp_path / "llama", "llama")


def change_config(directory: Path, **changes: object) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8")


def test_linears_are_found_by_structure_and_embeddings_stay(llama: Path) -> None:
    source = load_source_model(inspect_snapshot(llama), CPU)
    assert len(source.linears) == 14
    assert {layer.block for layer in source.linears} == {0, 1}
    down = next(layer for layer in source.linears if layer.name == "model.layers.1.mlp.down_proj")
    assert (down.rows, down.columns) == (64, 96)
    assert tuple(down.weight().shape) == (64, 96)
    assert {(weight.name, weight.reason) for weight in source.unquantized} == {
        ("model.embed_tokens.weight", "embedding"),
        ("lm_head.weight", "outside the transformer blocks"),
    }


def test_conv1d_weights_come_out_by_in(tmp_path: Path) -> None:
    source = load_source_model(inspect_snapshot(save_checkpoint(tmp_path / "gpt2", "gpt2")), CPU)
    layer = next(layer for layer in source.linears if layer.name.endswith("h.0.mlp.c_fc"))
    assert (layer.rows, layer.columns) == (256, 64)
    x = torch.randn(3, 64)
    assert torch.allclose(layer.module(x), x @ layer.weight().T + layer.module.bias, atol=1e-4)


def test_tied_output_layers_are_not_quantized(tmp_path: Path) -> None:
    directory = save_checkpoint(tmp_path / "tied", "llama", tie_word_embeddings=True)
    source = load_source_model(inspect_snapshot(directory), CPU)
    assert "lm_head" not in {layer.name for layer in source.linears}


def test_experts_that_the_checkpoint_keeps_fused_stay_and_are_listed(tmp_path: Path) -> None:
    settings = {"num_local_experts": 2, "num_experts_per_tok": 1, "head_dim": 16}
    source = load_source_model(inspect_snapshot(save_checkpoint(tmp_path / "moe", "gpt_oss", **settings)), CPU)
    assert all("experts" not in layer.name for layer in source.linears)
    assert any("experts" in weight.name for weight in source.unquantized)


def test_pickle_only_repos_are_refused(llama: Path) -> None:
    (llama / "model.safetensors").rename(llama / "pytorch_model.bin")
    with pytest.raises(SourceRefused, match="pickles") as caught:
        inspect_snapshot(llama)
    assert "safetensors" in caught.value.remedy


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_remote_code_is_refused(llama: Path, name: str) -> None:
    path = llama / name
    content = {**json.loads(path.read_text(encoding="utf-8")), "auto_map": {"AutoModel": "evil.Model"}}
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(SourceRefused, match="auto_map"):
        inspect_snapshot(llama)


@pytest.mark.parametrize(
    "target", ["../secret.safetensors", "/etc/passwd", "a/../b.safetensors", ".hidden.safetensors"]
)
def test_an_index_that_points_outside_is_refused(llama: Path, target: str) -> None:
    index = {"weight_map": {"model.embed_tokens.weight": target}}
    # A whole file comes before an index.
    (llama / "model.safetensors").unlink()
    (llama / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(SourceRefused, match="outside"):
        inspect_snapshot(llama)


def test_a_missing_shard_is_refused(llama: Path) -> None:
    index = {"weight_map": {"model.embed_tokens.weight": "model-00001-of-00002.safetensors"}}
    (llama / "model.safetensors").unlink()
    (llama / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(SourceRefused, match="missing"):
        inspect_snapshot(llama)


@pytest.mark.parametrize(
    "header", [b"", b"\xff" * 16, struct.pack("<Q", 2**40) + b"{}", struct.pack("<Q", 4) + b"{bad"]
)
def test_a_broken_safetensors_header_is_refused(llama: Path, header: bytes) -> None:
    (llama / "model.safetensors").write_bytes(header)
    with pytest.raises(SourceRefused, match="safetensors"):
        inspect_snapshot(llama)


def test_unknown_architectures_are_unsupported(llama: Path) -> None:
    change_config(llama, model_type="hyperlattice")
    with pytest.raises(UnsupportedModel, match="hyperlattice"):
        load_source_model(inspect_snapshot(llama), CPU)


def test_models_that_are_no_language_models_are_unsupported(llama: Path) -> None:
    change_config(llama, model_type="vit", architectures=["ViTModel"])
    with pytest.raises(UnsupportedModel, match="not a causal language model"):
        load_source_model(inspect_snapshot(llama), CPU)


def test_absurd_sizes_are_refused_before_anything_is_allocated(llama: Path) -> None:
    change_config(llama, num_hidden_layers=10**9)
    with pytest.raises(SourceRefused, match="layers"):
        inspect_snapshot(llama)
    change_config(llama, num_hidden_layers=2, vocab_size=10**12)
    with pytest.raises(SourceRefused, match="vocab_size"):
        inspect_snapshot(llama)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(llama: Path, value: float) -> None:
    tensors = load_file(llama / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight"][3, 5] = value
    save_file(tensors, llama / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SourceRefused, match=r"up_proj.*NaN or infinite"):
        load_source_model(inspect_snapshot(llama), CPU)


def test_missing_weights_are_refused(llama: Path) -> None:
    tensors = load_file(llama / "model.safetensors")
    del tensors["model.layers.1.self_attn.q_proj.weight"]
    save_file(tensors, llama / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SourceRefused, match="no weights for"):
        load_source_model(inspect_snapshot(llama), CPU)


def test_misshapen_weights_are_refused(llama: Path) -> None:
    tensors = load_file(llama / "model.safetensors")
    tensors["model.layers.1.self_attn.q_proj.weight"] = torch.zeros(8, 64, dtype=torch.bfloat16)
    save_file(tensors, llama / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SourceRefused):
        load_source_model(inspect_snapshot(llama), CPU)


@pytest.mark.parametrize("method", ["awq", "gptq", "bitsandbytes"])
def test_quantized_sources_are_unsupported_by_their_name(method: str, llama: Path) -> None:
    change_config(llama, quantization_config={"quant_method": method})
    with pytest.raises(UnsupportedModel, match=f"quantized already, by '{method}'"):
        inspect_snapshot(llama)


def test_empty_and_missing_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceRefused, match="empty"):
        inspect_snapshot(tmp_path)
    with pytest.raises(SourceRefused, match="does not exist"):
        inspect_snapshot(tmp_path / "nowhere")
    (tmp_path / "README.md").write_text("hello", encoding="utf-8")
    with pytest.raises(SourceRefused, match=r"config\.json"):
        inspect_snapshot(tmp_path)


def test_the_licence_comes_from_the_card_and_hostile_front_matter_is_ignored(llama: Path) -> None:
    readme = llama / "README.md"
    readme.write_text("---\nlicense: mit\n---\n# Model\n", encoding="utf-8")
    assert inspect_snapshot(llama).license == "mit"
    for text in ("---\nlicense: [1, 2]\n---\n", "---\n: : {\n---\n", "---\nlicense: 'a b<script>'\n---\n", "no front"):
        readme.write_text(text, encoding="utf-8")
        assert inspect_snapshot(llama).license is None


def test_only_allowed_files_are_linked_and_the_fingerprint_follows_the_weights(llama: Path, tmp_path: Path) -> None:
    (llama / "modeling_evil.py").write_text("boom", encoding="utf-8")
    (llama / "pytorch_model.bin").write_bytes(b"pickle")
    (llama / "LICENCE").write_text("terms", encoding="utf-8")
    templates = llama / "additional_chat_templates"
    templates.mkdir()
    (templates / "tool_use.jinja").write_text("{{ tools }}", encoding="utf-8")
    (templates / "tool_use.py").write_text("boom", encoding="utf-8")
    snapshot = inspect_snapshot(llama)
    linked = link_snapshot(snapshot, tmp_path / "links" / "name")
    names = {path.name for path in linked.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "LICENSE", "LICENCE"} <= names
    assert [path.name for path in (linked / "additional_chat_templates").iterdir()] == ["tool_use.jinja"]
    assert not {"modeling_evil.py", "pytorch_model.bin"} & names
    before = fingerprint_files(snapshot)
    change_config(llama, rms_norm_eps=1e-4)
    assert fingerprint_files(inspect_snapshot(llama)) != before


def test_a_folder_needs_no_hub(llama: Path) -> None:
    assert fetch_snapshot("demo/tiny", "0" * 40, str(llama)) == (llama, "0" * 40)
