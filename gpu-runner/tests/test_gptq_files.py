from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tiny_checkpoints import load_original, log_probabilities, quantize, save_checkpoint, token_ids

from yaqa_runner.formats import ExportError
from yaqa_runner.formats.container import QuantizedLinear
from yaqa_runner.formats.gptq.container import GptqContainer
from yaqa_runner.grids.grid import FixedGrid


def plain_decode(path: Path, name: str, bits: int) -> torch.Tensor:
    """GPTQ v1 written out bit by bit, apart from the packer."""
    with safe_open(path, "pt") as file:
        qweight, qzeros, scales, g_idx = (
            file.get_tensor(f"{name}.{kind}") for kind in ("qweight", "qzeros", "scales", "g_idx")
        )

    def stream(words: list[int]) -> int:
        return sum((word & 0xFFFFFFFF) << (32 * place) for place, word in enumerate(words))

    mask = (1 << bits) - 1
    columns, rows = g_idx.shape[0], scales.shape[1]
    weight = torch.empty(rows, columns)
    zero_rows = [stream(row) for row in qzeros.tolist()]
    for row in range(rows):
        codes = stream(qweight[:, row].tolist())
        for column in range(columns):
            group = int(g_idx[column])
            zero = ((zero_rows[group] >> (row * bits)) & mask) + 1
            code = (codes >> (column * bits)) & mask
            weight[row, column] = float(scales[group, row]) * (code - zero)
    return weight


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("asymmetric", [False, True])
def test_the_format_decodes_to_the_chosen_weights(bits: int, asymmetric: bool, tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "tiny", "llama", num_hidden_layers=1)
    linears = quantize(load_original(source), bits, 32, asymmetric)
    container = GptqContainer(bits, 32)
    container.write(source, linears, tmp_path / "out")
    for name, linear in linears.items():
        assert torch.equal(container.decode(tmp_path / "out", name), linear.grid.decode(linear.codes)), name
    name = "model.layers.0.self_attn.k_proj"
    assert torch.equal(
        plain_decode(tmp_path / "out" / "model.safetensors", name, bits),
        linears[name].grid.decode(linears[name].codes),
    )


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gpt_neox"])
def test_the_folder_runs(kind: str, tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "tiny", kind)
    model = load_original(source)
    container = GptqContainer(4, 32)
    container.write(source, quantize(model, 4, 32), tmp_path / "out")
    difference = container.load(tmp_path / "out").log_probabilities(token_ids()) - log_probabilities(model, token_ids())
    assert difference.abs().max() < 1e-5


def test_the_output_layer_is_called_as_engines_look_for_it(tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "tiny", "gpt_neox", num_hidden_layers=1)
    GptqContainer(4, 32).write(source, quantize(load_original(source), 4, 32), tmp_path / "out")
    with safe_open(source / "model.safetensors", "pt") as file:
        original = file.get_tensor("embed_out.weight")
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as file:
        assert "embed_out.weight" not in file.keys()  # noqa: SIM118 (no mapping)
        assert torch.equal(file.get_tensor("lm_head.weight"), original)


def test_symmetric_zeros_are_the_v1_words_and_settings_are_told(tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "tiny", "llama")
    linears = quantize(load_original(source), 4, 32)
    del linears["model.layers.1.mlp.up_proj"]
    GptqContainer(4, 32).write(source, linears, tmp_path / "out")
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as file:
        assert set(file.get_tensor("model.layers.0.mlp.up_proj.qzeros").unique().tolist()) == {0x77777777}
        assert file.get_tensor("model.layers.0.mlp.up_proj.qweight").shape == (8, 96)
        assert file.get_tensor("model.layers.0.mlp.up_proj.scales").dtype == torch.float16
    config = json.loads((tmp_path / "out" / "config.json").read_text(encoding="utf-8"))["quantization_config"]
    assert config == json.loads((tmp_path / "out" / "quantize_config.json").read_text(encoding="utf-8"))
    wanted = {"bits": 4, "group_size": 32, "sym": True, "desc_act": False, "checkpoint_format": "gptq"}
    assert wanted.items() <= config.items()
    assert list(config["dynamic"]) == [r"-:^model\.layers\.1\.mlp\.up_proj$"]


def test_what_the_format_cannot_say_is_refused(tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "tiny", "llama")
    linears = quantize(load_original(source), 4, 32)
    with pytest.raises(ExportError, match="2, 3, 4 or 8 bits"):
        GptqContainer(5, 32)
    assert not GptqContainer(4, 32).grid().supports(40, 64)
    name, linear = next(iter(linears.items()))
    zero = FixedGrid(linear.grid.scale, torch.zeros_like(linear.grid.offset), 32, 0, 15)
    lifted = FixedGrid(zero.scale, zero.scale * 0.5, 32, 0, 15)
    with pytest.raises(ExportError, match="no integer multiple"):
        GptqContainer(4, 32).write(
            source, {name: QuantizedLinear(name, linear.codes + 8, lifted, "x")}, tmp_path / "out"
        )
    unsigned = QuantizedLinear(name, linear.codes + 8, zero, "x")
    with pytest.raises(ExportError, match="zero point is 0"):
        GptqContainer(4, 32).write(source, {name: unsigned}, tmp_path / "out")


def test_gptqmodel_opens_the_folder_and_decodes_the_chosen_weights(tmp_path: Path) -> None:
    python = Path(__file__).parents[1] / ".peers" / "gptqmodel" / "bin" / "python"
    if not python.is_file():
        pytest.skip("no gptqmodel: python gpu-runner/benchmarks/peer_environments.py gptqmodel")
    folders = []
    # Its kernel computes in half precision, which holds scale times code exactly up to four bits.
    for bits in (2, 3, 4):
        source = save_checkpoint(tmp_path / str(bits) / "tiny", "llama", num_hidden_layers=1)
        linears = quantize(load_original(source), bits, 32)
        folders.append(tmp_path / str(bits) / "out")
        GptqContainer(bits, 32).write(source, linears, folders[-1])
        weights = {name: linear.grid.decode(linear.codes) for name, linear in linears.items()}
        save_file(weights, tmp_path / str(bits) / "weights.safetensors")
    script = Path(__file__).with_name("gptqmodel_opens.py")
    settings = {**os.environ, "TORCHDYNAMO_DISABLE": "1"}
    finished = subprocess.run([python, script, *folders], capture_output=True, text=True, check=False, env=settings)
    assert finished.returncode == 0, finished.stderr[-2000:]
    found = json.loads(finished.stdout.strip().splitlines()[-1])
    assert [found[str(folder)] for folder in folders] == [{"linears": 7, "difference": 0.0, "tokens": 7}] * 3
