"""Official float8 and mxfp4 releases are the original as they are stored; everything in between is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from quantized_originals import decoded_float8, decoded_mxfp4, float8_codes, store_float8
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_architectures import save_tiny_model
from tiny_jobs import quantized
from transformers import AutoModelForCausalLM, FineGrainedFP8Config, Mxfp4Config

from yaqa_runner.formats.decoded_original import decode_float8, decoded_original
from yaqa_runner.model.snapshot import inspect_snapshot
from yaqa_runner.protocol.failures import UnsupportedModel

PROJECTION = "model.layers.0.mlp.up_proj.weight"


def saved(folder: Path, kind: str) -> Path:
    return save_tiny_model(kind, folder / "tiny", num_hidden_layers=2, layer_types=["full_attention"] * 2)


def rewritten(folder: Path, **changes: torch.Tensor | None) -> None:
    """Tensors of the checkpoint in ``folder`` exchanged; ``None`` takes one away."""
    tensors = {**load_file(folder / "model.safetensors"), **changes}
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def reconfigured(folder: Path, **quantization: Any) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["quantization_config"] = {**config["quantization_config"], **quantization}
    path.write_text(json.dumps(config), encoding="utf-8")


def test_float8_is_decoded_as_the_definition_says_partial_blocks_included() -> None:
    weight = torch.randn(40, 70, generator=torch.Generator().manual_seed(1))
    codes, scales = float8_codes(weight, (16, 32))
    assert scales.shape == (3, 3)
    wanted = decoded_float8(codes, scales, (16, 32))
    assert torch.equal(decode_float8(codes, scales, (16, 32), torch.float32), wanted)
    assert torch.equal(decode_float8(codes, scales, (16, 32), torch.bfloat16), wanted.to(torch.bfloat16))
    assert (wanted - weight).abs().max() < 0.07 * weight.abs().max()
    every = torch.arange(256, dtype=torch.uint8)[None]
    finite = every[:, (every[0] & 127) != 127].view(torch.float8_e4m3fn)
    assert torch.equal(
        decode_float8(finite, torch.ones(()), None, torch.float32), decoded_float8(finite, torch.ones(1, 1), (1, 256))
    )


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("qwen3:float8", FineGrainedFP8Config(dequantize=True, weight_block_size=(32, 32))),
        ("gpt_oss:mxfp4", Mxfp4Config(dequantize=True)),
    ],
)
def test_the_decoded_folder_is_what_transformers_decodes(kind: str, settings: Any, tmp_path: Path) -> None:
    source = saved(tmp_path, kind)
    decoded = decoded_original(inspect_snapshot(source), tmp_path / "decoded")
    assert decoded.form is None and "quantization_config" not in json.loads(
        (decoded.directory / "config.json").read_text()
    )
    theirs = AutoModelForCausalLM.from_pretrained(source, quantization_config=settings, dtype=torch.bfloat16)
    ours = AutoModelForCausalLM.from_pretrained(decoded.directory, dtype=torch.bfloat16)
    wanted = theirs.state_dict()
    assert wanted.keys() == ours.state_dict().keys()
    for name, tensor in ours.state_dict().items():
        assert tensor.dtype == torch.bfloat16 and torch.equal(tensor, wanted[name]), name
    stored = load_file(source / "model.safetensors")
    for name, tensor in load_file(decoded.directory / "model.safetensors").items():
        if f"{name}_blocks" in stored:
            slow = decoded_mxfp4(stored[f"{name}_blocks"], stored[f"{name}_scales"])
        elif f"{name}_scale_inv" in stored:
            slow = decoded_float8(stored[name], stored[f"{name}_scale_inv"], (32, 32))
        else:
            slow = stored[name]
        assert torch.equal(tensor, slow.to(torch.bfloat16)), name
    assert (decoded.directory / "tokenizer.json").is_file()


def test_a_variant_has_nothing_of_the_stored_form_and_says_what_it_is_of(tmp_path: Path) -> None:
    source = saved(tmp_path, "qwen3:float8")
    made = quantized(source, "w4a16,group=32,tune=off,refine=0", tmp_path / "out")
    (variant,) = made.variants
    assert variant.manifest.source.stored == "float8"
    config = json.loads((variant.folder / "config.json").read_text(encoding="utf-8"))
    assert config["quantization_config"]["quant_method"] == "compressed-tensors"
    with safe_open(variant.folder / "model.safetensors", framework="pt") as handle:
        kinds = {name: handle.get_slice(name).get_dtype() for name in handle.keys()}  # noqa: SIM118
    assert not [name for name in kinds if name.endswith("_scale_inv")]
    assert {kind for name, kind in kinds.items() if "packed" not in name and "shape" not in name} == {"BF16"}


def test_a_scale_for_a_whole_matrix_and_the_activations_scales_are_taken(tmp_path: Path) -> None:
    source = saved(tmp_path, "qwen3:float8")
    tensors = load_file(source / "model.safetensors")
    for name in [name for name in tensors if name.endswith("_scale_inv")]:
        tensors[name] = torch.tensor(0.01)
        tensors[name.replace("weight_scale_inv", "activation_scale")] = torch.tensor(1.0)
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    reconfigured(source, weight_block_size=None, activation_scheme="static")
    decoded = decoded_original(inspect_snapshot(source), tmp_path / "decoded")
    assert not [name for name in decoded.shapes if "scale" in name]
    found = load_file(decoded.directory / "model.safetensors")[PROJECTION]
    assert torch.equal(found, (tensors[PROJECTION].float() * torch.tensor(0.01)).to(torch.bfloat16))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({f"{PROJECTION}_scale_inv": None}, f"{PROJECTION} holds float8 codes, and has no scales"),
        ({PROJECTION: torch.zeros(96, 64, dtype=torch.bfloat16)}, f"{PROJECTION}_scale_inv belongs to no float8"),
        ({f"{PROJECTION}_scale_inv": torch.ones(1, 1)}, r"has scales of \[1, 1\], which blocks of 32 × 32 do not give"),
        ({PROJECTION: torch.zeros(96, 64, dtype=torch.int8)}, "scale_inv belongs to no|is stored as I8"),
    ],
)
def test_float8_that_does_not_add_up_is_refused(
    changes: dict[str, torch.Tensor | None], says: str, tmp_path: Path
) -> None:
    source = saved(tmp_path, "qwen3:float8")
    rewritten(source, **changes)
    with pytest.raises(UnsupportedModel, match=says):
        inspect_snapshot(source)


def test_mxfp4_without_scales_and_forms_that_are_not_there_are_refused(tmp_path: Path) -> None:
    source = saved(tmp_path, "gpt_oss:mxfp4")
    rewritten(source, **{"model.layers.0.mlp.experts.down_proj_scales": None})
    with pytest.raises(UnsupportedModel, match="down_proj_blocks holds mxfp4 codes, and has no scales"):
        inspect_snapshot(source)
    plain = saved(tmp_path / "plain", "qwen3")
    store_float8(plain)
    rewritten(plain, **load_file(saved(tmp_path / "again", "qwen3") / "model.safetensors"))
    with pytest.raises(UnsupportedModel, match="are stored as float8, and none is"):
        inspect_snapshot(plain)


@pytest.mark.parametrize("method", ["awq", "gptq", "bitsandbytes", "compressed-tensors", "modelopt"])
def test_other_forms_are_refused_by_their_name(method: str, tmp_path: Path) -> None:
    source = saved(tmp_path, "qwen3:float8")
    reconfigured(source, quant_method=method)
    with pytest.raises(UnsupportedModel, match=f"quantized already, by '{method}'"):
        inspect_snapshot(source)
