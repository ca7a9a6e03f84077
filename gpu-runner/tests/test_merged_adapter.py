"""A LoRA adapter merged onto its base computes what peft computes; everything else is refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tiny_checkpoints import load_original, log_probabilities, save_checkpoint, token_ids
from tiny_jobs import document, quantized, run

from yaqa_runner import RunnerFailure, merge_adapter
from yaqa_runner.cli.main import main
from yaqa_runner.pipeline.original import obtain_original
from yaqa_runner.protocol.job_spec import Source

TARGETS = {"llama": ["q_proj", "down_proj"], "gpt2": ["c_attn"]}


def saved_adapter(base: Path, folder: Path, kind: str = "llama") -> Path:
    """An adapter of ``base`` whose factors both say something."""
    torch.manual_seed(1)
    settings = LoraConfig(r=4, lora_alpha=16, target_modules=TARGETS[kind], fan_in_fan_out=kind == "gpt2")
    model = get_peft_model(load_original(base), settings)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.5)
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return save_checkpoint(tmp_path / "base", "llama")


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> Path:
    return saved_adapter(base, tmp_path / "adapter")


def refusal(base: Path, adapter: Path, tmp_path: Path) -> str:
    with pytest.raises(RunnerFailure) as caught:
        merge_adapter(base, adapter, output=tmp_path / "merged")
    assert caught.value.code in ("source-refused", "unsupported-model")
    assert not (tmp_path / "merged").exists()
    return caught.value.message


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_weights_are_the_bases_and_the_scaled_product_of_the_factors(kind: str, tmp_path: Path) -> None:
    base = save_checkpoint(tmp_path / "base", kind)
    adapter = saved_adapter(base, tmp_path / "adapter", kind)
    merged = merge_adapter(base, adapter, output=tmp_path / "merged")
    factors = load_file(adapter / "adapter_model.safetensors")
    before, after = load_original(base).state_dict(), load_original(merged).state_dict()
    changed = 0
    for name, tensor in before.items():
        start = f"base_model.model.{name.removesuffix('.weight')}"
        product = torch.zeros_like(tensor)
        if f"{start}.lora_A.weight" in factors:
            changed += 1
            product = 16 / 4 * factors[f"{start}.lora_B.weight"] @ factors[f"{start}.lora_A.weight"]
            product = product.T if kind == "gpt2" else product
        # Merged in the checkpoint's bfloat16.
        torch.testing.assert_close(after[name], tensor + product, rtol=2e-2, atol=2e-2)
    assert changed == 2 * len(TARGETS[kind])
    assert (merged / "LICENSE").is_file() and (merged / "tokenizer.json").is_file()
    assert not list(merged.glob("adapter_*"))


def test_the_merged_model_is_quantized_like_any_other(base: Path, adapter: Path, tmp_path: Path) -> None:
    merged = tmp_path / "merged"
    assert main(["merge", str(base), str(adapter), "--output", str(merged), "--json"]) == 0
    made = quantized(merged, "w8a16,group=32,tune=off,refine=0", tmp_path / "out")
    assert made.variants[0].metrics.kl_nats.mean < 0.01
    ids = token_ids()
    apart = log_probabilities(load_original(merged), ids) - log_probabilities(load_original(base), ids)
    assert apart.abs().max() > 0.1


def test_a_job_on_an_adapter_merges_it_and_says_onto_what(base: Path, adapter: Path, tmp_path: Path) -> None:
    (adapter / "LICENSE").write_text("The adapter's own terms.")
    (adapter / "README.md").write_text("---\nlicense: mit\n---\n")
    (base / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    output = tmp_path / "out"
    spec = document(adapter, output, "w4a16")
    spec["source"]["base"] = {"repo": "demo/base", "revision": "1" * 40, "path": str(base)}
    run(spec, output)
    (folder,) = [path.parent for path in output.glob("*/manifest.json")]
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["source"]["repo"] == "demo/tiny" and manifest["source"]["license"] == "mit"
    assert manifest["source"]["base"] == {"repo": "demo/base", "revision": "1" * 40, "license": "apache-2.0"}
    assert (folder / "LICENSE").read_text() == "The adapter's own terms."
    assert (folder / "BASE-LICENSE").read_bytes() == (base / "LICENSE").read_bytes()
    assert (folder / "tokenizer.json").is_file()
    assert not list(folder.glob("adapter_*"))


def test_an_interrupted_run_merges_once(base: Path, adapter: Path, tmp_path: Path) -> None:
    source = Source.model_validate(
        {
            "repo": "demo/tiny",
            "revision": "0" * 40,
            "path": str(adapter),
            "base": {"repo": "demo/base", "revision": "1" * 40, "path": str(base)},
        }
    )
    first = obtain_original(source, tmp_path / "work")
    marker = first.snapshot.directory / "kept"
    marker.touch()
    assert obtain_original(source, tmp_path / "work").snapshot.directory == first.snapshot.directory
    assert marker.exists()
    factors = load_file(adapter / "adapter_model.safetensors")
    save_file({name: tensor + 1 for name, tensor in factors.items()}, adapter / "adapter_model.safetensors")
    again = obtain_original(source, tmp_path / "work")
    assert again.sha256 != first.sha256 and again.snapshot.directory != first.snapshot.directory


def test_another_base_is_refused_by_what_does_not_fit(adapter: Path, tmp_path: Path) -> None:
    wide = save_checkpoint(tmp_path / "wide", "llama", intermediate_size=128)
    assert "down_proj as one of 64 × 96; the base's is 64 × 128" in refusal(wide, adapter, tmp_path)
    other = save_checkpoint(tmp_path / "other", "gpt2")
    assert "The base has no linear model.layers.0" in refusal(other, adapter, tmp_path)


def test_adapters_that_are_unsafe_or_none_are_refused(base: Path, adapter: Path, tmp_path: Path) -> None:
    config, weights = adapter / "adapter_config.json", adapter / "adapter_model.safetensors"
    known = json.loads(config.read_text(encoding="utf-8"))
    for changes, says in (
        ({"auto_mapping": {"base_model_class": "X", "parent_library": "transformers_modules.evil"}}, "auto_mapping"),
        ({"peft_type": "PROMPT_TUNING"}, "of the kind 'PROMPT_TUNING'"),
    ):
        config.write_text(json.dumps({**known, **changes}), encoding="utf-8")
        assert says in refusal(base, adapter, tmp_path)
    config.write_text(json.dumps(known), encoding="utf-8")
    tensors = load_file(weights)
    save_file({name: tensor * float("nan") for name, tensor in tensors.items()}, weights)
    assert "peft cannot merge" in refusal(base, adapter, tmp_path)
    weights.write_bytes(b"\xff" * 32)
    assert "not a readable safetensors file" in refusal(base, adapter, tmp_path)
    weights.unlink()
    (adapter / "adapter_model.bin").write_bytes(b"pickle")
    assert "only as pickles (adapter_model.bin)" in refusal(base, adapter, tmp_path)
    elsewhere = tmp_path / "secret.safetensors"
    save_file(tensors, elsewhere)
    weights.symlink_to(elsewhere)
    assert "leads out of the adapter's folder" in refusal(base, adapter, tmp_path)
    config.unlink()
    assert "holds no adapter_config.json" in refusal(base, adapter, tmp_path)


def test_what_lies_beside_an_adapter_is_taken_along_only_from_there(base: Path, adapter: Path, tmp_path: Path) -> None:
    secret = tmp_path / "id_ed25519"
    secret.write_text("a key")
    (adapter / "README.md").unlink(missing_ok=True)
    (adapter / "README.md").symlink_to(secret)
    assert "README.md is a link that leads out of the adapter's folder" in refusal(base, adapter, tmp_path)


def test_factors_that_the_settings_leave_out_are_a_refusal(base: Path, adapter: Path, tmp_path: Path) -> None:
    config = adapter / "adapter_config.json"
    known = json.loads(config.read_text(encoding="utf-8"))
    config.write_text(json.dumps({**known, "target_modules": ["q_proj"]}), encoding="utf-8")
    assert "down_proj.lora_A.weight, which adapter_config.json says nothing of" in refusal(base, adapter, tmp_path)


def test_a_base_that_lacks_weights_is_no_base(base: Path, adapter: Path, tmp_path: Path) -> None:
    weights = base / "model.safetensors"
    tensors = load_file(weights)
    del tensors["model.layers.0.mlp.up_proj.weight"]
    save_file(tensors, weights, metadata={"format": "pt"})
    assert "no weights for model.layers.0.mlp.up_proj.weight" in refusal(base, adapter, tmp_path)
