"""Every recipe from spec to finished folder, on a model whose widths are uneven on purpose."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_checkpoints import save_checkpoint
from tiny_jobs import document, run
from transformers import AutoModelForCausalLM

from yaqa_runner.formats import container_for
from yaqa_runner.formats.compressed_tensors.float_forms import FLOAT_FORMS
from yaqa_runner.pipeline.finish import JobOutcome
from yaqa_runner.protocol.recipes import RECIPE_NAMES, parse_recipe, recipe_directory

RECIPES = [
    *(name.name if name.default_group is None else f"{name.name},group=32" for name in RECIPE_NAMES),
    "gguf,bpw=5",
    "gguf,bytes=450kB",
    "onnx:q4,group=32,embedding=q8",
    "onnx:q4f16,group=32,embedding=q4",
    *(f"w{bits}a16,group=32,zero=on" for bits in (2, 3, 4, 8)),
]
OPTIONS = "refine=1,tune=off"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, JobOutcome]:
    folder = tmp_path_factory.mktemp("every")
    model = save_checkpoint(
        folder / "llama", "llama", hidden_size=256, intermediate_size=288, num_hidden_layers=1, head_dim=64
    )
    outcome, _ = run(document(model, folder / "out", *(f"{recipe},{OPTIONS}" for recipe in RECIPES)), folder / "out")
    return folder / "out", outcome


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_gives_a_folder_that_decodes_and_a_manifest_that_lists_it_all(
    made: tuple[Path, JobOutcome], recipe: str
) -> None:
    output, outcome = made
    parsed = parse_recipe(f"{recipe},{OPTIONS}")
    manifest = next(manifest for manifest in outcome.manifests if manifest.recipe == parsed.canonical)
    folder = output / recipe_directory(parsed.canonical)
    assert {layer.name for layer in manifest.layers} | {
        weight.name.removesuffix(".weight") for weight in manifest.unquantized
    } == {
        *(f"model.layers.0.self_attn.{part}_proj" for part in "qkvo"),
        *(f"model.layers.0.mlp.{part}_proj" for part in ("gate", "up", "down")),
        "model.embed_tokens",
        "lm_head",
    }
    assert len(manifest.layers) == 7
    container = container_for(parsed, "llama")
    for layer in manifest.layers:
        weight = container.decode(folder, layer.name, output.parent / "llama")
        assert weight.shape == layer.shape and bool(torch.isfinite(weight).all())
    measured = {row.quantizer: row.report.kl_nats.mean for row in manifest.evaluation.measured}
    assert all(0 <= value < 20 for value in measured.values())
    assert len({row.bytes for row in manifest.evaluation.measured}) == 1


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_generates_in_its_own_ecosystem(made: tuple[Path, JobOutcome], recipe: str) -> None:
    parsed = parse_recipe(f"{recipe},{OPTIONS}")
    folder = made[0] / recipe_directory(parsed.canonical)
    prompt = torch.tensor([[5, 6, 7, 8]])
    container = container_for(parsed, "llama")
    loaded = container.load(folder, source=made[0].parent / "llama")
    greedy = prompt
    for _ in range(5):
        greedy = torch.cat([greedy, loaded.log_probabilities(greedy)[:, -1:].argmax(-1)], dim=1)
    if parsed.container in ("onnx", "gptq", "mlx"):
        # Their engines run in test_onnx_files (transformers.js), test_gptq_files (gptqmodel) and test_mlx_files.
        assert greedy.shape == (1, 9)
        return
    file = next((path.name for path in folder.glob("*.gguf")), None)
    named = {} if file is None else {"gguf_file": file}
    # FP4 and FP8 are unpacked to the model's own type, which is then that of its answers.
    dtype = "auto" if recipe in FLOAT_FORMS else torch.float32
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **named).eval()
    ids = model.generate(input_ids=prompt, max_new_tokens=5, min_new_tokens=5, do_sample=False)
    assert ids.shape == (1, 9) if recipe in FLOAT_FORMS else torch.equal(ids, greedy)


@pytest.mark.parametrize(
    ("recipe", "own", "value", "down"),
    [
        ("gguf:q3_k_s", "q3_k", "q3_k", "q4_0"),
        ("gguf:iq2_xs", "iq2_xs", "q2_k", "iq4_nl"),
        ("gguf:iq3_s", "iq3_s", "iq3_s", "iq4_nl"),
        ("gguf:iq4_xs", "iq4_xs", "iq4_xs", "iq4_nl"),
        ("gguf:q4_k_m", "q4_k", "q6_k", "q8_0"),
        ("gguf:q4_k_s", "q4_k", "q5_k", "q5_0"),
        ("gguf:q5_k_s", "q5_k", "q5_k", "q5_1"),
        ("gguf:q6_k", "q6_k", "q6_k", "q8_0"),
    ],
)
def test_a_mix_names_every_layers_type_and_what_stands_in_where_no_256_divides(
    made: tuple[Path, JobOutcome], recipe: str, own: str, value: str, down: str
) -> None:
    manifest = next(manifest for manifest in made[1].manifests if manifest.recipe == f"{recipe},{OPTIONS}")
    assert {layer.name.rsplit(".", 1)[1]: layer.type for layer in manifest.layers} == {
        **dict.fromkeys(("q_proj", "k_proj", "o_proj", "gate_proj", "up_proj"), own),
        "v_proj": value,
        "down_proj": down,
    }
