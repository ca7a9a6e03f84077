"""Tiny random models of architectures that people run: ``python make_models.py OUTPUT NAME…``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tiny_models import byte_level_bpe, random_model, save_tokenizer

# transformers gives every Qwen 2 this way of splitting, whatever tokenizer.json says.
QWEN_2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
HEADS: dict[str, Any] = {"head_dim": 32}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    # vLLM's attention on processors takes heads of 32 and more.
    "llama": HEADS,
    # Its tokenizer adds a token of its own.
    "qwen2": {"vocab_size": 520},
    "qwen3": HEADS,
    "mistral": {"sliding_window": None},
    "gemma": HEADS,
    "gemma2": {**HEADS, "query_pre_attn_scalar": 32, "sliding_window": 32},
    "gemma3_text": {**HEADS, "query_pre_attn_scalar": 32, "sliding_window": 32},
    "phi3": {},
    "olmo2": {},
    "starcoder2": {"sliding_window": None},
    "gpt2": {},
    "gpt_neox": {},
}


def main() -> None:
    output = Path(sys.argv[1])
    for name in sys.argv[2:]:
        folder = output / name
        folder.mkdir(parents=True)
        split = (QWEN_2_SPLIT,) if name == "qwen2" else ()
        # llama.cpp looks that token up in every vocabulary of a Phi-3, and does not load one without it.
        further = ("<|endoftext|>",) if name == "phi3" else ()
        save_tokenizer(byte_level_bpe(special=("<s>", "</s>", "<unk>", *further), split=split), folder)
        random_model(name, **ARCHITECTURES[name]).save_pretrained(folder)


if __name__ == "__main__":
    main()
