"""Anybody's quantized files against their original: found by their own marks, measured side by side."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest
import torch
from llama_cpp_library import llama_quantize
from rich.console import Console
from safetensors.torch import load_file
from tiny_checkpoints import load_original, quantize, save_checkpoint

import yaqa_runner
from yaqa_runner.cli.display import print_measured
from yaqa_runner.cli.main import main
from yaqa_runner.formats.compressed_tensors.container import CompressedTensorsContainer
from yaqa_runner.formats.compressed_tensors.integer_form import IntegerForm
from yaqa_runner.formats.gguf.container import GgufContainer
from yaqa_runner.formats.gptq.container import GptqContainer
from yaqa_runner.formats.mlx.container import MlxContainer
from yaqa_runner.formats.onnx.container import OnnxContainer
from yaqa_runner.protocol.failures import InvalidSpec


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    return save_checkpoint(folder, "llama", hidden_size=256, intermediate_size=256, num_attention_heads=4)


@pytest.fixture(scope="module")
def files(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What others publish of the model, and folders of ours without their manifests."""
    folder = tmp_path_factory.mktemp("files")
    GgufContainer("q8_0").write(source, {}, folder / "plain")
    (plain,) = (folder / "plain").glob("*.gguf")
    for mix in ("q2_k", "q6_k"):
        llama_quantize(plain, folder / f"theirs-{mix}.gguf", mix)
    GptqContainer(4, 32).write(source, quantize(load_original(source), 4, 32), folder / "gptq")
    CompressedTensorsContainer(IntegerForm(8, 32)).write(
        source, quantize(load_original(source), 8, 32), folder / "w8a16"
    )
    OnnxContainer("q4", 4, 32).write(source, quantize(load_original(source), 4, 32), folder / "onnx")
    MlxContainer(4, 32).write(source, quantize(load_original(source), 4, 32), folder / "mlx")
    return {
        "16 bits": source,
        "Q2_K": folder / "theirs-q2_k.gguf",
        "Q6_K": folder / "theirs-q6_k.gguf",
        "GPTQ, 4 bits": folder / "gptq",
        "compressed-tensors, 8 bits": folder / "w8a16",
        "ONNX, model_q4": folder / "onnx",
        "MLX, 4 bits": folder / "mlx",
    }


def test_files_of_every_maker_are_measured_side_by_side(source: Path, files: dict[str, Path]) -> None:
    rows = yaqa_runner.measure(source, files.values(), sequences=3, length=24, device="cpu")
    assert [row.folder for row in rows] == list(files.values())
    by_label = dict(zip(files, rows, strict=True))
    assert [row.recipe for row in rows] == ["bfloat16", *list(files)[1:]]
    kl = {label: row.metrics.kl_nats.mean for label, row in by_label.items()}
    assert kl["16 bits"] < 1e-6
    assert kl["16 bits"] < kl["compressed-tensors, 8 bits"] < kl["Q6_K"] * 10
    assert kl["Q6_K"] < kl["GPTQ, 4 bits"] < kl["Q2_K"]
    # The same codes on the same scales.
    assert kl["ONNX, model_q4"] == pytest.approx(kl["GPTQ, 4 bits"], rel=0.02)
    # And an embedding of 8 bits.
    assert kl["MLX, 4 bits"] == pytest.approx(kl["GPTQ, 4 bits"], rel=0.1)
    weights = sum(tensor.numel() for tensor in load_file(source / "model.safetensors").values())
    for row in rows:
        assert row.bits_per_weight == pytest.approx(8 * row.size / weights)
    assert by_label["Q2_K"].size == files["Q2_K"].stat().st_size
    assert 2.6 < by_label["Q2_K"].bits_per_weight < by_label["Q6_K"].bits_per_weight < 10
    assert by_label["16 bits"].bits_per_weight == pytest.approx(16, abs=0.2)


def test_the_command_line_gives_one_document_and_people_one_table(
    source: Path, files: dict[str, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    wanted = [files[label] for label in ("Q2_K", "Q6_K")]
    settings = ["--sequences", "2", "--length", "16", "--device", "cpu", "--json"]
    assert main(["measure", str(source), *map(str, wanted), *settings]) == 0
    rows = json.loads(capfd.readouterr().out.splitlines()[-1])["measured"]
    assert [row["recipe"] for row in rows] == ["Q2_K", "Q6_K"]
    assert rows[0]["bytes"] == files["Q2_K"].stat().st_size
    console = Console(file=io.StringIO(), width=100)
    print_measured(console, yaqa_runner.measure(source, wanted, sequences=2, length=16, device="cpu"))
    table = console.file.getvalue()
    for row in rows:
        assert f"{row['report']['klNats']['mean']:.5f}" in table and row["recipe"] in table
        assert f"{row['bitsPerWeight']:.2f}" in table


def test_what_cannot_be_measured_is_refused_by_name(source: Path, files: dict[str, Path], tmp_path: Path) -> None:
    two = tmp_path / "two"
    two.mkdir()
    shutil.copy(files["Q2_K"], two / "a.gguf")
    shutil.copy(files["Q6_K"], two / "b.gguf")
    (tmp_path / "broken.gguf").write_bytes(b"GGUF nothing more")
    shutil.copy(files["Q2_K"], tmp_path / "part-00001-of-00002.gguf")
    shutil.copytree(files["GPTQ, 4 bits"], tmp_path / "second form")
    config = json.loads((tmp_path / "second form" / "config.json").read_text())
    config["quantization_config"]["checkpoint_format"] = "gptq_v2"
    (tmp_path / "second form" / "config.json").write_text(json.dumps(config))
    shutil.copytree(files["MLX, 4 bits"], tmp_path / "codebook")
    config = json.loads((tmp_path / "codebook" / "config.json").read_text())
    config["quantization"]["mode"] = "mxfp8"
    (tmp_path / "codebook" / "config.json").write_text(json.dumps(config))
    other = save_checkpoint(tmp_path / "other", "llama", num_hidden_layers=1)
    GgufContainer("q8_0").write(other, quantize(load_original(other), 8, 32), tmp_path / "other out")
    wanted = {
        two: "holds 2 models: name one of a.gguf, b.gguf",
        tmp_path / "broken.gguf": "cannot be read as GGUF",
        tmp_path / "part-00001-of-00002.gguf": "part-00002-of-00002.gguf is missing",
        tmp_path / "second form": "'gptq_v2'",
        tmp_path / "codebook": "in the mode 'mxfp8'; read are affine",
        tmp_path / "nothing": "There is no",
        source / "LICENSE": "neither a GGUF file nor an ONNX graph",
        tmp_path / "other out": "has shape",
    }
    for path, message in wanted.items():
        with pytest.raises(InvalidSpec, match=message):
            yaqa_runner.measure(source, path, sequences=2, length=16, device="cpu")


def test_the_matrix_of_importance_beside_a_model_is_no_model(
    source: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copy(files["Q6_K"], tmp_path / "model-Q6_K.gguf")
    shutil.copy(files["Q2_K"], tmp_path / "imatrix.gguf")
    (row,) = yaqa_runner.measure(source, tmp_path, sequences=2, length=16, device="cpu")
    assert row.recipe == "Q6_K" and row.size == files["Q6_K"].stat().st_size
    assert torch.isfinite(torch.tensor(row.metrics.kl_nats.mean))
