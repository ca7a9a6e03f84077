"""Mixtures of experts: fused tensors taken apart, sketched an expert, rounded, and loaded back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from tiny_checkpoints import load_original, log_probabilities, save_checkpoint, token_ids
from tiny_jobs import document, run
from transformers import AutoModelForCausalLM

from yaqa_runner.evaluate.statistics import token_kl
from yaqa_runner.formats.compressed_tensors.container import CompressedTensorsContainer
from yaqa_runner.formats.compressed_tensors.integer_form import IntegerForm
from yaqa_runner.formats.gptq.container import GptqContainer
from yaqa_runner.model.experts import SeparateExperts
from yaqa_runner.model.load import load_source_model
from yaqa_runner.model.snapshot import inspect_snapshot
from yaqa_runner.protocol.failures import UnsupportedModel

CPU = torch.device("cpu")
KINDS: dict[str, dict[str, Any]] = {
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "head_dim": 16},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
}


@pytest.fixture(scope="module", params=sorted(KINDS))
def mixture(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    return save_checkpoint(folder / request.param, request.param, num_hidden_layers=1, **KINDS[request.param])


def test_experts_become_linears_with_the_checkpoints_names_and_compute_the_same(mixture: Path) -> None:
    source = load_source_model(inspect_snapshot(mixture), CPU)
    routed = [layer for layer in source.linears if layer.routed]
    assert len(routed) == 4 * 3
    with safe_open(mixture / "model.safetensors", "pt") as file:
        for layer in source.linears:
            assert torch.equal(layer.weight(), file.get_tensor(f"{layer.name}.weight").float()), layer.name
            assert source.model.get_submodule(layer.path) is layer.module
    wanted = log_probabilities(load_original(mixture), token_ids())
    got = log_probabilities(source.model, token_ids())  # type: ignore[arg-type]
    assert (wanted - got).abs().max() < 1e-4
    assert any(isinstance(module, SeparateExperts) for module in source.model.modules())
    assert {weight.name.rsplit(".", 2)[-2] for weight in source.unquantized} == {"embed_tokens", "lm_head", "gate"}


@pytest.mark.parametrize("kind", ["a", "b"])
def test_a_mixture_goes_from_sketch_to_folders_that_run(mixture: Path, tmp_path: Path, kind: str) -> None:
    changes = {"sketch": {"kind": kind, "iterations": 2, "sigmaInput": 0.01, "sigmaOutput": 0.1}}
    spec = document(mixture, tmp_path / "out", "w4a16,group=32", "gptq:4,group=32", **changes)
    outcome, _ = run(spec, tmp_path / "out")
    for manifest in outcome.manifests:
        assert sum(".experts." in layer.name for layer in manifest.layers) == 12
        assert len(manifest.layers) == 12 + 4
        assert {weight.name.rsplit(".", 2)[-2] for weight in manifest.unquantized} == {
            "embed_tokens",
            "lm_head",
            "gate",
        }
    packed, gptq = tmp_path / "out" / "w4a16-group-32", tmp_path / "out" / "gptq-4-group-32"
    first = CompressedTensorsContainer(IntegerForm(4, 32)).load(packed).log_probabilities(token_ids())
    second = GptqContainer(4, 32).load(gptq).log_probabilities(token_ids())
    winners = {manifest.gate.winner for manifest in outcome.manifests}
    if len(winners) == 1:
        # The same codes and scales; transformers keeps the experts that it decodes in the folder's bfloat16.
        assert (first - second).abs().max() < 0.02
        assert token_kl(second, first).mean() < 1e-5
    config = json.loads((packed / "config.json").read_text(encoding="utf-8"))["quantization_config"]
    assert any(name.endswith(".gate") for name in config["ignore"])
    assert any(r"\.gate$" in key for key in json.loads((gptq / "quantize_config.json").read_text())["dynamic"])
    model = AutoModelForCausalLM.from_pretrained(packed)
    ids = token_ids(1, 6)
    text = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=3, do_sample=False)
    assert text.shape[1] > 6


def test_experts_that_no_token_reaches_are_rounded_without_their_sketch_and_that_is_told(
    mixture: Path, tmp_path: Path
) -> None:
    # Eight tokens, all sent to two experts.
    calibration = {"kind": "self", "sequences": 1, "length": 8, "seed": 1}
    spec = document(mixture, tmp_path / "out", "gptq:4,group=32", calibration=calibration)
    outcome, events = run(spec, tmp_path / "out")
    assert len(outcome.manifests[0].layers) == 16
    for layer in outcome.manifests[0].layers:
        assert layer.proxy_error.two_sided >= 0
    fallbacks = [event for event in events if event.get("code") == "factor-fallback"]
    unseen = [layer for layer in outcome.manifests[0].layers if layer.sigma_output == 0]
    assert len(unseen) == len(
        {event["message"].partition(":")[0] for event in fallbacks if "output" in event["message"]}
    )


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_mixture_whose_experts_fit_no_group_is_refused(kind: str, tmp_path: Path) -> None:
    shape = {name: 40 if name.startswith("moe") else value for name, value in KINDS[kind].items()}
    mixture = save_checkpoint(tmp_path / kind, kind, num_hidden_layers=1, intermediate_size=40, **shape)
    with pytest.raises(UnsupportedModel, match="every expert"):
        run(document(mixture, tmp_path / "out", "w4a16,group=64"), tmp_path / "out")
