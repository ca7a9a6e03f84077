from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_checkpoints import VOCABULARY, load_original, log_probabilities, quantize, save_checkpoint, token_ids
from tiny_settings import LLAMA3_ROPE

from yaqa_runner.formats import ExportError
from yaqa_runner.formats.container import QuantizedLinear
from yaqa_runner.formats.onnx.container import OnnxContainer
from yaqa_runner.formats.quantized_embedding import quantized_embedding
from yaqa_runner.grids.grid import FixedGrid
from yaqa_runner.grids.symmetric import SymmetricGrid

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama tied": ("llama", {"tie_word_embeddings": True}),
    "llama with biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama 3.1": ("llama", {"rope_parameters": LLAMA3_ROPE}),
    "llama odd widths": ("llama", {"hidden_size": 40, "intermediate_size": 70, "head_dim": 10}),
    "mistral windowed": ("mistral", {"sliding_window": 6}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {"head_dim": 32}),
    "gemma": ("gemma", {"head_dim": 16}),
    "gemma2": ("gemma2", {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 6}),
    "gemma3": ("gemma3_text", {"head_dim": 32, "num_hidden_layers": 6, "sliding_window": 6}),
    "phi3": ("phi3", {"sliding_window": None}),
    "phi3 partial rotary": ("phi3", {"sliding_window": None, "partial_rotary_factor": 0.5}),
    "olmo2": ("olmo2", {}),
    "granite": (
        "granite",
        {"embedding_multiplier": 3.0, "residual_multiplier": 0.3, "attention_multiplier": 0.2, "logits_scaling": 2.0},
    ),
    "smollm3": ("smollm3", {"no_rope_layers": [1, 0]}),
    "arcee": ("arcee", {}),
    "bitnet": ("bitnet", {}),
    "cohere": ("cohere", {"logit_scale": 1.5}),
    "cohere by head": ("cohere", {"logit_scale": 1.5, "use_qk_norm": True}),
    "cohere2": (
        "cohere2",
        {
            "sliding_window": 6,
            "layer_types": ["sliding_attention", "full_attention"],
            "head_dim": 16,
            "logit_scale": 1.5,
        },
    ),
    "cwm": ("cwm", {"sliding_window": 6, "layer_types": ["full_attention", "sliding_attention"]}),
    "ernie4.5": ("ernie4_5", {"use_bias": True}),
    "exaone4": ("exaone4", {"sliding_window": None, "layer_types": ["full_attention"] * 2}),
    "exaone4 windowed": ("exaone4", {"sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]}),
    "glm": ("glm", {"head_dim": 16}),
    "glm4": ("glm4", {"head_dim": 16}),
    "helium": ("helium", {"head_dim": 16, "num_key_value_heads": 4}),
    "hunyuan": ("hunyuan_v1_dense", {"head_dim": 16}),
    "hyperclovax": ("hyperclovax", {"use_post_norm": True, "logits_scaling": 0.5, "residual_multiplier": 0.7}),
    "jais2": ("jais2", {}),
    "ministral": (
        "ministral",
        {"head_dim": 16, "sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]},
    ),
    "ministral3": (
        "ministral3",
        {
            "sliding_window": None,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "llama_4_scaling_beta": 0.5,
                "original_max_position_embeddings": 4,
            },
        },
    ),
    "nemotron": ("nemotron", {"head_dim": 16}),
    "olmo": ("olmo", {"clip_qkv": 0.5}),
    "olmo3": ("olmo3", {"sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]}),
    "persimmon": ("persimmon", {}),
    "phi": ("phi", {"num_key_value_heads": 4}),
    "phi by head": ("phi", {"num_key_value_heads": 4, "qk_layernorm": True}),
    "seed oss": ("seed_oss", {}),
    "stablelm": ("stablelm", {"use_qkv_bias": True}),
    "stablelm parallel": ("stablelm", {"use_parallel_residual": True}),
    "starcoder2": ("starcoder2", {"sliding_window": 6}),
    "vaultgemma": (
        "vaultgemma",
        {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 6},
    ),
}


def written(tmp_path: Path, label: str, container: OnnxContainer, group: int = 32) -> tuple[Any, dict[str, Any], Path]:
    kind, settings = MODELS[label]
    source = save_checkpoint(tmp_path / "tiny", kind, **settings)
    model = load_original(source)
    linears = quantize(model, container.settings.bits, group)
    container.write(source, linears, tmp_path / "out")
    return model, linears, tmp_path / "out"


class Session:
    """The graph, run as a text generator runs it."""

    def __init__(self, path: Path) -> None:
        self.session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        self.caches = [item for item in self.session.get_inputs() if item.name.startswith("past_key_values.")]

    def step(self, ids: np.ndarray, mask: np.ndarray, positions: np.ndarray, past: dict[str, np.ndarray] | None) -> Any:
        if past is None:
            past = {}
            for item in self.caches:
                kind = np.float16 if "float16" in item.type else np.float32
                past[item.name] = np.zeros((ids.shape[0], item.shape[1], 0, item.shape[3]), dtype=kind)
        feeds = {"input_ids": ids, "attention_mask": mask, "position_ids": positions, **past}
        names = [item.name for item in self.session.get_outputs()]
        results = dict(zip(names, self.session.run(names, feeds), strict=True))
        logits = results.pop("logits")
        return logits, {name.replace("present.", "past_key_values."): value for name, value in results.items()}


@pytest.mark.parametrize("label", MODELS)
def test_the_graph_computes_what_torch_computes(label: str, tmp_path: Path) -> None:
    container = OnnxContainer("q4", 4, 32)
    model, linears, output = written(tmp_path, label, container)
    ids = token_ids()
    wanted = log_probabilities(model, ids)
    assert wanted.std() > 0.1
    assert (container.load(output).log_probabilities(ids) - wanted).abs().max() < 1e-4
    for name, linear in list(linears.items())[:7]:
        assert torch.equal(container.decode(output, name), linear.grid.decode(linear.codes)), name


@pytest.mark.parametrize("label", ["llama", "mistral windowed", "gemma3", "cohere2", "ministral3", "persimmon"])
def test_the_cache_gives_what_one_pass_gives(label: str, tmp_path: Path) -> None:
    container = OnnxContainer("q4", 4, 32)
    _, _, output = written(tmp_path, label, container)
    session = Session(output / "onnx" / container.file_name)
    ids = token_ids(2, 12).numpy()
    positions = np.tile(np.arange(12), (2, 1))
    whole, _ = session.step(ids, np.ones_like(ids), positions, None)
    parts, past = [], None
    for start, end in ((0, 5), (5, 6), (6, 7), (7, 12)):
        mask = np.ones((2, end), dtype=np.int64)
        logits, past = session.step(ids[:, start:end], mask, positions[:, start:end], past)
        parts.append(logits)
    assert np.abs(np.concatenate(parts, axis=1) - whole).max() < 1e-4


def test_padding_on_the_left_changes_nothing(tmp_path: Path) -> None:
    container = OnnxContainer("q4", 4, 32)
    _, _, output = written(tmp_path, "llama", container)
    session = Session(output / "onnx" / container.file_name)
    ids = token_ids(1, 8).numpy()
    alone, _ = session.step(ids, np.ones_like(ids), np.arange(8)[None], None)
    padded = np.concatenate([np.ones((1, 3), dtype=np.int64), ids], axis=1)
    mask = np.array([[0, 0, 0, *[1] * 8]])
    positions = np.array([[1, 1, 1, *range(8)]])
    together, _ = session.step(padded, mask, positions, None)
    assert np.isfinite(together).all()
    assert np.abs(together[:, 3:] - alone).max() < 1e-4


@pytest.mark.parametrize(("dtype", "bits", "tolerance"), [("q8", 8, 0.25), ("q2", 2, 0.25), ("q4f16", 4, 0.1)])
def test_other_widths_load_and_stay_close(dtype: str, bits: int, tolerance: float, tmp_path: Path) -> None:
    container = OnnxContainer(dtype, bits, 32)
    model, linears, output = written(tmp_path, "llama tied", container)
    for name, linear in linears.items():
        decoded = linear.grid.decode(linear.codes)
        exact = decoded.to(torch.float16).float() if dtype.endswith("f16") else decoded
        assert torch.equal(container.decode(output, name), exact), name
    # Activations are rounded: to int8 inside the operator at level 4, to float16 in q4f16.
    wanted = log_probabilities(model, token_ids())
    difference = (container.load(output).log_probabilities(token_ids()) - wanted).abs().max()
    assert 0 < difference < tolerance


def test_zero_points_are_stored(tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "tiny", "llama", intermediate_size=90)
    model = load_original(source)
    linears = quantize(model, 4, 32, asymmetric=True)
    container = OnnxContainer("q4", 4, 32)
    container.write(source, linears, tmp_path / "out")
    for name, linear in linears.items():
        assert torch.equal(container.decode(tmp_path / "out", name), linear.grid.decode(linear.codes)), name
    wanted = log_probabilities(model, token_ids())
    assert (container.load(tmp_path / "out").log_probabilities(token_ids()) - wanted).abs().max() < 1e-4


def at_level_zero(path: Path) -> None:
    """Let every MatMulNBits compute in the activations' type: what is left is float error."""
    model = onnx.load(path)
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "accuracy_level":
                attribute.i = 0
    onnx.save(model, path)


# Blocks of 32: a hidden width of 40 leaves a short one in every row.
UNEVEN = {"hidden_size": 40, "intermediate_size": 70, "head_dim": 10, "vocab_size": VOCABULARY + 1}


@pytest.mark.parametrize("dtype", ["q4", "q4f16"])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(
    "settings",
    [{}, {"tie_word_embeddings": True}, UNEVEN, {**UNEVEN, "tie_word_embeddings": True}],
    ids=["untied", "tied", "uneven", "uneven tied"],
)
def test_an_embedding_in_blocks_computes_what_its_decoded_rows_do(
    settings: dict[str, Any], bits: int, dtype: str, tmp_path: Path
) -> None:
    source = save_checkpoint(tmp_path / "tiny", "llama", **settings)
    model = load_original(source)
    tied = bool(settings.get("tie_word_embeddings"))
    original = model.get_input_embeddings().weight.detach().clone()
    linears = quantize(model, 4, 32)
    container = OnnxContainer(dtype, 4, 32, embedding_bits=bits)
    container.write(source, linears, tmp_path / "out")
    rows = container.decode(tmp_path / "out", "model.embed_tokens")
    assert rows.shape == original.shape
    grid = SymmetricGrid(bits, 32, "float16" if dtype == "q4f16" else "float32")
    expected = quantized_embedding("e", original, grid)
    decoded = expected.grid.decode(expected.codes)
    assert torch.equal(rows, decoded.half().float() if dtype == "q4f16" else decoded)
    assert 0 < (rows - original).norm() / original.norm() < (0.1 if bits == 4 else 0.01)
    output = rows if tied else container.decode(tmp_path / "out", "lm_head")
    model.get_output_embeddings().weight.data = output
    model.get_input_embeddings().weight.data = rows
    at_level_zero(tmp_path / "out" / "onnx" / container.file_name)
    wanted = log_probabilities(model, token_ids())
    difference = (container.load(tmp_path / "out").log_probabilities(token_ids()) - wanted).abs().max()
    assert difference < (0.1 if dtype == "q4f16" else 1e-4)


@pytest.mark.parametrize("tied", [True, False])
def test_an_embedding_in_blocks_takes_that_much_less_of_the_file(tied: bool, tmp_path: Path) -> None:
    vocabulary, hidden = 4001, 64
    source = save_checkpoint(tmp_path / "tiny", "llama", vocab_size=vocabulary, tie_word_embeddings=tied)
    linears = quantize(load_original(source), 4, 32)
    sizes = {}
    for bits in (None, 8, 4):
        container = OnnxContainer("q4", 4, 32, embedding_bits=bits)
        container.write(source, linears, tmp_path / "out")
        sizes[bits] = (tmp_path / "out" / "onnx" / "model_q4.onnx").stat().st_size
        stored = {
            item.name: item.data_type for item in onnx.load(tmp_path / "out/onnx/model_q4.onnx").graph.initializer
        }
        names = ["model.embed_tokens.weight", *([] if tied else ["lm_head.weight"])]
        parts = [""] if bits is None else ["_quantized", "_scales"]
        vocabulary_tensors = {name for name in stored if "embed_tokens" in name or "lm_head" in name}
        assert vocabulary_tensors == {f"{name}{part}" for name in names for part in parts}
    for bits in (8, 4):
        saved = vocabulary * hidden * (32 - bits - 32 / 32) / 8 * (1 if tied else 2)
        # Names, shapes and a reshape more in the graph.
        assert abs(sizes[None] - sizes[bits] - saved) < 1000


@pytest.mark.parametrize("label", ["gemma2", "granite", "phi3", "qwen3"])
def test_multipliers_and_caps_around_the_vocabulary_follow_the_blocks(label: str, tmp_path: Path) -> None:
    container = OnnxContainer("q4", 4, 32, embedding_bits=4)
    model, _, output = written(tmp_path, label, container)
    rows = container.decode(output, "model.embed_tokens")
    tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    model.get_output_embeddings().weight.data = rows if tied else container.decode(output, "lm_head")
    model.get_input_embeddings().weight.data = rows
    wanted = log_probabilities(model, token_ids())
    assert (container.load(output).log_probabilities(token_ids()) - wanted).abs().max() < 1e-4


def test_inputs_and_outputs_carry_optimum_names(tmp_path: Path) -> None:
    container = OnnxContainer("q4", 4, 32)
    _, _, output = written(tmp_path, "llama tied", container)
    model = onnx.load(output / "onnx" / "model_q4.onnx")
    onnx.checker.check_model(model, full_check=False)
    caches = [f"past_key_values.{index}.{part}" for index in range(2) for part in ("key", "value")]
    assert [item.name for item in model.graph.input] == ["input_ids", "attention_mask", "position_ids", *caches]
    presents = [name.replace("past_key_values", "present") for name in caches]
    assert [item.name for item in model.graph.output] == ["logits", *presents]
    shapes = {
        item.name: [d.dim_param or d.dim_value for d in item.type.tensor_type.shape.dim] for item in model.graph.input
    }
    assert shapes["past_key_values.1.key"] == ["batch_size", 2, "past_sequence_length", 16]
    assert {item.domain: item.version for item in model.opset_import}[""] <= 21
    kinds = {node.op_type for node in model.graph.node if node.domain}
    assert kinds == {"MatMulNBits"}
    stored = [item.name for item in model.graph.initializer if "embed" in item.name or "lm_head" in item.name]
    assert stored == ["model.embed_tokens.weight"]
    config = json.loads((output / "config.json").read_text(encoding="utf-8"))
    assert config["transformers.js_config"] == {"dtype": "q4"}
    names = {path.name for path in output.iterdir()}
    assert names == {
        "onnx",
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "LICENSE",
    }


@pytest.mark.parametrize("embedding", [None, 4])
def test_large_weights_go_to_data_files(embedding: int | None, tmp_path: Path) -> None:
    limit = 60_000
    container = OnnxContainer("q4", 4, 32, embedding, external_bytes=limit if embedding is None else limit // 3)
    model, linears, output = written(tmp_path, "llama", container)
    if embedding is not None:
        model.get_input_embeddings().weight.data = container.decode(output, "model.embed_tokens")
        model.get_output_embeddings().weight.data = container.decode(output, "lm_head")
    data = sorted(path.name for path in (output / "onnx").glob("*_data*"))
    assert data[:2] == ["model_q4.onnx_data", "model_q4.onnx_data_1"]
    config = json.loads((output / "config.json").read_text(encoding="utf-8"))
    assert config["transformers.js_config"]["use_external_data_format"] == {"model_q4.onnx": len(data)}
    wanted = log_probabilities(model, token_ids())
    assert (container.load(output).log_probabilities(token_ids()) - wanted).abs().max() < 1e-4
    name, linear = next(iter(linears.items()))
    assert torch.equal(container.decode(output, name), linear.grid.decode(linear.codes))


def test_equal_inputs_give_equal_bytes(tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "tiny", "llama")
    linears = quantize(load_original(source), 4, 32)
    first = OnnxContainer("q4", 4, 32).write(source, linears, tmp_path / "a")
    second = OnnxContainer("q4", 4, 32).write(source, linears, tmp_path / "b")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_what_the_graph_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="not for 'gpt2'"):
        OnnxContainer("q4", 4, 32).write(save_checkpoint(tmp_path / "gpt2", "gpt2"), {}, tmp_path / "out")
    with pytest.raises(ExportError, match="q2, q4, q8, q4f16"):
        OnnxContainer("q3", 3, 32)
    with pytest.raises(ExportError, match="blocks of 16"):
        OnnxContainer("q4", 4, 8)
    with pytest.raises(ExportError, match="4 or 8 bits; not 2"):
        OnnxContainer("q4", 4, 32, embedding_bits=2)
    source = save_checkpoint(tmp_path / "tiny", "llama")
    linears = quantize(load_original(source), 4, 32)
    stray = QuantizedLinear("model.layers.9.mlp.up_proj", *_first(linears))
    with pytest.raises(ExportError, match="no weight for"):
        OnnxContainer("q4", 4, 32).write(source, {stray.name: stray}, tmp_path / "out")
    dynamic = save_checkpoint(
        tmp_path / "long", "llama", rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    )
    with pytest.raises(ExportError, match="rope type 'dynamic'"):
        OnnxContainer("q4", 4, 32).write(dynamic, {}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def _first(linears: dict[str, QuantizedLinear]) -> tuple[torch.Tensor, FixedGrid, str]:
    linear = next(iter(linears.values()))
    return linear.codes, linear.grid, linear.type


def test_unquantized_weights_are_listed(tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "tiny", "llama")
    linears = quantize(load_original(source), 4, 32)
    names = [(weight.name, weight.type) for weight in OnnxContainer("q4", 4, 32).unquantized(source, set(linears))]
    assert names == [("lm_head.weight", "float32"), ("model.embed_tokens.weight", "float32")]
    blocks = OnnxContainer("q4", 4, 64, embedding_bits=8).unquantized(source, set(linears))
    assert [(weight.name, weight.type) for weight in blocks] == [
        ("lm_head.weight", "int8, blocks of 64"),
        ("model.embed_tokens.weight", "int8, blocks of 64"),
    ]


def test_an_embedding_that_is_not_finite_is_refused_where_it_would_be_rounded(tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "tiny", "llama")
    linears = quantize(load_original(source), 4, 32)
    weights = load_file(source / "model.safetensors")
    weights["model.embed_tokens.weight"][5, 7] = float("nan")
    save_file(weights, source / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ExportError, match=r"model\.embed_tokens: the weight holds values that are not finite"):
        OnnxContainer("q4", 4, 32, embedding_bits=4).write(source, linears, tmp_path / "out")
    assert not (tmp_path / "out").exists()


REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize(("dtype", "embedding"), [("q4", None), ("q8", None), ("q4f16", None), ("q4", 4), ("q4f16", 8)])
def test_transformers_js_generates_the_same_text(dtype: str, embedding: int | None, tmp_path: Path) -> None:
    node = REPOSITORY / "node_modules" / ".bin" / "node"
    if not node.exists() or not (REPOSITORY / "node_modules" / "@huggingface" / "transformers").exists():
        pytest.skip("skipped: no Node packages (npm ci)")
    container = OnnxContainer(dtype, 8 if dtype == "q8" else 4, 32, embedding)
    model, _, output = written(tmp_path, "llama tied", container)
    if embedding is not None:
        # Tied: the one parameter is the output layer too.
        model.get_input_embeddings().weight.data.copy_(container.decode(output, "model.embed_tokens"))
    prompts = [[5, 17, 33, 90, 41], [12, 8]]
    script = Path(__file__).with_name("transformers_js_generate.mjs")
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    run = subprocess.run(
        [str(node), str(script), str(output), json.dumps(prompts), "6"],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    answers = json.loads(run.stdout.splitlines()[-1])
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = torch.tensor([prompt])
        wanted = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False, pad_token_id=1
        )
        # Rounded activations may turn a near tie; the exact file may not.
        assert answer[0][: len(prompt)] == prompt
        if dtype == "q4":
            assert answer[0] == wanted[0].tolist()
        assert all(0 <= token < VOCABULARY for token in answer[0])
        assert len(answer[0]) > len(prompt)
