"""Mixed types from recipe to file: within the budget, every layer's type told, a mix that measures worse refused."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import gguf
import jsonschema
import pytest
from tiny_checkpoints import save_checkpoint
from tiny_jobs import document, run, schema

from yaqa_runner.formats import container_for
from yaqa_runner.grids.gguf import gguf_grid
from yaqa_runner.pipeline import settle_mix
from yaqa_runner.pipeline.run_context import RunContext
from yaqa_runner.protocol.byte_size import parse_byte_size
from yaqa_runner.protocol.failures import InvalidSpec, UnsupportedModel
from yaqa_runner.protocol.manifest import Estimate, Manifest, ManifestFile
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
    (name,) = [file.path for file in own_files(manifest) if file.path.endswith(".gguf")]
    assert re.fullmatch(r"tiny-5bpw-Q[456]_K_XL\.gguf", name)
    reader = gguf.GGUFReader(folder / name)
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
    real = settle_mix._selection_kl

    def worse(context: RunContext, reference: Any, plan: Any, rounded: Any, folder: Path) -> Estimate:
        found = real(context, reference, plan, rounded, folder)
        return found.model_copy(update={"mean": found.mean + 10}) if folder.name == "mixed" else found

    monkeypatch.setattr(settle_mix, "_selection_kl", worse)
    manifests, events = make(model, tmp_path / "out", "gguf,bpw=5,refine=0,tune=off", "gguf:q4_k_s,refine=0,tune=off")
    refused, _ = manifests
    assert refused.mixed is not None and refused.mixed.published == "uniform"
    assert refused.mixed.uniform.type == "q4_k"
    assert [event["code"] for event in events if event["event"] == "warning"].count("mix-refused") == 1
    assert {layer.name.rsplit(".", 1)[1]: layer.type for layer in refused.layers} == {
        **dict.fromkeys(("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj"), "q4_k"),
        "down_proj": "q5_0",
    }
    container = container_for(parse_recipe(refused.recipe))
    for name in ("model.layers.0.self_attn.q_proj", "model.layers.0.mlp.down_proj"):
        one = container.decode(tmp_path / "out" / "gguf-bpw-5-refine-0-tune-off", name, model)
        assert one.equal(container.decode(tmp_path / "out" / "gguf-q4-k-s-refine-0-tune-off", name, model)), name


def test_a_budget_below_the_smallest_types_is_refused_with_what_is_needed(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match=r"need 2\.956 bits") as caught:
        make(model, tmp_path / "out", "gguf,bpw=2.625")
    assert "bpw=" in caught.value.remedy


def own_files(manifest: Manifest) -> list[ManifestFile]:
    """Without the importance matrix, which lies beside the model."""
    return [file for file in manifest.files if not file.path.startswith("imatrix/")]


def published(manifest: Manifest, folder: Path) -> int:
    """Bytes on disk of all files but the manifest and the importance matrix."""
    files = [path for path in folder.iterdir() if path.is_file() and path.name != "manifest.json"]
    assert len(files) == len(own_files(manifest)) == len(manifest.files) - 1
    return sum(path.stat().st_size for path in files)


# This model's files have 338,903 bytes with the smallest types and 628,439 with Q8_0 for all linears.
@pytest.mark.parametrize(("budget", "label"), [("400kB", "400kB"), ("0.5MB", "500kB"), ("400KiB", "409.6kB")])
def test_the_files_on_disk_fit_a_budget_of_bytes_and_use_it(
    model: Path, tmp_path: Path, budget: str, label: str
) -> None:
    (manifest,), _ = make(model, tmp_path / "out", f"gguf,bytes={budget},refine=0,tune=off")
    folder = tmp_path / "out" / f"gguf-bytes-{label.lower()}-refine-0-tune-off"
    limit = parse_byte_size(budget)
    assert limit is not None
    (name,) = [file.path for file in own_files(manifest) if file.path.endswith(".gguf")]
    assert re.fullmatch(rf"tiny-{re.escape(label)}-Q\d_K_XL\.gguf", name)
    taken = published(manifest, folder)
    assert taken == sum(file.size for file in own_files(manifest)) == manifest.evaluation.measured[0].bytes
    # What is left is less than the largest step from one type to the next (Q5_0 to Q8_0 in down_proj).
    assert limit - 27_648 < taken <= limit
    assert manifest.mixed is not None
    assert (manifest.mixed.target_bytes, manifest.mixed.target_bits_per_weight) == (limit, None)
    assert manifest.mixed.bits_per_weight == pytest.approx(average(manifest), abs=1e-3)
    assert manifest.mixed.predicted_kl_nats <= manifest.mixed.uniform.predicted_kl_nats
    jsonschema.Draft202012Validator(schema("manifest.schema.json")).validate(manifest.to_wire())


def test_a_budget_with_room_to_spare_gets_the_largest_types(model: Path, tmp_path: Path) -> None:
    (manifest,), _ = make(model, tmp_path / "out", "gguf,bytes=1GB,refine=0,tune=off")
    assert {layer.type for layer in manifest.layers} == {"q8_0"}
    assert manifest.mixed is not None and manifest.mixed.published == "uniform"


def test_a_budget_of_bytes_is_refused_before_the_sketch_and_the_remedy_suffices(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel) as caught:
        make(model, tmp_path / "out", "gguf,bytes=300kB")
    counted = re.search(r"files have ([0-9,]+) bytes: ([0-9,]+) of linears, ([0-9,]+) of embedding", str(caught.value))
    assert counted is not None
    needed, linears, besides = (int(number.replace(",", "")) for number in counted.groups())
    assert needed == linears + besides
    assert not (tmp_path / "out" / "sketch").exists()
    offered = re.search(r"bytes=(\S+) or more", caught.value.remedy)
    assert offered is not None
    (manifest,), _ = make(model, tmp_path / "offered", f"gguf,bytes={offered[1]},refine=0,tune=off")
    assert sum(file.size for file in own_files(manifest)) == needed
    (manifest,), _ = make(model, tmp_path / "exact", f"gguf,bytes={needed},refine=0,tune=off")
    assert sum(file.size for file in own_files(manifest)) == needed
    with pytest.raises(UnsupportedModel):
        make(model, tmp_path / "less", f"gguf,bytes={needed - 1}")


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("gguf,bytes=4.5", "powers of 1000"),
        ("gguf,bytes=4.5G", "powers of 1000"),
        ("gguf,bytes=0", "powers of 1000"),
        ("gguf,bytes=-4GB", "powers of 1000"),
        ("gguf,bytes=1e9", "powers of 1000"),
        ("gguf,bytes=101TB", "up to 100 TB"),
        ("gguf,bytes=4.5GB,bpw=4", "exclude each other"),
        ("gguf:q4_0,bytes=4GB", "takes no budget"),
        ("gguf", "names no type"),
        ("gguf,bpw=1.9", "bits a weight from 2"),
        ("gguf,bpw=nan", "bits a weight from 2"),
        ("gguf,bpw=1e1", "bits a weight from 2"),
        ("gguf:q4_0,bpw=4", "takes no budget"),
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
