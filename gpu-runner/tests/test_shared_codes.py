from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from tiny_checkpoints import linear_weights, load_original, save_checkpoint

from yaqa_runner.formats import ExportError, container_for
from yaqa_runner.formats.container import QuantizedLinear
from yaqa_runner.grids.gguf import gguf_grid
from yaqa_runner.protocol.recipes import RECIPE_NAMES, RecipeName


@dataclass(frozen=True)
class Recipe:
    container: str
    name: str
    bits: int
    group: int | None
    zero: bool = False
    bits_per_weight: float | None = None
    embedding_bits: int | None = None
    budget_bytes: int | None = None


def shared(bits: int) -> list[Recipe]:
    return [
        Recipe("gguf", f"gguf:{'q4_0' if bits == 4 else 'q8_0'}", bits, None),
        Recipe("onnx", f"onnx:q{bits}", bits, 32),
        Recipe("compressed-tensors", f"w{bits}a16", bits, 32),
        Recipe("gptq", f"gptq:{bits}", bits, 32),
    ]


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_one_set_of_codes_is_the_same_weights_in_every_container(bits: int, kind: str, tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "tiny", kind)
    model = load_original(source)
    containers = [container_for(recipe) for recipe in shared(bits)]
    grids = [container.grid() for container in containers]
    assert {grid.name for grid in grids} == {f"symmetric-{bits}-g32"}
    linears = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            weight = module.weight.detach()
            fitted = [grid.fit(weight) for grid in grids]
            assert all(torch.equal(fixed.scale, fitted[0].scale) for fixed in fitted)
            linears[name] = QuantizedLinear(name, fitted[0].nearest(weight), fitted[0], grids[0].name)
    decoded: dict[str, list[torch.Tensor]] = {name: [] for name in linears}
    for container in containers:
        container.write(source, linears, tmp_path / container.name)
        for name in linears:
            decoded[name].append(container.decode(tmp_path / container.name, name))
    for name, linear in linears.items():
        for weight in decoded[name]:
            assert torch.equal(weight, linear.grid.decode(linear.codes)), name


@pytest.mark.parametrize(
    ("recipe", "kind"),
    [
        (Recipe("gguf", "gguf:q4_0", 4, None), "opt"),
        (Recipe("onnx", "onnx:q4", 4, 32), "gpt2"),
        (Recipe("compressed-tensors", "w4a16", 4, 32), "gpt2"),
    ],
)
def test_a_model_that_cannot_be_written_is_known_before_rounding(recipe: Recipe, kind: str, tmp_path: Path) -> None:
    settings = {"ffn_dim": 96, "word_embed_proj_dim": 64} if kind == "opt" else {}
    source = save_checkpoint(tmp_path / "tiny", kind, **settings)
    names = set(linear_weights(load_original(source)))
    with pytest.raises(ExportError):
        container_for(recipe).unquantized(source, names)


@pytest.mark.parametrize("known", RECIPE_NAMES, ids=lambda known: known.name)
def test_every_recipe_has_a_container_that_stores_the_bits_it_says(known: RecipeName) -> None:
    container = container_for(Recipe(known.container, known.name, known.bits, known.default_group))
    assert container.name == known.container
    # A mix stores on average what lies between its types.
    stored = [gguf_grid(name).bits_per_weight for name in known.types] or [container.grid().bits_per_weight]
    least, most = min(stored), max(stored)
    assert least <= known.bits_per_weight <= most
    assert known.bits_per_weight == least or len(known.types) > 1
    assert container.grid().supports(256, 256)


def test_recipes_without_a_container_are_refused() -> None:
    with pytest.raises(ExportError, match="no container named 'exl3'"):
        container_for(Recipe("exl3", "exl3:4", 4, 32))
    with pytest.raises(ExportError, match="share a scale"):
        container_for(Recipe("gptq", "gptq:4", 4, None))
    with pytest.raises(ExportError, match="GGUF type 'q9_9'"):
        container_for(Recipe("gguf", "gguf:q9_9", 4, None))
