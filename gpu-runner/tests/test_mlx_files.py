from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tiny_architectures import save_tiny_model
from tiny_checkpoints import linear_weights, load_original, log_probabilities, quantize, save_checkpoint, token_ids
from tiny_settings import LLAMA3_ROPE

from yaqa_runner.formats import ExportError
from yaqa_runner.formats.container import QuantizedLinear
from yaqa_runner.formats.mlx.container import BITS, FLOAT_MODES, GROUPS, MlxContainer
from yaqa_runner.formats.mlx.engine import MODEL_TYPES, refusals_of_settings
from yaqa_runner.formats.source import SourceSnapshot
from yaqa_runner.grids.grid import FixedGrid

MLX = Path(__file__).parents[1] / ".peers" / "mlx" / "bin" / "python"
# Gemma 3 sees the whole context in every sixth layer.
SETTINGS: dict[str, dict[str, Any]] = {
    "gemma2": {"sliding_window": 256},
    "gemma3_text": {"num_hidden_layers": 6, "head_dim": 32, "query_pre_attn_scalar": 32},
}
FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama-tied": ("llama", {"tie_word_embeddings": True}),
    "llama-biased": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama-llama3": ("llama", {"rope_parameters": LLAMA3_ROPE}),
    "llama-linear": ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}}),
    "qwen2-yarn": (
        "qwen2",
        {
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 10000.0,
                "factor": 4.0,
                "original_max_position_embeddings": 64,
            }
        },
    ),
    "qwen3-tied": ("qwen3", {"tie_word_embeddings": True}),
    **{mode: ("llama", {"tie_word_embeddings": True}) for mode in FLOAT_MODES},
    **{kind: (kind, SETTINGS.get(kind, {})) for kind in MODEL_TYPES},
}


def rounded(container: MlxContainer, weights: dict[str, torch.Tensor]) -> dict[str, QuantizedLinear]:
    linears = {}
    for name, weight in weights.items():
        if container.grid().supports(*weight.shape):
            grid = container.grid(name).fit(weight)
            linears[name] = QuantizedLinear(name, grid.nearest(weight), grid, container.grid().name)
    return linears


def plain_decode(path: Path, name: str, bits: int, group: int) -> torch.Tensor:
    """MLX's affine mode written out bit by bit, apart from the packer."""
    with safe_open(path, "pt") as file:
        words, scales, biases = (file.get_tensor(f"{name}.{part}") for part in ("weight", "scales", "biases"))
    assert words.dtype == torch.uint32
    rows, columns = words.shape[0], words.shape[1] * 32 // bits
    weight = torch.empty(rows, columns)
    for row, own in enumerate(words.to(torch.int64).tolist()):
        stream = sum(word << (32 * place) for place, word in enumerate(own))
        for column in range(columns):
            code = (stream >> (column * bits)) & ((1 << bits) - 1)
            scale, bias = (float(part[row, column // group]) for part in (scales, biases))
            weight[row, column] = scale * code + bias
    return weight


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("group", GROUPS)
def test_the_format_decodes_to_the_chosen_weights(bits: int, group: int, tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "tiny", "llama", num_hidden_layers=1, hidden_size=128, intermediate_size=256)
    container = MlxContainer(bits, group)
    linears = rounded(container, linear_weights(load_original(source)))
    assert len(linears) == 7
    container.write(source, linears, tmp_path / "out")
    for name, linear in linears.items():
        assert torch.equal(container.decode(tmp_path / "out", name), linear.grid.decode(linear.codes)), name
    name = "model.layers.0.self_attn.k_proj"
    plain = plain_decode(tmp_path / "out" / "model.safetensors", name, bits, group)
    assert torch.equal(plain, linears[name].grid.decode(linears[name].codes))


@pytest.mark.parametrize("mode", FLOAT_MODES)
def test_four_bit_floats_decode_to_the_chosen_weights(mode: str, tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "tiny", "llama", num_hidden_layers=1)
    container = MlxContainer.of_mode(mode)
    linears = rounded(container, linear_weights(load_original(source)))
    assert len(linears) == 7
    container.write(source, linears, tmp_path / "out")
    for name, linear in linears.items():
        assert torch.equal(container.decode(tmp_path / "out", name), linear.grid.decode(linear.codes)), name
    config = json.loads((tmp_path / "out" / "config.json").read_text(encoding="utf-8"))
    own = {"group_size": 32, "bits": 8, "mode": "affine"}
    settings = {"group_size": 16 if mode == "nvfp4" else 32, "bits": 4, "mode": mode}
    assert config["quantization"] == {**settings, "model.embed_tokens": own, "lm_head": own}
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as file:
        names = set(file.keys())
        assert file.get_tensor("model.layers.0.mlp.up_proj.scales").dtype == torch.uint8
    assert "model.layers.0.mlp.up_proj.biases" not in names and "lm_head.biases" in names


def test_codes_of_other_containers_are_the_same_weights_here(tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "tiny", "llama", num_hidden_layers=1)
    linears = quantize(load_original(source), 4, 64)
    linears = {name: linear for name, linear in linears.items() if linear.codes.shape[1] % 64 == 0}
    # Groups of 64 are written as two of 32.
    MlxContainer(4, 32).write(source, linears, tmp_path / "out")
    for name, linear in linears.items():
        decoded = MlxContainer(4, 32).decode(tmp_path / "out", name)
        assert torch.equal(decoded, linear.grid.decode(linear.codes)), name


def test_the_folder_is_what_mlx_lm_writes(tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "tiny", "llama", tie_word_embeddings=False)
    model = load_original(source)
    container = MlxContainer(4, 32)
    linears = rounded(container, linear_weights(model))
    del linears["model.layers.1.mlp.up_proj"]
    written = container.write(source, linears, tmp_path / "out")
    assert {path.name for path in written} == {
        *("config.json", "generation_config.json", "model.safetensors", "LICENSE"),
        *("tokenizer.json", "tokenizer_config.json"),
    }
    config = json.loads((tmp_path / "out" / "config.json").read_text(encoding="utf-8"))
    own = {"group_size": 32, "bits": 8, "mode": "affine"}
    settings = {"group_size": 32, "bits": 4, "mode": "affine", "model.embed_tokens": own, "lm_head": own}
    assert config["quantization"] == config["quantization_config"] == settings
    assert config["rope_theta"] == 10000.0 and config["rope_scaling"] is None and not config["tie_word_embeddings"]
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "mlx"}
        names = set(file.keys())
        assert file.get_tensor("model.layers.0.mlp.up_proj.scales").dtype == torch.bfloat16
        assert file.get_tensor("lm_head.weight").shape == (320, 16)
    assert "model.layers.1.mlp.up_proj.scales" not in names
    kept = {weight.name: weight.type for weight in container.unquantized(source, set(linears))}
    assert kept == {
        "model.embed_tokens.weight": "8-bit, groups of 32",
        "lm_head.weight": "8-bit, groups of 32",
        "model.layers.1.mlp.up_proj.weight": "bfloat16",
    }
    for by_blocks in (False, True):
        loaded = container.load(tmp_path / "out", by_blocks=by_blocks)
        if by_blocks:
            texts = tmp_path / "states"
            texts.mkdir()
            loaded.sweep([token_ids()], texts, lambda: None)  # type: ignore[attr-defined]
        difference = (loaded.log_probabilities(token_ids()) - log_probabilities(model, token_ids())).abs().max()
        assert 0 < difference < 1


def test_a_vocabulary_whose_rows_are_no_whole_groups_stays_as_it_is(tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "tiny", "llama", hidden_size=96, intermediate_size=128, head_dim=32)
    container = MlxContainer(4, 64)
    linears = rounded(container, linear_weights(load_original(source)))
    container.write(source, linears, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text(encoding="utf-8"))
    assert config["quantization"] == {"group_size": 64, "bits": 4, "mode": "affine"}
    kept = {weight.name: weight.type for weight in container.unquantized(source, set(linears))}
    assert kept["model.embed_tokens.weight"] == "bfloat16"


@pytest.mark.parametrize(
    ("kind", "settings", "reason"),
    [
        ("gpt2", {}, "not for 'gpt2'"),
        ("mixtral", {}, "not for 'mixtral'"),
        ("llama", {"hidden_act": "relu"}, "its activation is 'relu'"),
        ("qwen3", {"attention_bias": True}, "attention_bias is True"),
        ("mistral", {"sliding_window": 16, "max_position_embeddings": 128}, "attention window of 16"),
        ("gemma2", {"sliding_window": 16, "head_dim": 32}, "attention window of 16"),
        ("gemma3_text", {"num_hidden_layers": 3, "head_dim": 32}, "layer_types do not repeat"),
        ("phi", {"tie_word_embeddings": True}, "always has one"),
        (
            "llama",
            {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}},
            r"\(dynamic\)",
        ),
        (
            "llama",
            {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}},
            "turns 0.5",
        ),
        (
            "qwen3",
            {
                "rope_parameters": {
                    "rope_type": "yarn",
                    "rope_theta": 10000.0,
                    "factor": 4.0,
                    "original_max_position_embeddings": 64,
                    "attention_factor": 1.5,
                }
            },
            "attention_factor",
        ),
    ],
)
def test_what_mlx_lm_would_compute_otherwise_is_refused_before_anything_is_rounded(
    kind: str, settings: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    source = save_checkpoint(tmp_path / "tiny", kind, tokenizer=False, **settings)
    for ask in (MlxContainer(4, 32).storable, MlxContainer(4, 32).unquantized):
        with pytest.raises(ExportError, match=reason):
            ask(source, set())


def test_what_the_format_cannot_say_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="2, 3, 4, 5, 6, 8 bits; not 7"):
        MlxContainer(7, 64)
    with pytest.raises(ExportError, match="groups of 32, 64, 128; not 16"):
        MlxContainer(4, 16)
    assert not MlxContainer(4, 64).grid().supports(32, 96)
    source = save_checkpoint(tmp_path / "tiny", "llama", num_hidden_layers=1)
    container = MlxContainer(4, 32)
    name, linear = next(iter(rounded(container, linear_weights(load_original(source))).items()))
    wide = FixedGrid(linear.grid.scale * 1.001, linear.grid.offset, 32, 0, 15)
    with pytest.raises(ExportError, match="not exact in bfloat16"):
        container.write(source, {name: QuantizedLinear(name, linear.codes, wide, "x")}, tmp_path / "out")
    narrow = FixedGrid(linear.grid.scale, linear.grid.offset, 16, 0, 15)
    with pytest.raises(ExportError, match="groups of 16"):
        container.write(source, {name: QuantizedLinear(name, linear.codes, narrow, "x")}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_every_kind_is_taken_in_its_usual_form(tmp_path: Path) -> None:
    for kind in MODEL_TYPES:
        source = save_tiny_model(kind, tmp_path / kind, tokenizer=False, **SETTINGS.get(kind, {}))
        snapshot = SourceSnapshot(source)
        assert list(refusals_of_settings(kind, snapshot.config.to_dict(), snapshot.tied)) == [], kind


def test_mlx_lm_opens_every_kind_decodes_the_chosen_weights_and_computes_the_same(tmp_path: Path) -> None:
    if not MLX.is_file():
        pytest.skip("no mlx-lm: python gpu-runner/benchmarks/peer_environments.py mlx")
    folders = []
    for number, (form, (kind, settings)) in enumerate(FORMS.items()):
        source = save_tiny_model(kind, tmp_path / form / "tiny", torch.float32, tokenizer=False, **settings)
        container = MlxContainer.of_mode(form) if form in FLOAT_MODES else MlxContainer(BITS[number % len(BITS)], 32)
        linears = rounded(container, linear_weights(load_original(source)))
        folders.append(tmp_path / form / "out")
        container.write(source, linears, folders[-1])
        ids = token_ids(2, 40)
        wanted = {name: linear.grid.decode(linear.codes) for name, linear in linears.items()}
        answer = container.load(folders[-1]).log_probabilities(ids)
        save_file({**wanted, "ids": ids, "log_probabilities": answer}, folders[-1].with_name("wanted.safetensors"))
    script = Path(__file__).with_name("mlx_opens.py")
    finished = subprocess.run([MLX, script, *folders], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr[-2000:]
    found = json.loads(finished.stdout.strip().splitlines()[-1])
    assert set(found) == set(FORMS)
    for form, one in found.items():
        assert one["linears"] > 0 and one["weights"] == 0, (form, one)
        # Its exact GELU in place of the tangent form.
        assert one["answer"] < 2e-3, (form, one)
