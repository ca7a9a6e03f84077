"""Makes tiny models of kinds that public bug reports describe, each with what the original computes.

``python make_cases.py OUTPUT [NAME…]`` writes ``OUTPUT/NAME/model`` and ``OUTPUT/NAME/reference.safetensors``, the
latter in the form of the runner's ``verification.safetensors``, taken by transformers alone.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tiny_models import byte_level_bpe, random_model, save_tokenizer, training_lines
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, Gemma3Config, Gemma3ForConditionalGeneration
from yaqa_runner.evaluate.hard_texts import tokenizer_record
from yaqa_runner.evaluate.verification import Verification, write_verification

LLAMA_3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
REFERENCE_SEQUENCES = 3
REFERENCE_LENGTH = 48


def activation(folder: Path) -> None:
    """A llama whose gate is ReLU, as checkpoints that were trained for sparsity have."""
    save_tokenizer(byte_level_bpe(), folder)
    random_model("llama", hidden_act="relu").save_pretrained(folder)


def own_head(folder: Path) -> None:
    """config.json says tied; the checkpoint holds an output layer of its own, as merged adapters do."""
    save_tokenizer(byte_level_bpe(), folder)
    random_model("llama", tie_word_embeddings=False).save_pretrained(folder)
    _edit_json(folder / "config.json", tie_word_embeddings=True)


def stale_index(folder: Path) -> None:
    """A new model.safetensors; the index and the shards of an older training lie beside it."""
    save_tokenizer(byte_level_bpe(), folder)
    random_model("llama").save_pretrained(folder)
    state = {name: value.contiguous().clone() for name, value in random_model("llama", seed=7).state_dict().items()}
    names = sorted(state)
    parts = {f"model-0000{n + 1}-of-00002.safetensors": names[n::2] for n in range(2)}
    for file, members in parts.items():
        save_file({name: state[name] for name in members}, folder / file, metadata={"format": "pt"})
    _write_index(folder, {name: file for file, members in parts.items() for name in members})


def index_of_absent_shards(folder: Path) -> None:
    """One model.safetensors beside the index of the repo that it was made from."""
    save_tokenizer(byte_level_bpe(), folder)
    model = random_model("llama")
    model.save_pretrained(folder)
    _write_index(
        folder, {name: f"model-0000{1 + n % 2}-of-00002.safetensors" for n, name in enumerate(model.state_dict())}
    )


def vocabulary_and_merges(folder: Path) -> None:
    """The older form of GPT-2's tokenizer: vocab.json and merges.txt alone."""
    byte_level_bpe(special=("<|endoftext|>",)).model.save(str(folder))
    words = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>")
    _write_json(
        folder / "tokenizer_config.json", {"tokenizer_class": "GPT2Tokenizer", "model_max_length": 256, **words}
    )
    random_model("gpt2", bos_token_id=0, eos_token_id=0).save_pretrained(folder)


def unknown_split(folder: Path) -> None:
    """Digits, then CJK, then a pattern like cl100k's: the way several code models split text."""
    latin = r"[!-/:-~]?[A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    splits = (r"\p{N}{1,3}", r"[一-龥぀-ゟ゠-ヿ]+", latin)
    save_tokenizer(byte_level_bpe(900, split=splits), folder)
    random_model("llama", vocab_size=900).save_pretrained(folder)


def added_tokens_in_config(folder: Path) -> None:
    """Chat tokens that tokenizer_config.json alone names."""
    save_tokenizer(byte_level_bpe(508), folder)
    flags = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False, "special": True}
    path = folder / "tokenizer_config.json"
    known = json.loads(path.read_text()).get("added_tokens_decoder", {})
    added = {str(508 + n): {"content": text, **flags} for n, text in enumerate(("<|im_start|>", "<|im_end|>"))}
    _edit_json(
        path, added_tokens_decoder={**known, **added}, eos_token="<|im_end|>", tokenizer_class="PreTrainedTokenizerFast"
    )
    random_model("llama", eos_token_id=509).save_pretrained(folder)


def attention_bias(folder: Path) -> None:
    """A Qwen3 with biases on its attention."""
    save_tokenizer(byte_level_bpe(), folder)
    random_model("qwen3", head_dim=32, attention_bias=True).save_pretrained(folder)


def sliding_window(folder: Path) -> None:
    """A Mistral whose window is shorter than the text."""
    save_tokenizer(byte_level_bpe(), folder)
    random_model("mistral", sliding_window=8).save_pretrained(folder)


def yarn_factors(folder: Path) -> None:
    """YaRN with the values that most leave out."""
    save_tokenizer(byte_level_bpe(), folder)
    rope = {
        "rope_type": "yarn",
        "rope_theta": 10000.0,
        "factor": 8.0,
        "original_max_position_embeddings": 32,
        "attention_factor": 0.6,
        "beta_fast": 4.0,
        "beta_slow": 0.5,
    }
    random_model("llama", head_dim=32, rope_parameters=rope).save_pretrained(folder)


def dropped_scales(folder: Path) -> nn.Module:
    """Linears in float8 with their scales beside them; config.json does not say so."""
    save_tokenizer(byte_level_bpe(), folder)
    model = random_model("llama", hidden_size=128, intermediate_size=256, head_dim=32)
    model.save_pretrained(folder)
    stored: dict[str, torch.Tensor] = {}
    for name, value in load_file(folder / "model.safetensors").items():
        if name.endswith("proj.weight"):
            scale = value.abs().max() / 448
            stored[name] = (value / scale).to(torch.float8_e4m3fn)
            stored[f"{name}_scale_inv"] = scale.reshape(1, 1)
        else:
            stored[name] = value
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    return model


def vision_tower(folder: Path) -> nn.Module:
    """A Gemma 3 with its vision tower, as fine-tunes on images are pushed."""
    save_tokenizer(byte_level_bpe(), folder)
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2}
    heads = {"num_key_value_heads": 1, "head_dim": 32, "query_pre_attn_scalar": 32}
    text = {**shape, **heads, "vocab_size": 512, "sliding_window": 64, "max_position_embeddings": 256}
    vision = {**shape, "image_size": 32, "patch_size": 8}
    ids = {"image_token_index": 500, "boi_token_index": 501, "eoi_token_index": 502}
    config = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4, **ids)
    model = Gemma3ForConditionalGeneration(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.mul_(4)
    model.save_pretrained(folder)
    return model


def lowercase(folder: Path) -> None:
    """A tokenizer that lowers case and strips accents before it splits."""
    normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()])
    save_tokenizer(byte_level_bpe(normalizer=normalizer), folder)
    random_model("llama").save_pretrained(folder)


def word_level(folder: Path) -> None:
    """Whole words between spaces, as small research models have."""
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["<s>", "</s>", "<unk>"]
    trainer = trainers.WordLevelTrainer(vocab_size=512, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(training_lines(), trainer)
    save_tokenizer(tokenizer, folder)
    random_model("llama").save_pretrained(folder)


def merge_order(folder: Path) -> None:
    """SentencePiece's pieces with ids that do not follow the order of merges, as merged vocabularies have."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = ["<unk>", "<s>", "</s>", *[f"<0x{byte:02X}>" for byte in range(256)]]
    trainer = trainers.BpeTrainer(
        vocab_size=900, limit_alphabet=80, max_token_length=12, special_tokens=special, show_progress=False
    )
    tokenizer.train_from_iterator(training_lines(), trainer)
    document = json.loads(tokenizer.to_str())
    vocabulary: dict[str, int] = document["model"]["vocab"]
    fixed = {token: number for token, number in vocabulary.items() if number < len(special)}
    rest = sorted((token for token in vocabulary if token not in fixed), key=vocabulary.__getitem__)
    random.Random(0).shuffle(rest)
    document["model"]["vocab"] = {**fixed, **{token: len(special) + n for n, token in enumerate(rest)}}
    document["added_tokens"] = [token for token in document["added_tokens"] if not token["content"].startswith("<0x")]
    save_tokenizer(Tokenizer.from_str(json.dumps(document)), folder)
    size = len(document["model"]["vocab"])
    random_model("llama", vocab_size=size, bos_token_id=1, eos_token_id=2).save_pretrained(folder)


def underflowing_scales(folder: Path) -> None:
    """Weights so small that scales in half precision are no normal numbers."""
    save_tokenizer(byte_level_bpe(), folder)
    model = random_model("llama")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "up_proj" in name:
                parameter.mul_(1e-7)
            elif "down_proj" in name:
                parameter.mul_(1e7)
    model.to(torch.bfloat16).save_pretrained(folder)


def tokenizer_model_only(folder: Path) -> None:
    """A llama with SentencePiece's tokenizer.model alone, as early ones were pushed."""
    import sentencepiece

    corpus = folder / "corpus.txt"
    corpus.write_text("\n".join(training_lines()), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=900,
        model_type="bpe",
        byte_fallback=True,
        character_coverage=0.99,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        minloglevel=2,
        num_threads=1,
    )
    corpus.unlink()
    (folder / "tokenizer.vocab").unlink()
    words = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "model_max_length": 256}
    adds = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "add_eos_token": False, "legacy": True}
    _write_json(folder / "tokenizer_config.json", {**words, **adds})
    random_model("llama", vocab_size=900, bos_token_id=1, eos_token_id=2).save_pretrained(folder)


def fused_experts(folder: Path) -> None:
    """A Qwen3 mixture whose experts are stored as one tensor of three dimensions."""
    save_tokenizer(byte_level_bpe(), folder)
    sizes = {"moe_intermediate_size": 64, "num_experts": 4, "num_experts_per_tok": 2, "decoder_sparse_step": 1}
    model = random_model("qwen3_moe", head_dim=32, **sizes)
    model.config.architectures = ["Qwen3MoeForCausalLM"]
    model.config.save_pretrained(folder)
    state = {name: value.contiguous().clone() for name, value in model.state_dict().items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def adapter(folder: Path) -> nn.Module:
    """An adapter with the config and the tokenizer of its base, and no whole weights."""
    save_tokenizer(byte_level_bpe(), folder)
    model = random_model("llama")
    model.save_pretrained(folder)
    (folder / "model.safetensors").unlink()
    settings = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}
    _write_json(folder / "adapter_config.json", {**settings, "base_model_name_or_path": "acme/base"})
    place = "base_model.model.model.layers.0.self_attn.q_proj"
    pair = {f"{place}.lora_A.weight": torch.randn(4, 64), f"{place}.lora_B.weight": torch.zeros(64, 4)}
    save_file(pair, folder / "adapter_model.safetensors")
    return model


def no_opening_token(folder: Path) -> None:
    """Llama 3's split in a tokenizer that puts nothing before texts and does not say so."""
    save_tokenizer(byte_level_bpe(600, split=(LLAMA_3_SPLIT,)), folder)
    random_model("llama", vocab_size=600).save_pretrained(folder)


CASES: dict[str, Callable[[Path], nn.Module | None]] = {
    "activation": activation,
    "own-head": own_head,
    "stale-index": stale_index,
    "vocabulary-and-merges": vocabulary_and_merges,
    "unknown-split": unknown_split,
    "added-tokens-in-config": added_tokens_in_config,
    "attention-bias": attention_bias,
    "sliding-window": sliding_window,
    "yarn-factors": yarn_factors,
    "dropped-scales": dropped_scales,
    "vision-tower": vision_tower,
    "lowercase": lowercase,
    "word-level": word_level,
    "merge-order": merge_order,
    "underflowing-scales": underflowing_scales,
    "tokenizer-model-only": tokenizer_model_only,
    "fused-experts": fused_experts,
    "adapter": adapter,
    "no-opening-token": no_opening_token,
    "index-of-absent-shards": index_of_absent_shards,
}


@torch.inference_mode()
def reference_of(folder: Path, model: nn.Module | None) -> Verification:
    """What transformers computes of the folder, on random ids and hard texts; of ``model`` where it is given."""
    loaded: Any = model
    if loaded is None:
        loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    vocabulary = loaded.get_input_embeddings().weight.shape[0]
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, min(vocabulary, 500), (REFERENCE_SEQUENCES, REFERENCE_LENGTH), generator=generator)
    logits = loaded.eval()(input_ids=ids, use_cache=False).logits
    positions = torch.arange(REFERENCE_LENGTH).expand(REFERENCE_SEQUENCES, -1).contiguous()
    return Verification(
        ids, positions, logits.float().log_softmax(-1).contiguous(), tokenizer=tokenizer_record(tokenizer)
    )


def _write_index(folder: Path, weight_map: dict[str, str]) -> None:
    _write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": 1}, "weight_map": weight_map})


def _write_json(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _edit_json(path: Path, **changes: Any) -> None:
    _write_json(path, {**json.loads(path.read_text(encoding="utf-8")), **changes})


def main() -> None:
    output = Path(sys.argv[1])
    for name in sys.argv[2:] or CASES:
        folder = output / name / "model"
        folder.mkdir(parents=True)
        try:
            model = CASES[name](folder)
        except ModuleNotFoundError as error:
            (output / name / "missing.txt").write_text(str(error.name), encoding="utf-8")
            continue
        write_verification(reference_of(folder, model), output / name / "reference.safetensors")


if __name__ == "__main__":
    main()
