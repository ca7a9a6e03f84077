from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from tiny_checkpoints import VOCABULARY, load_original, log_probabilities, quantize, save_checkpoint, token_ids
from tiny_settings import LLAMA3_ROPE
from transformers import AutoModelForCausalLM, AutoTokenizer

from yaqa_runner.formats import ExportError
from yaqa_runner.formats.container import QuantizedLinear
from yaqa_runner.formats.gguf import container as gguf_module
from yaqa_runner.formats.gguf.container import GgufContainer
from yaqa_runner.formats.gguf.pre_tokenizer import detect_pre_tokenizer
from yaqa_runner.grids.gguf import gguf_grid, gguf_type_for

# name: (model type, settings, whether transformers' own GGUF loader knows all of it)
MODELS: dict[str, tuple[str, dict[str, Any], bool]] = {
    "llama": ("llama", {}, True),
    "llama tied": ("llama", {"tie_word_embeddings": True}, True),
    "llama with biases": ("llama", {"attention_bias": True, "mlp_bias": True}, False),
    "llama 3.1": ("llama", {"rope_parameters": LLAMA3_ROPE}, False),
    "mistral": ("mistral", {"sliding_window": None}, True),
    "qwen2": ("qwen2", {}, True),
    "qwen3": ("qwen3", {"head_dim": 128}, True),
    "qwen3 narrow heads": ("qwen3", {"head_dim": 32, "tie_word_embeddings": True}, False),
    "gemma2": ("gemma2", {"head_dim": 256}, True),
    "gemma3": ("gemma3_text", {"head_dim": 32, "query_pre_attn_scalar": 32}, False),
    "phi3": ("phi3", {"sliding_window": None}, True),
    "olmo2": ("olmo2", {}, False),
    "starcoder2": ("starcoder2", {"sliding_window": None}, True),
    "gpt2": ("gpt2", {}, True),
    "gpt-neox": ("gpt_neox", {}, False),
    "phi": ("phi", {}, False),
}


def restored_embeddings(model: torch.nn.Module, directory: Path) -> None:
    """Give ``model`` the embedding and output layer as the file holds them."""
    (path,) = directory.glob("*.gguf")
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    for name, target in (("token_embd.weight", "get_input_embeddings"), ("output.weight", "get_output_embeddings")):
        if name in tensors:
            value = gguf.quants.dequantize(tensors[name].data, tensors[name].tensor_type)
            getattr(model, target)().weight.data = torch.from_numpy(value.copy())


def planned_bytes(container: GgufContainer, source: Path, linears: dict[str, QuantizedLinear], budget: int) -> int:
    """What the files take, known before any linear is rounded."""
    shapes = {name: (linear.codes.shape[0], linear.codes.shape[1]) for name, linear in linears.items()}
    blocks = 0
    for name, (rows, columns) in shapes.items():
        chosen = gguf_type_for(container.types.get(name, container.type), rows, columns)
        assert chosen is not None
        size = int(rows * columns * gguf_grid(chosen).bits_per_weight / 8)
        blocks += -(-size // gguf_module.ALIGNMENT) * gguf_module.ALIGNMENT
    # Another type than that of the linears: what is beside them does not depend on it.
    return GgufContainer("q2_k").bytes_besides(source, shapes, budget) + blocks


@pytest.mark.parametrize("label", MODELS)
def test_a_file_decodes_to_the_chosen_weights_and_runs(label: str, tmp_path: Path) -> None:
    kind, settings, known = MODELS[label]
    source = save_checkpoint(tmp_path / "tiny", kind, **settings)
    model = load_original(source)
    linears = quantize(model, 4, 32)
    container = GgufContainer("q4_0")
    files = container.write(source, linears, tmp_path / "out")
    assert [path.name for path in files] == ["LICENSE", "config.json", "tiny-Q4_0.gguf"]
    assert sum(path.stat().st_size for path in files) == planned_bytes(container, source, linears, 10**9)
    for name, linear in linears.items():
        assert torch.equal(container.decode(tmp_path / "out", name), linear.grid.decode(linear.codes)), name
    ids = token_ids()
    restored_embeddings(model, tmp_path / "out")
    wanted = log_probabilities(model, ids)
    assert wanted.std() > 0.1
    ours = container.load(tmp_path / "out").log_probabilities(ids)
    assert (ours - wanted).abs().max() < 2e-4
    if known:
        theirs = AutoModelForCausalLM.from_pretrained(
            tmp_path / "out", gguf_file="tiny-Q4_0.gguf", dtype=torch.float32, attn_implementation="eager"
        ).eval()
        assert (log_probabilities(theirs, ids) - wanted).abs().max() < 2e-4


@pytest.mark.parametrize(
    "type_name", ["q4_1", "q5_0", "q8_0", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq2_xs", "iq3_s", "iq4_nl", "iq4_xs"]
)
def test_every_type_is_written_with_fallbacks_for_narrow_rows(type_name: str, tmp_path: Path) -> None:
    # 256-wide inputs fit a super-block, the 96 inputs of down_proj do not.
    source = save_checkpoint(tmp_path / "tiny", "llama", hidden_size=256, num_hidden_layers=1)
    model = load_original(source)
    container = GgufContainer(type_name)
    grid = container.grid()
    linears = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            fixed = grid.fit(module.weight.detach())
            linears[name] = QuantizedLinear(name, fixed.nearest(module.weight.detach()), fixed, grid.name)
    files = container.write(source, linears, tmp_path / "out")
    assert sum(file.stat().st_size for file in files) == planned_bytes(container, source, linears, 10**9)
    (path,) = (tmp_path / "out").glob("*.gguf")
    types = {tensor.name: tensor.tensor_type.name.lower() for tensor in gguf.GGUFReader(path).tensors}
    assert types["blk.0.attn_q.weight"] == type_name
    assert types["blk.0.ffn_down.weight"] == gguf_type_for(type_name, 256, 96)
    for name, linear in linears.items():
        assert torch.equal(container.decode(tmp_path / "out", name), linear.grid.decode(linear.codes)), name


def test_rows_no_block_divides_stay_in_sixteen_bits(tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "tiny", "llama", hidden_size=48, num_attention_heads=2, num_hidden_layers=1)
    container = GgufContainer("q4_0")
    assert not container.grid().supports(48, 48)
    assert container.grid().supports(48, 96)
    with pytest.raises(ValueError, match="cannot store"):
        container.grid().fit(torch.zeros(48, 48))
    model = load_original(source)
    linears = {name: linear for name, linear in quantize(model, 4, 32).items() if linear.codes.shape[1] % 32 == 0}
    container.write(source, linears, tmp_path / "out")
    unquantized = {weight.name: weight.type for weight in container.unquantized(source, set(linears))}
    assert unquantized["model.layers.0.self_attn.q_proj.weight"] == "F16"
    assert unquantized["model.embed_tokens.weight"] == "F16"
    (path,) = (tmp_path / "out").glob("*.gguf")
    types = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(path).tensors}
    assert types["blk.0.attn_q.weight"] == "F16"
    assert types["blk.0.attn_norm.weight"] == "F32"
    container.load(tmp_path / "out").log_probabilities(token_ids())


def test_metadata_and_tokenizer_are_those_of_the_source(tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "tiny", "llama")
    GgufContainer("q4_0", "Some-Model").write(source, quantize(load_original(source), 4, 32), tmp_path / "out")
    path = tmp_path / "out" / "Some-Model-Q4_0.gguf"
    fields = {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items()}
    assert fields["general.architecture"] == "llama"
    assert fields["general.name"] == "Some-Model"
    assert fields["general.file_type"] == gguf.LlamaFileType.MOSTLY_Q4_0
    assert fields["llama.attention.head_count_kv"] == 2
    assert fields["tokenizer.ggml.pre"] == "gpt-2"
    assert len(fields["tokenizer.ggml.tokens"]) == VOCABULARY
    assert fields["tokenizer.ggml.bos_token_id"] == 0
    assert fields["tokenizer.chat_template"].startswith("{% for message")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "out", gguf_file=path.name)
    ours = AutoTokenizer.from_pretrained(source)
    text = "the cat sat on a mat, 42 times"
    assert theirs(text).input_ids == ours(text).input_ids
    assert len(ours(text).input_ids) < len(text)


def test_equal_inputs_give_equal_bytes(tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "tiny", "qwen2")
    linears = quantize(load_original(source), 4, 32)
    first = GgufContainer("q4_0").write(source, linears, tmp_path / "a")
    second = GgufContainer("q4_0").write(source, linears, tmp_path / "b")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_llama3_rope_divisors_are_written(tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "tiny", "llama", rope_parameters=LLAMA3_ROPE)
    model = load_original(source)
    GgufContainer("q8_0").write(source, quantize(model, 8, 32), tmp_path / "out")
    (path,) = (tmp_path / "out").glob("*.gguf")
    (factors,) = [tensor for tensor in gguf.GGUFReader(path).tensors if tensor.name == "rope_freqs.weight"]
    plain = 1.0 / 10000.0 ** (torch.arange(0, 16, 2) / 16)
    scaled = plain / torch.from_numpy(factors.data.copy())
    assert torch.allclose(scaled, model.model.rotary_emb.inv_freq, rtol=1e-5)


def test_an_unknown_architecture_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "tiny", "opt", tokenizer=False, ffn_dim=96, word_embed_proj_dim=64)
    with pytest.raises(ExportError, match="does not know OPTForCausalLM"):
        GgufContainer("q4_0").write(source, {}, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny"]


def test_the_fused_rows_of_neox_are_sorted_by_part(tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "tiny", "gpt_neox")
    model = load_original(source)
    GgufContainer("q8_0").write(source, {}, tmp_path / "out")
    (path,) = (tmp_path / "out").glob("*.gguf")
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    fused = model.gpt_neox.layers[0].attention.query_key_value.weight.detach().reshape(4, 3, 16, 64)
    wanted = torch.cat([fused[:, part].reshape(64, 64) for part in range(3)])
    assert torch.equal(torch.from_numpy(tensors["blk.0.attn_qkv.weight"].data.copy()).float(), wanted)


def test_a_failed_write_keeps_the_earlier_folder(tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "tiny", "llama")
    linears = quantize(load_original(source), 4, 32)
    container = GgufContainer("q4_0")
    before = [path.read_bytes() for path in container.write(source, linears, tmp_path / "out")]
    name, linear = next(iter(linears.items()))
    broken = gguf_grid("q4_1").fit(torch.randn(linear.codes.shape))
    with pytest.raises(ExportError, match="no offset"):
        container.write(source, {**linears, name: QuantizedLinear(name, linear.codes, broken, "x")}, tmp_path / "out")
    assert [path.read_bytes() for path in sorted((tmp_path / "out").iterdir())] == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "tiny"]


def test_a_template_of_its_own_file_comes_before_the_one_in_the_settings(tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "tiny", "llama")
    template = "{{ messages[0]['content'] }}"
    (source / "chat_template.jinja").write_text(template, encoding="utf-8")
    assert AutoTokenizer.from_pretrained(source).chat_template == template
    GgufContainer("q4_0").write(source, quantize(load_original(source), 4, 32), tmp_path / "out")
    (path,) = (tmp_path / "out").glob("*.gguf")
    assert gguf.GGUFReader(path).fields["tokenizer.chat_template"].contents() == template


def test_further_chat_templates_go_into_the_file(tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "tiny", "llama")
    (source / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")
    (source / "additional_chat_templates").mkdir()
    (source / "additional_chat_templates" / "tool_use.jinja").write_text("{{ tools }}", encoding="utf-8")
    GgufContainer("q4_0").write(source, quantize(load_original(source), 4, 32), tmp_path / "out")
    (path,) = (tmp_path / "out").glob("*.gguf")
    fields = gguf.GGUFReader(path).fields
    assert fields["tokenizer.chat_template"].contents() == "{{ messages }}"
    assert fields["tokenizer.chat_template.tool_use"].contents() == "{{ tools }}"


def test_a_model_without_tokenizer_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = save_checkpoint(tmp_path / "tiny", "llama", tokenizer=False)
    with caplog.at_level(logging.WARNING):
        GgufContainer("q4_0").write(source, quantize(load_original(source), 4, 32), tmp_path / "out")
    assert "no vocabulary" in caplog.text


LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        ([{"type": "ByteLevel", "use_regex": True}], "gpt-2"),
        ([{"type": "Digits", "individual_digits": True}, {"type": "ByteLevel"}], "smollm"),
        (
            [{"type": "Split", "pattern": {"Regex": LLAMA3_SPLIT}}, {"type": "ByteLevel", "use_regex": False}],
            "llama-bpe",
        ),
        (
            [
                {"type": "Split", "pattern": {"Regex": LLAMA3_SPLIT.replace("{1,3}", "")}},
                {"type": "ByteLevel", "use_regex": False},
            ],
            "qwen2",
        ),
        ([{"type": "Split", "pattern": {"Regex": "x+"}}, {"type": "ByteLevel", "use_regex": False}], None),
    ],
)
def test_the_way_of_splitting_is_recognised(parts: list[dict[str, Any]], name: str | None) -> None:
    document = {"pre_tokenizer": {"type": "Sequence", "pretokenizers": parts}}
    assert detect_pre_tokenizer(document) == name


def sentencepiece_document(vocabulary: dict[str, int]) -> dict[str, Any]:
    """A tokenizer.json like those of SentencePiece models."""
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": number, "content": text, "special": text == "<s>", "normalized": False}
            | dict.fromkeys(("lstrip", "rstrip", "single_word"), False)
            for text, number in (("<s>", 1), ("<call>", len(vocabulary)))
        ],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": "\u2581"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
            ],
        },
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {
            "type": "BPE",
            "vocab": vocabulary,
            # The id of "th" is above that of "the": ids do not tell the order of merges.
            "merges": [["t", "h"], ["th", "e"], ["\u2581", "the"]],
            "unk_token": "<unk>",
            "byte_fallback": True,
            "fuse_unk": True,
        },
    }


BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
SENTENCEPIECE = ["<unk>", "<s>", *BYTES, "\u2581the", "the", "th", "t", "h", "e", "\u2581"]


def save_sentencepiece(directory: Path) -> None:
    vocabulary = {text: number for number, text in enumerate(SENTENCEPIECE)}
    (directory / "tokenizer.json").write_text(json.dumps(sentencepiece_document(vocabulary)), encoding="utf-8")
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "unk_token": "<unk>"}
    (directory / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")


def header_of(source: Path, output: Path) -> dict[str, Any]:
    GgufContainer("q4_0").write(source, quantize(load_original(source), 4, 32), output)
    (path,) = output.glob("*.gguf")
    return {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items()}


def test_a_sentencepiece_vocabulary_without_its_model_file_is_scored_by_the_order_of_merges(tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "tiny", "llama", tokenizer=False, num_hidden_layers=1)
    save_sentencepiece(source)
    header = header_of(source, tmp_path / "out")
    assert header["tokenizer.ggml.model"] == "llama"
    scores = dict(zip(header["tokenizer.ggml.tokens"], header["tokenizer.ggml.scores"], strict=True))
    assert scores["th"] > scores["the"] > scores["\u2581the"]
    kinds = dict(zip(header["tokenizer.ggml.tokens"], header["tokenizer.ggml.token_type"], strict=True))
    wanted = {"<unk>": 2, "<s>": 3, "<0x0A>": 6, "the": 1, "<call>": 4, "[PAD300]": 5}
    assert {text: kinds[text] for text in wanted} == wanted
    assert header["tokenizer.ggml.add_space_prefix"] is True
    assert header["tokenizer.ggml.add_bos_token"] is False
    assert len(scores) == VOCABULARY


def test_tokens_that_only_the_settings_name_are_in_the_file(tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "tiny", "llama", num_hidden_layers=1)
    config = json.loads((source / "tokenizer_config.json").read_text(encoding="utf-8"))
    added = {"content": "<|im_end|>", "special": True, "normalized": False, "lstrip": False, "rstrip": False}
    config |= {"eos_token": "<|im_end|>", "added_tokens_decoder": {"300": {**added, "single_word": False}}}
    (source / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    tokenizer = AutoTokenizer.from_pretrained(source)
    header = header_of(source, tmp_path / "out")
    number = tokenizer.eos_token_id
    assert header["tokenizer.ggml.tokens"][number] == "<|im_end|>"
    assert header["tokenizer.ggml.token_type"][number] == gguf.TokenType.CONTROL
    assert header["tokenizer.ggml.eos_token_id"] == number


def change_tokenizer(source: Path, change: dict[str, Any]) -> None:
    document = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    for key, value in change.items():
        document[key] = value(document) if callable(value) else value
    (source / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")


UNSAYABLE: dict[str, tuple[dict[str, Any], str]] = {
    "lowercase": ({"normalizer": {"type": "Lowercase"}}, r"normalizes text \(Lowercase\)"),
    "accents taken off": (
        {"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "StripAccents"}]}},
        r"normalizes text \(",
    ),
    "space first": (
        {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}},
        "add_prefix_space",
    ),
    "own way of splitting": (
        {
            "pre_tokenizer": {
                "type": "Sequence",
                "pretokenizers": [
                    {"type": "Split", "pattern": {"Regex": "x+"}, "behavior": "Isolated", "invert": False},
                    {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
                ],
            }
        },
        "no name for",
    ),
    "word level": (
        {
            "model": lambda document: {"type": "WordLevel", "vocab": document["model"]["vocab"], "unk_token": "<s>"},
            "pre_tokenizer": {"type": "WhitespaceSplit"},
        },
        "WordLevel",
    ),
    "whole words first": (
        {"model": lambda document: {**document["model"], "ignore_merges": True}},
        "ignore_merges",
    ),
    "no json": ({"model": {"type": "BPE", "vocab": {"a": "b"}, "merges": []}}, "cannot be loaded"),
}


@pytest.mark.parametrize("label", UNSAYABLE)
def test_a_tokenizer_that_gguf_cannot_say_is_refused_before_anything_is_rounded(label: str, tmp_path: Path) -> None:
    change, message = UNSAYABLE[label]
    source = save_checkpoint(tmp_path / "tiny", "llama", num_hidden_layers=1)
    change_tokenizer(source, change)
    with pytest.raises(ExportError, match=message):
        GgufContainer("q4_0").unquantized(source, set())


@pytest.mark.parametrize("data", [b"\x0a", b"\x0a\x7f", b"\xff" * 12, b"\x0b"])
def test_a_malformed_sentencepiece_model_is_refused(data: bytes, tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "tiny", "llama", tokenizer=False, num_hidden_layers=1)
    save_sentencepiece(source)
    (source / "tokenizer.model").write_bytes(data)
    with pytest.raises(ExportError, match=r"tokenizer\.model is not"):
        GgufContainer("q4_0").unquantized(source, set())


def test_tokens_beyond_the_embedding_are_refused(tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "tiny", "llama", num_hidden_layers=1, vocab_size=100)
    with pytest.raises(ExportError, match="beyond the rows of the embedding"):
        GgufContainer("q4_0").unquantized(source, set())


def test_large_models_are_split_as_llama_cpp_splits_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = save_checkpoint(tmp_path / "tiny", "llama")
    model = load_original(source)
    linears = quantize(model, 4, 32)
    monkeypatch.setattr(gguf_module, "SPLIT_BYTES", 40_000)
    container = GgufContainer("q4_0", "Tiny")
    files = container.write(source, linears, tmp_path / "out")
    parts = sorted(path.name for path in files if path.suffix == ".gguf")
    assert len(parts) > 1
    assert parts == [f"Tiny-Q4_0-{number:05d}-of-{len(parts):05d}.gguf" for number in range(1, len(parts) + 1)]
    for number, part in enumerate(parts):
        fields = gguf.GGUFReader(tmp_path / "out" / part).fields
        assert fields["split.no"].contents() == number
        assert fields["split.count"].contents() == len(parts)
    name, linear = next(iter(linears.items()))
    assert torch.equal(container.decode(tmp_path / "out", name), linear.grid.decode(linear.codes))
    whole = GgufContainer("q4_0", "Tiny")
    monkeypatch.undo()
    whole.write(source, linears, tmp_path / "whole")
    one, other = (whole.load(tmp_path / folder).log_probabilities(token_ids()) for folder in ("out", "whole"))
    assert torch.equal(one, other)


@pytest.mark.parametrize("split_bytes", [12_000, 25_000, 40_000, 60_000])
def test_what_the_parts_of_a_split_file_add_is_counted_at_its_most(
    split_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = save_checkpoint(tmp_path / "tiny", "llama")
    linears = quantize(load_original(source), 4, 32)
    monkeypatch.setattr(gguf_module, "SPLIT_BYTES", split_bytes)
    files = GgufContainer("q4_0").write(source, linears, tmp_path / "out")
    parts = sum(path.suffix == ".gguf" for path in files)
    taken = sum(path.stat().st_size for path in files)
    planned = planned_bytes(GgufContainer("q4_0"), source, linears, taken)
    assert parts > 1
    assert taken <= planned <= taken + (2 * taken // split_bytes + 2) * gguf_module._PART_BYTES
