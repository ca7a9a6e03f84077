"""Linears that are not rounded, and models that sample without a key-value cache."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_architectures import save_tiny_model, tiny_model

from yaqa_runner.calibration.self_sample import keeps_cache, sample_sequences
from yaqa_runner.formats import ExportError, container_for
from yaqa_runner.formats.compressed_tensors.container import CompressedTensorsContainer
from yaqa_runner.formats.compressed_tensors.integer_form import IntegerForm
from yaqa_runner.formats.gptq.container import GptqContainer
from yaqa_runner.model.load import SourceModel, load_source_model
from yaqa_runner.model.snapshot import inspect_snapshot
from yaqa_runner.protocol.failures import SourceRefused
from yaqa_runner.protocol.recipes import parse_recipe

# Kind, part of a linear's name, and why it stays.
LEFT = {
    "deepseek_v32": ("indexer", "no gradient of the answer comes to it"),
    "jamba": ("x_proj", "steers a state"),
    "llama4_text": ("router", "a router of experts"),
    "qwen3_next": ("in_proj_ba", "steers a state"),
    "granitemoe": (None, None),
}


def load(folder: Path) -> SourceModel:
    return load_source_model(inspect_snapshot(folder), torch.device("cpu"))


@pytest.mark.parametrize("kind", LEFT)
def test_what_cannot_or_should_not_be_rounded_stays_with_its_reason(kind: str, tmp_path: Path) -> None:
    part, why = LEFT[kind]
    source = load(save_tiny_model(kind, tmp_path / "tiny", tokenizer=False))
    assert source.linears
    if part is None or why is None:
        return
    assert not any(part in layer.name for layer in source.linears)
    reasons = {weight.reason for weight in source.unquantized if part in weight.name}
    assert any(why in reason for reason in reasons), reasons


@pytest.mark.parametrize(("kind", "cached"), [("mamba", False), ("llama", True)])
def test_a_model_samples_from_itself_with_a_cache_or_without(kind: str, cached: bool) -> None:
    model = tiny_model(kind)
    assert keeps_cache(model) is cached
    tokens = sample_sequences(model, 2, 12, seed=3, first_token=0).tokens
    with torch.no_grad():
        logits = model(input_ids=tokens, use_cache=False).logits
    again = sample_sequences(model, 2, 12, seed=3, first_token=0).tokens
    assert torch.equal(tokens, again)
    # What it drew is not rare under its own distribution.
    chosen = logits[:, :-1].log_softmax(-1).gather(-1, tokens[:, 1:, None])
    assert float(chosen.mean()) > float(logits.log_softmax(-1).mean())


def test_weights_that_transformers_cannot_compute_with_are_refused(tmp_path: Path) -> None:
    source = save_tiny_model("gptj", tmp_path / "tiny", tokenizer=False)
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    (source / "config.json").write_text(json.dumps({**config, "rotary_dim": 64}), encoding="utf-8")
    with pytest.raises(SourceRefused, match="cannot run the model on 16 tokens: RuntimeError"):
        load(source)
    (source / "config.json").write_text(json.dumps({**config, "n_head": "many"}), encoding="utf-8")
    with pytest.raises(SourceRefused, match=r"does not take config\.json: .*n_head"):
        load(source)


def test_experts_that_are_stored_fused_are_quantized_where_loaders_take_them_one_by_one(tmp_path: Path) -> None:
    source = save_tiny_model("qwen3_moe", tmp_path / "tiny", tokenizer=False)
    tensors = load_file(source / "model.safetensors")
    separate = {name: tensor for name, tensor in tensors.items() if ".experts." not in name}
    for name in [name for name in tensors if name.endswith("experts.0.gate_proj.weight")]:
        prefix = name.removesuffix(".0.gate_proj.weight")
        parts = [
            torch.cat([tensors[f"{prefix}.{number}.{part}_proj.weight"] for part in ("gate", "up")])
            for number in range(4)
        ]
        separate[f"{prefix}.gate_up_proj"] = torch.stack(parts)
        separate[f"{prefix}.down_proj"] = torch.stack(
            [tensors[f"{prefix}.{number}.down_proj.weight"] for number in range(4)]
        )
    save_file(separate, source / "model.safetensors", metadata={"format": "pt"})
    linears = {layer.name for layer in load(source).linears}
    assert sum(".experts." in name for name in linears) == 4 * 4 * 3
    for container in (CompressedTensorsContainer(IntegerForm(4, 32)), GptqContainer(4, 32)):
        assert set(container.storable(source, linears)) == linears
        kept = {weight.name for weight in container.unquantized(source, linears)}
        assert not any(".experts." in name for name in kept), kept


def test_a_folder_that_would_not_open_is_refused_by_its_cause(tmp_path: Path) -> None:
    source = save_tiny_model("mamba", tmp_path / "tiny", tokenizer=False)
    linears = {layer.name for layer in load(source).linears}
    container = container_for(parse_recipe("w4a16,group=32"))
    with pytest.raises(ExportError, match="sets up weights of mamba by name while it loads"):
        container.storable(source, linears)
