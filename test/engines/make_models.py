"""Tiny random models of architectures that people run: ``python make_models.py OUTPUT NAME…``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tiny_models import byte_level_bpe, random_model, save_tokenizer
from tokenizers import normalizers

# transformers gives every Qwen 2 this way of splitting, whatever tokenizer.json says.
QWEN_2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
HEADS: dict[str, Any] = {"head_dim": 32}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    # vLLM's attention on processors takes heads of 32 and more.
    "llama": HEADS,
    "qwen2": {"vocab_size": 520},
    "qwen3": HEADS,
    "mistral": {"sliding_window": None},
    "gemma": HEADS,
    "gemma2": {**HEADS, "query_pre_attn_scalar": 32, "sliding_window": 32},
    "gemma3_text": {**HEADS, "query_pre_attn_scalar": 32, "sliding_window": 32},
    # Its heads have the width over their number: 32 for vLLM.
    "phi3": {"num_attention_heads": 2, "num_key_value_heads": 1},
    "olmo2": {},
    # With the embedding as its output layer, the random model says little but the token that it was given.
    "starcoder2": {"sliding_window": None, "tie_word_embeddings": False},
    "gpt2": {},
    "gpt_neox": {},
}


def main() -> None:
    output = Path(sys.argv[1])
    for name in sys.argv[2:]:
        folder = output / name
        folder.mkdir(parents=True)
        is_qwen_2 = name == "qwen2"
        # llama.cpp looks that token up in every vocabulary of a Phi-3, and does not load one without it; transformers
        # adds it to every Qwen 2, and brings characters to their composed form, whatever tokenizer.json says.
        further = ("<|endoftext|>",) if name in ("phi3", "qwen2") else ()
        tokenizer = byte_level_bpe(
            special=("<s>", "</s>", "<unk>", *further),
            split=(QWEN_2_SPLIT,) if is_qwen_2 else (),
            normalizer=normalizers.NFC() if is_qwen_2 else None,
        )
        save_tokenizer(tokenizer, folder)
        random_model(name, **ARCHITECTURES[name]).save_pretrained(folder)


if __name__ == "__main__":
    main()
