"""Finished files that are decoded a block at a time compute what they compute whole."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_checkpoints import load_original, quantize, save_checkpoint, token_ids

import yaqa_runner
from yaqa_runner.evaluate import finished_model
from yaqa_runner.evaluate.finished_model import is_measured_by_blocks, open_finished
from yaqa_runner.formats import ExportError
from yaqa_runner.formats.blockwise_reference import BlockwiseReferenceModel
from yaqa_runner.formats.compressed_tensors.container import CompressedTensorsContainer
from yaqa_runner.formats.compressed_tensors.integer_form import IntegerForm
from yaqa_runner.formats.container import Container
from yaqa_runner.formats.gguf.container import GgufContainer
from yaqa_runner.formats.gptq.container import GptqContainer
from yaqa_runner.formats.onnx.container import OnnxContainer
from yaqa_runner.model.load import load_source_model
from yaqa_runner.model.snapshot import inspect_snapshot

CASES: list[tuple[str, Container, str, dict[str, Any]]] = [
    ("gguf", GgufContainer("q8_0"), "llama", {"tie_word_embeddings": True}),
    ("gguf-experts", GgufContainer("q8_0"), "qwen3_moe", {"norm_topk_prob": True}),
    ("gguf-fused", GgufContainer("q8_0"), "gpt_neox", {}),
    ("gptq", GptqContainer(4, 32), "llama", {"tie_word_embeddings": True}),
    ("gptq-conv1d", GptqContainer(4, 32), "gpt2", {}),
    ("compressed-tensors", CompressedTensorsContainer(IntegerForm(4, 32)), "llama", {"tie_word_embeddings": True}),
    ("compressed-tensors-zero", CompressedTensorsContainer(IntegerForm(4, 32, zero=True)), "qwen2", {}),
]


def written(container: Container, kind: str, settings: dict[str, Any], folder: Path) -> tuple[Path, Path]:
    source = save_checkpoint(folder / "tiny", kind, **settings)
    bits = 8 if isinstance(container, GgufContainer) else 4
    asymmetric = isinstance(container, CompressedTensorsContainer) and getattr(container.form, "zero", False)
    linears = quantize(load_original(source), bits, 32, asymmetric)
    storable = container.storable(source, set(linears))
    wanted = {
        name: replace(
            linears[name], codes=linears[name].codes if order is None else linears[name].codes[:, order], columns=order
        )
        for name, order in storable.items()
    }
    container.write(source, wanted, folder / "out")
    return source, folder / "out"


@pytest.mark.parametrize(
    ("container", "kind", "settings"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_a_file_computes_the_same_by_blocks(
    container: Container, kind: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    source, output = written(container, kind, settings, tmp_path)
    tokens = token_ids(5, 24)
    whole = container.load(output, "cpu", source).log_probabilities(tokens)
    model = container.load(output, "cpu", source, by_blocks=True)
    assert isinstance(model, BlockwiseReferenceModel)
    assert torch.allclose(model.log_probabilities(tokens[:2]), whole[:2], rtol=1e-6, atol=1e-6)
    checks: list[int] = []
    other = token_ids(3, 7)
    model.sweep([tokens, other], tmp_path / "states", lambda: checks.append(1))
    assert checks
    assert torch.allclose(model.log_probabilities(tokens), whole, rtol=1e-6, atol=1e-6)
    # In whatever order they are asked for, and those of no sweep.
    assert torch.allclose(model.log_probabilities(tokens[[4, 1]]), whole[[4, 1]], rtol=1e-6, atol=1e-6)
    assert (model.log_probabilities(tokens[:, :9]) - whole[:, :9]).abs().max() <= 1e-5
    held = [name for name, value in model._blockwise.model.named_parameters() if not value.is_meta]
    blocks = {name.split(".")[2] for name in held if name.startswith(("model.layers.", "transformer.h."))}
    assert not blocks


def test_figures_are_those_of_the_whole_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    container = GptqContainer(4, 32)
    source, output = written(container, "llama", {"tie_word_embeddings": False}, tmp_path)
    OnnxContainer("q4", 4, 32).write(source, quantize(load_original(source), 4, 32), tmp_path / "onnx")
    expected, found = [], []
    for share, rows in ((1e9, expected), (0.0, found)):
        monkeypatch.setattr(finished_model, "MEASURED_SHARE", share)
        rows += yaqa_runner.measure(source, [output, tmp_path / "onnx"], sequences=3, length=24, device="cpu")
    for one, other in zip(expected, found, strict=True):
        assert one.metrics.kl_nats.mean == pytest.approx(other.metrics.kl_nats.mean, abs=1e-6)
        assert one.metrics.perplexity.quantized == pytest.approx(other.metrics.perplexity.quantized, rel=1e-6)


def test_files_without_all_weights_are_refused(tmp_path: Path) -> None:
    container = GptqContainer(4, 32)
    source, output = written(container, "llama", {}, tmp_path)
    path = output / "model.safetensors"
    sound = load_file(path)
    name = "model.layers.1.input_layernorm.weight"
    cases = {"no weights for": {key: value for key, value in sound.items() if key != name}, "unexpected": dict(sound)}
    cases["unexpected"]["model.layers.1.mlp.other.weight"] = torch.ones(3, 3)
    for message, tensors in cases.items():
        save_file(tensors, path, metadata={"format": "pt"})
        with pytest.raises(ExportError, match=message):
            open_finished(
                lambda by_blocks: container.load(output, "cpu", source, by_blocks),
                by_blocks=True,
                texts=[token_ids()],
                folder=tmp_path / "states",
            )


def test_what_fits_beside_the_original_is_loaded_whole(tmp_path: Path) -> None:
    source = load_source_model(inspect_snapshot(save_checkpoint(tmp_path / "tiny", "llama")), torch.device("cpu"))
    assert not is_measured_by_blocks(source)
    assert is_measured_by_blocks(source, finished_model.PROCESS_BYTES + source.parameter_bytes)
    assert not is_measured_by_blocks(source, finished_model.PROCESS_BYTES + 3 * source.parameter_bytes)
