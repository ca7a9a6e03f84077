"""Tiny random models and tokenizers that are trained on a few lines, by the public libraries alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

TEXT = Path(__file__).parents[2] / "demo/text/calibration-prose.txt"
BESIDES = (
    "Zürich naïve café déjà vu — 123 456 7890",
    "日本語 テキスト 你好，世界",
    "🙂 emoji 👩‍👩‍👧 done",
    "tabs\tand\n\nnewlines   spaces",
    "it's we'll I'm DON'T",
    "x = 12345 + 0.678",
)
SHAPE: dict[str, Any] = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": None,
}
GPT2_SHAPE: dict[str, Any] = {
    "vocab_size": 512,
    "n_embd": 64,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 256,
    "bos_token_id": 0,
    "eos_token_id": 1,
}


def training_lines() -> list[str]:
    """English prose, and lines of what it lacks."""
    return TEXT.read_text(encoding="utf-8")[:60_000].splitlines() + list(BESIDES) * 3


def byte_level_bpe(
    size: int = 512,
    special: tuple[str, ...] = ("<s>", "</s>", "<unk>"),
    split: tuple[str, ...] = (),
    normalizer: normalizers.Normalizer | None = None,
) -> Tokenizer:
    """Bytes and merges; ``split``: patterns whose matches are isolated in turn, instead of GPT-2's."""
    tokenizer = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not split)
    patterns = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in split]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*patterns, byte_level]) if split else byte_level
    tokenizer.decoder = decoders.ByteLevel()
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(training_lines(), trainer)
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """As the Hub keeps it."""
    words = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **words).save_pretrained(folder)


def random_model(kind: str, seed: int = 0, **settings: Any) -> PreTrainedModel:
    """A float32 model whose attention matters: as they are initialized, all positions look alike."""
    torch.manual_seed(seed)
    config = AutoConfig.for_model(kind, **{**(GPT2_SHAPE if kind == "gpt2" else SHAPE), **settings})
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config).to(torch.float32).eval()
    gemma = kind.startswith("gemma")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                # Norms and biases start as ones and zeros, which would hide a mix-up.
                parameter.add_(torch.randn_like(parameter) * 0.05)
            elif "embed" in name and "embed_out" not in name:
                # Gemma multiplies its embedding by the root of the width.
                parameter.mul_(3 if gemma else 20)
            else:
                parameter.mul_((12 if gemma else 4) * (4 if "lm_head" in name or "embed_out" in name else 1))
    return model
