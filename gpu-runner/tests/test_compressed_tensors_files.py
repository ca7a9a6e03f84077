from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_checkpoints import (
    absmax_grid,
    load_original,
    log_probabilities,
    quantize,
    quantize_on,
    save_checkpoint,
    token_ids,
)
from transformers import AutoModelForCausalLM

from yaqa_runner.evaluate.statistics import token_kl
from yaqa_runner.formats import ExportError
from yaqa_runner.formats.compressed_tensors.container import CompressedTensorsContainer
from yaqa_runner.formats.compressed_tensors.float_forms import FLOAT_FORMS
from yaqa_runner.formats.compressed_tensors.integer_form import IntegerForm
from yaqa_runner.formats.container import Container, QuantizedLinear
from yaqa_runner.formats.gptq.container import GptqContainer
from yaqa_runner.formats.safetensors_writer import PlannedTensor, write_safetensors
from yaqa_runner.formats.source import SourceSnapshot
from yaqa_runner.formats.torch_reference import TorchReferenceModel
from yaqa_runner.grids.grid import FixedGrid
from yaqa_runner.model.linears import LinearLayer
from yaqa_runner.model.load import load_source_model
from yaqa_runner.model.snapshot import inspect_snapshot


def written(
    tmp_path: Path, kind: str, bits: int, group: int, asymmetric: bool = False, **settings: Any
) -> tuple[Any, dict[str, QuantizedLinear], CompressedTensorsContainer, Path]:
    source = save_checkpoint(tmp_path / "tiny", kind, **settings)
    model = load_original(source)
    linears = quantize(model, bits, group, asymmetric)
    container = CompressedTensorsContainer(IntegerForm(bits, group))
    container.write(source, linears, tmp_path / "out")
    return model, linears, container, tmp_path / "out"


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("asymmetric", [False, True])
def test_the_library_decompresses_the_chosen_weights(bits: int, asymmetric: bool, tmp_path: Path) -> None:
    _, linears, container, output = written(tmp_path, "llama", bits, 32, asymmetric, num_hidden_layers=1)
    for name, linear in linears.items():
        assert torch.equal(container.decode(output, name), linear.grid.decode(linear.codes)), name


@pytest.mark.parametrize(
    ("kind", "settings"),
    [("llama", {}), ("llama", {"tie_word_embeddings": True}), ("qwen2", {}), ("qwen3", {"head_dim": 32}), ("opt", {})],
)
def test_from_pretrained_runs_the_chosen_weights(kind: str, settings: dict[str, Any], tmp_path: Path) -> None:
    if kind == "opt":
        settings = {"ffn_dim": 96, "word_embed_proj_dim": 64}
    model, _, container, output = written(tmp_path, kind, 4, 32, **settings)
    wanted = log_probabilities(model, token_ids())
    loaded = container.load(output).log_probabilities(token_ids())
    assert (loaded - wanted).abs().max() < 1e-5
    assert wanted.std() > 0.1


@pytest.mark.parametrize("bits", [3, 4])
def test_it_generates_in_the_models_own_type(bits: int, tmp_path: Path) -> None:
    _, _, _, output = written(tmp_path, "llama", bits, 32)
    model = AutoModelForCausalLM.from_pretrained(output)
    assert model.dtype == torch.bfloat16
    ids = token_ids(1, 6)
    text = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=4, do_sample=False)
    assert text.shape[1] > 6


def written_floats(
    tmp_path: Path, name: str, kind: str = "llama", **settings: Any
) -> tuple[Any, dict[str, QuantizedLinear], CompressedTensorsContainer, Path]:
    source = save_checkpoint(tmp_path / "tiny", kind, **settings)
    model = load_original(source)
    container = CompressedTensorsContainer(FLOAT_FORMS[name])
    linears = quantize_on(model, container.grid().fit, name)
    container.write(source, linears, tmp_path / "out")
    return model, linears, container, tmp_path / "out"


@pytest.mark.parametrize("name", FLOAT_FORMS)
def test_the_library_and_from_pretrained_decode_the_chosen_floats(name: str, tmp_path: Path) -> None:
    model, linears, container, output = written_floats(tmp_path, name, "qwen2")
    wanted = log_probabilities(model, token_ids())
    for by_blocks in (False, True):
        loaded = container.load(output, by_blocks=by_blocks).log_probabilities(token_ids())
        assert (loaded - wanted).abs().max() < 1e-5
    opened = AutoModelForCausalLM.from_pretrained(output)
    opened(input_ids=token_ids())
    weights = opened.state_dict()
    for linear in linears.values():
        decoded = linear.grid.decode(linear.codes)
        assert torch.equal(container.decode(output, linear.name), decoded), linear.name
        # Products of FP4 are exact in bfloat16; the library rounds those of FP8, of up to 12 digits, to 8.
        in_its_type = decoded.to(torch.bfloat16) if name == "fp8" else decoded
        assert torch.equal(weights[f"{linear.name}.weight"].float(), in_its_type.float()), linear.name


def test_linears_of_a_module_share_the_divider_of_their_scales(tmp_path: Path) -> None:
    _, linears, _, output = written_floats(tmp_path, "nvfp4")
    with safe_open(output / "model.safetensors", "pt") as file:
        dividers = {name: float(file.get_tensor(f"{name}.weight_global_scale")) for name in linears}
        largest = {name: float(file.get_tensor(f"{name}.weight_scale").float().max()) for name in linears}
    for module in {name.rpartition(".")[0] for name in linears}:
        own = [name for name in linears if name.rpartition(".")[0] == module]
        assert len({dividers[name] for name in own}) == 1
        assert 224 < max(largest[name] for name in own) <= 448
    assert all(value == 2.0 ** round(math.log2(value)) for value in dividers.values())


def test_scales_too_far_apart_for_a_shared_divider_are_refused(tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "tiny", "llama")
    model = load_original(source)
    model.model.layers[0].mlp.up_proj.weight.data *= 2.0**-17
    container = CompressedTensorsContainer(FLOAT_FORMS["nvfp4"])
    with pytest.raises(ExportError, match=r"up_proj: a scale is not exact in float8_e4m3fn"):
        container.write(source, quantize_on(model, container.grid().fit, "nvfp4"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_experts_that_transformers_does_not_unpack_are_refused(tmp_path: Path) -> None:
    settings = {"moe_intermediate_size": 64, "shared_expert_intermediate_size": 64, "num_hidden_layers": 1}
    source = save_checkpoint(tmp_path / "tiny", "qwen2_moe", **settings)
    names = {layer.name for layer in load_source_model(inspect_snapshot(source), torch.device("cpu")).linears}
    with pytest.raises(ExportError, match=r"unpacks no experts of nvfp4-pack-quantized"):
        CompressedTensorsContainer(FLOAT_FORMS["nvfp4"]).unquantized(source, names)
    CompressedTensorsContainer(FLOAT_FORMS["fp8"]).unquantized(source, names)


def test_names_shapes_and_configuration_are_the_formats(tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "tiny", "llama")
    model = load_original(source)
    linears = quantize(model, 4, 32)
    kept = "model.layers.1.mlp.down_proj"
    del linears[kept]
    files = CompressedTensorsContainer(IntegerForm(4, 32)).write(source, linears, tmp_path / "out")
    assert {path.name for path in files} == {
        "model.safetensors",
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "LICENSE",
    }
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "LICENSE"):
        assert (tmp_path / "out" / name).read_bytes() == (source / name).read_bytes()
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as file:
        names = set(file.keys())
        q = "model.layers.0.mlp.down_proj"
        assert file.get_tensor(f"{q}.weight_packed").shape == (64, 96 * 4 // 32)
        assert file.get_tensor(f"{q}.weight_packed").dtype == torch.int32
        assert file.get_tensor(f"{q}.weight_scale").shape == (64, 3)
        assert file.get_tensor(f"{q}.weight_scale").dtype == torch.bfloat16
        assert file.get_tensor(f"{q}.weight_shape").tolist() == [64, 96]
        assert f"{q}.weight" not in names
        with safe_open(source / "model.safetensors", "pt") as original:
            assert torch.equal(file.get_tensor(f"{kept}.weight"), original.get_tensor(f"{kept}.weight"))
    settings = json.loads((tmp_path / "out" / "config.json").read_text(encoding="utf-8"))["quantization_config"]
    assert settings["quant_method"] == "compressed-tensors"
    assert settings["format"] == "pack-quantized"
    assert settings["ignore"] == ["lm_head", kept]
    weights = settings["config_groups"]["group_0"]["weights"]
    assert (weights["num_bits"], weights["group_size"], weights["symmetric"]) == (4, 32, True)
    unquantized = CompressedTensorsContainer(IntegerForm(4, 32)).unquantized(source, set(linears))
    assert {weight.name for weight in unquantized} == {"lm_head.weight", "model.embed_tokens.weight", f"{kept}.weight"}


@pytest.mark.parametrize("container", [CompressedTensorsContainer(IntegerForm(4, 32)), GptqContainer(4, 32)])
def test_fused_experts_are_refused_because_they_would_not_load(container: Container, tmp_path: Path) -> None:
    settings = {"num_local_experts": 2, "num_experts_per_tok": 1, "num_hidden_layers": 1}
    source = save_checkpoint(tmp_path / "tiny", "mixtral", **settings)
    linears = quantize(load_original(source), 4, 32)
    assert "model.layers.0.self_attn.q_proj" in linears
    with pytest.raises(ExportError, match="mixture of experts"):
        container.unquantized(source, set(linears))
    with pytest.raises(ExportError, match="mixture of experts"):
        container.write(source, linears, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_large_models_are_sharded_with_an_index(tmp_path: Path) -> None:
    tensors = [
        PlannedTensor(f"layer.{number}", torch.float32, (8, 8), lambda number=number: torch.full((8, 8), float(number)))
        for number in range(5)
    ]
    files = write_safetensors(tmp_path, tensors, shard_bytes=600)
    assert [path.name for path in files] == [
        "model-00001-of-00003.safetensors",
        "model-00002-of-00003.safetensors",
        "model-00003-of-00003.safetensors",
        "model.safetensors.index.json",
    ]
    index = json.loads(files[-1].read_text(encoding="utf-8"))
    assert index["metadata"]["total_size"] == 5 * 256
    for name, file in index["weight_map"].items():
        with safe_open(tmp_path / file, "pt") as handle:
            assert handle.get_tensor(name).unique().tolist() == [float(name.split(".")[1])]


def test_groups_that_do_not_divide_a_row_are_not_offered() -> None:
    grid = CompressedTensorsContainer(IntegerForm(4, 128)).grid()
    assert grid.supports(64, 256)
    assert not grid.supports(64, 96)
    assert grid.name == "symmetric-4-g128"


def test_scales_the_models_type_would_round_are_refused(tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "tiny", "llama")
    linears = quantize(load_original(source), 4, 32)
    name, linear = next(iter(linears.items()))
    grid = FixedGrid(linear.grid.scale * (1 + 2**-12), linear.grid.offset, 32, -8, 7)
    with pytest.raises(ExportError, match="not exact in bfloat16"):
        CompressedTensorsContainer(IntegerForm(4, 32)).write(
            source, {**linears, name: QuantizedLinear(name, linear.codes, grid, "x")}, tmp_path / "out"
        )
    assert not (tmp_path / "out").exists()


def test_layers_the_library_does_not_wrap_are_refused(tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "tiny", "gpt2")
    with pytest.raises(ExportError, match=r"nn\.Linear only"):
        CompressedTensorsContainer(IntegerForm(4, 32)).write(
            source, quantize(load_original(source), 4, 32), tmp_path / "out"
        )
    assert not (tmp_path / "out").exists()


def rounded(layer: LinearLayer) -> QuantizedLinear:
    weight = layer.weight()
    grid = absmax_grid(weight, 8, 32, False)
    return QuantizedLinear(layer.name, grid.nearest(weight), grid, "absmax-8-g32")


@pytest.mark.parametrize(
    ("kind", "settings"),
    [("gpt_neox", {}), ("qwen2_moe", {"moe_intermediate_size": 64, "shared_expert_intermediate_size": 64})],
)
def test_what_is_measured_has_the_biases_of_packed_linears(kind: str, settings: dict[str, Any], tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "tiny", kind, num_hidden_layers=1, **settings)
    loaded = load_source_model(inspect_snapshot(source), torch.device("cpu"))
    linears = {layer.name: rounded(layer) for layer in loaded.linears if layer.columns % 32 == 0}
    assert any(f"{name}.bias" in SourceSnapshot(source) for name in linears)
    container = CompressedTensorsContainer(IntegerForm(8, 32))
    container.write(source, linears, tmp_path / "out")
    original = TorchReferenceModel(load_original(source)).log_probabilities(token_ids())
    kl = token_kl(original, container.load(tmp_path / "out").log_probabilities(token_ids()))
    assert float(kl.mean()) < 1e-3


def test_a_folder_without_a_bias_is_refused_where_it_is_measured(tmp_path: Path) -> None:
    _, _, container, output = written(tmp_path, "qwen2", 4, 32)
    path = output / "model.safetensors"
    tensors = {name: value for name, value in load_file(path).items() if not name.endswith("q_proj.bias")}
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ExportError, match=r"missing model\.layers\.0\.self_attn\.q_proj\.bias"):
        container.load(output)
