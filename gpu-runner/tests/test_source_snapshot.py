from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_checkpoints import save_checkpoint
from transformers import AutoModelForCausalLM

from yaqa_runner.formats.source import ExportError, SourceSnapshot, safe_name
from yaqa_runner.model.snapshot import inspect_snapshot


def test_names_are_those_of_the_loaded_model(tmp_path: Path) -> None:
    for kind in ("llama", "gpt2"):
        source = save_checkpoint(tmp_path / kind, kind)
        snapshot = SourceSnapshot(source)
        model = AutoModelForCausalLM.from_pretrained(source)
        assert {name for name, _ in model.named_parameters()} <= set(snapshot.names())
        for name, parameter in model.named_parameters():
            assert torch.equal(snapshot.read(name).float(), parameter.detach().float()), name


def test_a_checkpoint_without_the_base_models_prefix_is_read(tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "gpt2", "gpt2")
    tensors = load_file(source / "model.safetensors")
    short = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    assert short.keys() != tensors.keys()
    save_file(short, source / "model.safetensors", metadata={"format": "pt"})
    snapshot = SourceSnapshot(source)
    assert set(tensors) <= set(snapshot.names())
    assert torch.equal(
        snapshot.read("transformer.h.0.attn.c_attn.weight"), tensors["transformer.h.0.attn.c_attn.weight"]
    )


def test_sharded_checkpoints_are_read(tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "tiny", "llama")
    whole = SourceSnapshot(source)
    names = whole.names()
    AutoModelForCausalLM.from_pretrained(source).save_pretrained(tmp_path / "sharded", max_shard_size="50KB")
    assert (tmp_path / "sharded" / "model.safetensors.index.json").exists()
    sharded = SourceSnapshot(tmp_path / "sharded")
    assert sharded.names() == names
    assert all(torch.equal(sharded.read(name).float(), whole.read(name).float()) for name in names)


def damaged(tmp_path: Path, what: str) -> Path:
    source = save_checkpoint(tmp_path / "tiny", "llama")
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    weights = source / "model.safetensors"
    if what in ("traversal", "absolute", "missing shard", "empty index"):
        # transformers takes a whole file before an index, whatever the index says.
        weights.unlink()
    match what:
        case "remote code":
            (source / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "x.Y"}}))
        case "unknown model":
            (source / "config.json").write_text(json.dumps({**config, "model_type": "never-heard-of"}))
        case "no json":
            (source / "config.json").write_text("{")
        case "pickle":
            weights.rename(source / "pytorch_model.bin")
        case "truncated":
            weights.write_bytes(weights.read_bytes()[:-1000])
        case "huge header":
            weights.write_bytes(b"\xff" * 8 + weights.read_bytes()[8:])
        case "traversal":
            (source / "model.safetensors.index.json").write_text(
                json.dumps({"weight_map": {"a": "../../etc/passwd.safetensors"}})
            )
        case "absolute":
            (source / "model.safetensors.index.json").write_text(
                json.dumps({"weight_map": {"a": "/etc/x.safetensors"}})
            )
        case "missing shard":
            (source / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "b.safetensors"}}))
        case "empty index":
            (source / "model.safetensors.index.json").write_text("{}")
    return source


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("remote code", "auto_map"),
        ("unknown model", "not a model configuration"),
        ("no json", "not valid JSON"),
        ("pickle", "no safetensors weights"),
        ("truncated", "not a readable safetensors file"),
        ("huge header", "not a readable safetensors file"),
        ("traversal", "outside the folder"),
        ("absolute", "outside the folder"),
        ("missing shard", "which is missing"),
        ("empty index", "no weight_map"),
    ],
)
def test_bad_sources_are_refused_with_their_cause(what: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=message):
        SourceSnapshot(damaged(tmp_path, what))


@pytest.mark.parametrize("shard", ["model-00001-of-00001.safetensors", "model-00009-of-00009.safetensors"])
def test_a_whole_file_comes_before_an_index_that_was_left_over(shard: str, tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "tiny", "llama")
    tensors = load_file(source / "model.safetensors")
    old = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
    save_file(old, source / "model-00001-of-00001.safetensors", metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": dict.fromkeys(tensors, shard)}
    (source / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    name = "model.layers.0.mlp.up_proj.weight"
    loaded = AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16)
    assert torch.equal(SourceSnapshot(source).read(name), loaded.get_parameter(name).detach())
    assert inspect_snapshot(source).weight_files == (source / "model.safetensors",)


def test_a_head_of_its_own_is_kept_whatever_the_flag_says(tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "tiny", "llama")
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    (source / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}), encoding="utf-8")
    snapshot = SourceSnapshot(source)
    assert not snapshot.tied and not snapshot.is_tied_copy("lm_head.weight")
    tensors = load_file(source / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    snapshot = SourceSnapshot(source)
    assert snapshot.tied and snapshot.is_tied_copy("lm_head.weight")


def test_only_known_files_are_copied(tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "tiny", "llama")
    (source / "secret.env").write_text("x")
    (source / "modeling_evil.py").write_text("x")
    (source / "LICENCE").write_text("terms")
    (source / "additional_chat_templates").mkdir()
    (source / "additional_chat_templates" / "tool_use.jinja").write_text("{{ tools }}")
    from yaqa_runner.formats.compressed_tensors.container import CompressedTensorsContainer
    from yaqa_runner.formats.compressed_tensors.integer_form import IntegerForm

    files = CompressedTensorsContainer(IntegerForm(4, 32)).write(source, {}, tmp_path / "out")
    names = {path.relative_to(tmp_path / "out").as_posix() for path in files}
    assert not {"secret.env", "modeling_evil.py"} & names
    assert {"LICENCE", "additional_chat_templates/tool_use.jinja"} <= names


@pytest.mark.parametrize(
    ("text", "name"),
    [("Qwen3-0.6B", "Qwen3-0.6B"), ("../../etc", "etc"), ("a b/c\n", "a-b-c"), ("..", "model"), ("x" * 300, "x" * 96)],
)
def test_file_names_hold_no_surprises(text: str, name: str) -> None:
    assert safe_name(text) == name


def test_a_hub_cache_snapshot_is_named_after_its_repo(tmp_path: Path) -> None:
    folder = tmp_path / "models--some--Model-1B" / "snapshots" / ("0" * 40)
    folder.parent.mkdir(parents=True)
    save_checkpoint(folder, "llama")
    assert SourceSnapshot(folder).model_name == "Model-1B"
