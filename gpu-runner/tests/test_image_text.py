"""Models of images and text: the language model is quantized, towers stay, and the folder still sees."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny_architectures import save_tiny_model
from transformers import AutoModelForImageTextToText

from yaqa_runner.formats import container_for
from yaqa_runner.formats.container import QuantizedLinear
from yaqa_runner.model.load import load_source_model
from yaqa_runner.model.snapshot import inspect_snapshot
from yaqa_runner.protocol.recipes import parse_recipe

IMAGE_TOKEN, IMAGE_TOKENS = 300, 4


@pytest.mark.parametrize("kind", ["gemma3", "qwen3_vl"])
def test_towers_stay_and_the_language_model_is_quantized(kind: str, tmp_path: Path) -> None:
    source = save_tiny_model(kind, tmp_path / "tiny")
    model = load_source_model(inspect_snapshot(source), torch.device("cpu"))
    assert len(model.linears) == 28
    assert all("vision" not in layer.name and "visual" not in layer.name for layer in model.linears)
    assert {layer.block for layer in model.linears} == {0, 1, 2, 3}
    assert any(weight.reason == "outside the language model" for weight in model.unquantized)
    names = {layer.name for layer in model.linears}
    for recipe in ("gguf:q8_0", "w8a16,group=32", "gptq:8,group=32"):
        container = container_for(parse_recipe(recipe))
        assert set(container.storable(source, names)) == names, recipe


def test_a_packed_folder_answers_to_an_image_as_the_original_does(tmp_path: Path) -> None:
    source = save_tiny_model("gemma3", tmp_path / "tiny", dtype=torch.float32, tokenizer=False)
    processor = {"image_processor_type": "Gemma3ImageProcessor"}
    (source / "preprocessor_config.json").write_text(json.dumps(processor), encoding="utf-8")
    model = load_source_model(inspect_snapshot(source), torch.device("cpu"))
    container = container_for(parse_recipe("w8a16,group=32"))
    grid = container.grid()
    linears = {}
    for layer in model.linears:
        fixed = grid.fit(layer.weight())
        linears[layer.name] = QuantizedLinear(layer.name, fixed.nearest(layer.weight()), fixed, grid.name)
    container.write(source, linears, tmp_path / "out")
    assert (tmp_path / "out/preprocessor_config.json").is_file()
    ids = torch.randint(3, 256, (1, 16), generator=torch.Generator().manual_seed(0))
    ids[0, 4 : 4 + IMAGE_TOKENS] = IMAGE_TOKEN
    image = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    answers = []
    for folder in (source, tmp_path / "out"):
        # What was packed keeps the scales' type, whatever is asked for, and the model's own float() refuses.
        opened = torch.nn.Module.float(AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32))
        with torch.no_grad():
            seen = opened(input_ids=ids, pixel_values=image, token_type_ids=(ids == IMAGE_TOKEN).long()).logits
            other = opened(input_ids=ids, pixel_values=-image, token_type_ids=(ids == IMAGE_TOKEN).long()).logits
        assert float((seen - other).abs().max()) > 1e-3
        answers.append(seen)
    assert torch.equal(answers[0].argmax(-1), answers[1].argmax(-1))
    assert 0 < float((answers[0] - answers[1]).abs().max()) < 0.2
