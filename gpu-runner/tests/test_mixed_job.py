"""Mixed types from recipe to file: within the budget, every layer's type told, a mix that measures worse refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import gguf
import pytest
from test_pipeline import document, run
from tiny_checkpoints import save_checkpoint

from yaqa_runner.formats import container_for
from yaqa_runner.grids.gguf import gguf_grid
from yaqa_runner.pipeline import mixed_stage
from yaqa_runner.pipeline.variant_stage import VariantContext
from yaqa_runner.protocol.failures import InvalidSpec, UnsupportedModel
from yaqa_runner.protocol.manifest import Estimate, Manifest
from yaqa_runner.protocol.recipes import parse_recipe


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "llama"
    return save_checkpoint(folder, "llama", hidden_size=256, intermediate_size=288, num_hidden_layers=1, head_dim=64)


def make(model: Path, output: Path, *recipes: str) -> tuple[list[Manifest], list[dict[str, Any]]]:
    outcome, events = run(document(model, output, *recipes), output)
    return outcome.manifests, events


def average(manifest: Manifest) -> float:
    weights = [math.prod(layer.shape) for layer in manifest.layers]
    bits = [gguf_grid(layer.type).bits_per_weight for layer in manifest.layers]
    return sum(count * each for count, each in zip(weights, bits, strict=True)) / sum(weights)


def test_a_mix_fits_its_budget_and_the_file_holds_the_types_that_the_manifest_tells(
    model: Path, tmp_path: Path
) -> None:
    (manifest,), events = make(model, tmp_path / "out", "gguf,bpw=5,refine=0")
    folder = tmp_path / "out" / "gguf-bpw-5-refine-0"
    assert [file.path for file in manifest.files if file.path.endswith(".gguf")] == ["tiny-5bpw.gguf"]
    reader = gguf.GGUFReader(folder / "tiny-5bpw.gguf")
    stored = {tensor.name: tensor.tensor_type.name.lower() for tensor in reader.tensors}
    told = {layer.name: layer.type for layer in manifest.layers}
    assert stored["blk.0.ffn_down.weight"] == told["model.layers.0.mlp.down_proj"]
    assert stored["blk.0.attn_q.weight"] == told["model.layers.0.self_attn.q_proj"]
    assert stored["blk.0.ffn_gate.weight"] == told["model.layers.0.mlp.gate_proj"]
    assert manifest.mixed is not None
    assert average(manifest) <= 5
    assert manifest.mixed.bits_per_weight == pytest.approx(average(manifest), abs=1e-3)
    assert len(set(told.values())) > 1
    assert manifest.mixed.predicted_kl_nats <= manifest.mixed.uniform.predicted_kl_nats
    assert manifest.mixed.uniform.bits_per_weight <= 5
    assert manifest.mixed.published == "mixed"
    assert manifest.mixed.kl_nats.mean < manifest.mixed.uniform.kl_nats.mean
    # The gate's baselines have the same types, and so the same bytes.
    assert len({row.bytes for row in manifest.evaluation.measured}) == 1
    assert {event["recipe"] for event in events if event["event"] == "layer"} == {manifest.recipe}


def test_a_mix_that_measures_worse_gives_way_to_the_single_type(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = mixed_stage._selection_kl

    def worse(context: VariantContext, plan: Any, rounded: Any, folder: Path) -> Estimate:
        found = real(context, plan, rounded, folder)
        return found.model_copy(update={"mean": found.mean + 10}) if folder.name == "mixed" else found

    monkeypatch.setattr(mixed_stage, "_selection_kl", worse)
    manifests, events = make(model, tmp_path / "out", "gguf,bpw=5,refine=0", "gguf:q4_k,refine=0")
    refused, uniform = manifests
    assert refused.mixed is not None and refused.mixed.published == "uniform"
    assert refused.mixed.uniform.type == "q4_k"
    assert [event["code"] for event in events if event["event"] == "warning"].count("mix-refused") == 1
    assert [layer.type for layer in refused.layers] == [layer.type for layer in uniform.layers]
    assert refused.evaluation.measured == uniform.evaluation.measured
    container = container_for(parse_recipe(refused.recipe))
    name = "model.layers.0.mlp.down_proj"
    one = container.decode(tmp_path / "out" / "gguf-bpw-5-refine-0", name)
    assert one.equal(container.decode(tmp_path / "out" / "gguf-q4-k-refine-0", name))


def test_a_budget_below_the_smallest_types_is_refused_with_what_is_needed(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match=r"need 2\.956 bits") as caught:
        make(model, tmp_path / "out", "gguf,bpw=2.625")
    assert "bpw=" in caught.value.remedy


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("gguf", "names no type"),
        ("gguf,bpw=1.9", "bits a weight from 2"),
        ("gguf,bpw=nan", "bits a weight from 2"),
        ("gguf,bpw=1e1", "bits a weight from 2"),
        ("gguf:q4_0,bpw=4", "has one type"),
        ("gguf,bpw=4,group=32", "fixed by its container"),
    ],
)
def test_what_is_no_mix_is_refused(written: str, message: str) -> None:
    with pytest.raises(InvalidSpec, match=message):
        parse_recipe(written)


def test_the_record_survives_the_wire(model: Path, tmp_path: Path) -> None:
    (plain,), _ = make(model, tmp_path / "out", "gguf:q8_0,refine=0")
    assert plain.mixed is None
    assert Manifest.model_validate_json(json.dumps(plain.to_wire())) == plain
