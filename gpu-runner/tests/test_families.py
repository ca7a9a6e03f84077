"""Families of decoders, found by structure: from sketch to the containers that cover them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_checkpoints import save_checkpoint
from tiny_jobs import document, run

from yaqa_runner.formats import container_for
from yaqa_runner.model.load import load_source_model
from yaqa_runner.model.snapshot import inspect_snapshot
from yaqa_runner.pipeline.plan import plan_recipe, recipes_of
from yaqa_runner.protocol.failures import UnsupportedModel
from yaqa_runner.protocol.job_spec import parse_job_spec
from yaqa_runner.protocol.recipes import parse_recipe

GROUPED = ("w4a16,group=32", "gptq:4,group=32")
FAMILIES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "mistral": ({"sliding_window": 16}, (*GROUPED, "onnx:q4")),
    "qwen2": ({}, (*GROUPED, "gguf:q4_0", "onnx:q4")),
    "gemma2": ({"head_dim": 16, "query_pre_attn_scalar": 16}, (*GROUPED, "gguf:q4_0", "onnx:q4")),
    "gemma3_text": ({"head_dim": 16, "query_pre_attn_scalar": 16}, (*GROUPED, "gguf:q4_0", "onnx:q4")),
    "phi": ({}, (*GROUPED, "gguf:q4_0")),
    "phi3": ({}, (*GROUPED, "gguf:q4_0", "onnx:q4")),
    "gpt_neox": ({}, (*GROUPED, "gguf:q4_0")),
    "gpt2": ({}, ("gptq:4,group=32", "gguf:q4_0")),
    "opt": ({"ffn_dim": 96, "word_embed_proj_dim": 64}, GROUPED),
}
# llama.cpp's llama has no window.
REFUSED = {
    "mistral": "gguf:q4_0",
    "gpt_neox": "onnx:q4",
    "gpt2": "w4a16,group=32",
    "opt": "gguf:q4_0",
}


@pytest.mark.parametrize("kind", sorted(FAMILIES))
def test_a_family_reaches_every_container_that_covers_it(kind: str, tmp_path: Path) -> None:
    settings, recipes = FAMILIES[kind]
    model = save_checkpoint(tmp_path / kind, kind, num_hidden_layers=1, **settings)
    outcome, _ = run(document(model, tmp_path / "out", *(f"{recipe},refine=0" for recipe in recipes)), tmp_path / "out")
    assert len(outcome.manifests) == len(recipes)
    for manifest in outcome.manifests:
        assert len(manifest.layers) >= 4
        measured = {row.quantizer: row.report.kl_nats.mean for row in manifest.evaluation.measured}
        assert all(0 <= value < 1 for value in measured.values()), measured


@pytest.mark.parametrize("kind", sorted(REFUSED))
def test_what_a_container_does_not_cover_is_refused_at_once_with_one_that_does(kind: str, tmp_path: Path) -> None:
    model = save_checkpoint(tmp_path / kind, kind, num_hidden_layers=1, **FAMILIES[kind][0])
    source = load_source_model(inspect_snapshot(model), torch.device("cpu"))
    spec = parse_job_spec(json.dumps(document(model, tmp_path / "out", REFUSED[kind])))
    (recipe,) = recipes_of(spec)
    with pytest.raises(UnsupportedModel, match="Choose"):
        plan_recipe(recipe, model, source)


def test_linears_narrower_than_a_group_stay_as_they_are_and_are_listed(tmp_path: Path) -> None:
    model = save_checkpoint(
        tmp_path / "llama", "llama", hidden_size=128, intermediate_size=80, num_hidden_layers=1, head_dim=32
    )
    recipes = [f"{recipe},refine=0,tune=off" for recipe in ("w4a16", "gptq:4", "onnx:q4,block=128")]
    outcome, _ = run(document(model, tmp_path / "out", *recipes), tmp_path / "out")
    narrow = "model.layers.0.mlp.down_proj"
    for (_, directory), manifest in zip(outcome.variants, outcome.manifests, strict=True):
        names = {layer.name for layer in manifest.layers}
        container = container_for(parse_recipe(manifest.recipe), "llama")
        container.load(tmp_path / "out" / directory, source=model)
        if manifest.recipe.startswith("onnx"):
            # A short last block is what MatMulNBits pads.
            assert narrow in names
            continue
        # No group divides 80. GPTQ's kernels want multiples of 32 of the outputs too: gate and up stay with it.
        assert narrow not in names and len(names) == (4 if manifest.recipe.startswith("gptq") else 6)
        assert manifest.fitted_group is None
        assert f"{narrow}.weight" in {weight.name for weight in manifest.unquantized}


def test_zero_columns_and_dead_outputs_are_rounded_and_stay_zero(tmp_path: Path) -> None:
    model = save_checkpoint(tmp_path / "llama", "llama", num_hidden_layers=1, tie_word_embeddings=True)
    tensors = load_file(model / "model.safetensors")
    up, down = (tensors[f"model.layers.0.mlp.{part}_proj.weight"] for part in ("up", "down"))
    up[:, 5] = 0
    up[7, :] = 0
    down[:] = 0
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    recipes = ("gguf:q4_0", "onnx:q2", "w3a16,group=32,zero=on", "gptq:2,group=32")
    outcome, events = run(document(model, tmp_path / "out", *recipes), tmp_path / "out")
    for (_, directory), manifest in zip(outcome.variants, outcome.manifests, strict=True):
        container = container_for(parse_recipe(manifest.recipe), "llama")
        folder = tmp_path / "out" / directory
        assert not container.decode(folder, "model.layers.0.mlp.down_proj", model).any()
        decoded = container.decode(folder, "model.layers.0.mlp.up_proj", model)
        assert not decoded[7].any()
        assert all(row.report.kl_nats.mean >= 0 for row in manifest.evaluation.measured)
    # Nothing flows back through a matrix of zeros: what lies before it has no output factor, and that is told.
    assert any(
        "up_proj: output factor" in event["message"] for event in events if event.get("code") == "factor-fallback"
    )
