"""A model whose blocks stay in the checkpoint computes, is sketched and is rounded as one that is in memory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_architectures import save_tiny_model

from yaqa_runner.calibration.tokens import TokenSet
from yaqa_runner.model import load as load_module
from yaqa_runner.model.load import SourceModel, load_source_model
from yaqa_runner.model.mapped_weights import MappedWeights
from yaqa_runner.model.snapshot import inspect_snapshot
from yaqa_runner.monitor import Monitor
from yaqa_runner.protocol.failures import SourceRefused
from yaqa_runner.sketches.compute import SketchInputs
from yaqa_runner.sketches.settings import SketchSettings
from yaqa_runner.sketches.take import plan_sketch

CPU = torch.device("cpu")
KINDS = {
    "llama": {"tie_word_embeddings": False, "num_hidden_layers": 2},
    "gemma3_text": {"tie_word_embeddings": True, "num_hidden_layers": 2},
    "qwen3_moe": {"num_hidden_layers": 2},
    "gpt2": {"n_layer": 2},
}


def mapped(directory: Path, monkeypatch: pytest.MonkeyPatch) -> SourceModel:
    with monkeypatch.context() as patch:
        patch.setattr(load_module, "RESIDENT_SHARE", 0.0)
        source = load_source_model(inspect_snapshot(directory), CPU)
    assert isinstance(source.weights, MappedWeights)
    return source


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_left_in_the_checkpoint_change_nothing(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = save_tiny_model(kind, tmp_path / kind, **KINDS[kind])
    whole = load_source_model(inspect_snapshot(directory), CPU)
    source = mapped(directory, monkeypatch)
    assert source.parameter_bytes < whole.parameter_bytes
    tokens = torch.randint(2, 300, (16, 12), generator=torch.Generator().manual_seed(1))
    assert torch.equal(source.logits(tokens[:3]), whole.logits(tokens[:3]))
    assert [(layer.name, layer.path, layer.routed) for layer in source.linears] == [
        (layer.name, layer.path, layer.routed) for layer in whole.linears
    ]
    assert source.unquantized == whole.unquantized
    for found, expected in zip(source.linears, whole.linears, strict=True):
        assert torch.equal(found.weight(), expected.weight()), found.name
    settings = SketchSettings("a", 2, 3)
    sketches = []
    for name, model in (("whole", whole), ("mapped", source)):
        inputs = SketchInputs(model, "0" * 64, TokenSet(tokens), settings)
        folder = tmp_path / f"{kind}-{name}"
        sketches.append(plan_sketch(inputs, directory=folder).take(directory=folder, monitor=Monitor()))
    assert sketches[0].record.files == sketches[1].record.files
    with source.weights.everything():
        assert not any(parameter.is_meta for parameter in source.model.parameters())
    held = [name for name, parameter in source.model.named_parameters() if not parameter.is_meta]
    assert not any(".0." in name or ".1." in name for name in held)


def test_a_system_that_reads_nothing_ahead_is_no_hindrance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = save_tiny_model("llama", tmp_path / "llama", **KINDS["llama"])
    monkeypatch.delattr(os, "posix_fadvise", raising=False)
    assert mapped(directory, monkeypatch).logits(torch.tensor([[5, 6, 7]])).isfinite().all()


def test_broken_checkpoints_are_refused_a_block_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = save_tiny_model("llama", tmp_path / "llama", **KINDS["llama"])
    path = directory / "model.safetensors"
    sound = load_file(path)
    name = "model.layers.1.mlp.up_proj.weight"
    cases = {
        "no weights for": {key: value for key, value in sound.items() if key != name},
        "NaN or infinite": {**sound, name: torch.full_like(sound[name], float("nan"))},
        "do not fit the config": {**sound, name: sound[name][:8].contiguous()},
        "does not use": {**sound, "model.layers.1.mlp.other.weight": sound[name].clone()},
    }
    for message, tensors in cases.items():
        save_file(tensors, path, metadata={"format": "pt"})
        with pytest.raises(SourceRefused, match=message):
            mapped(directory, monkeypatch)
