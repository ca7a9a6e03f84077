"""llama.cpp's name for the way that a tokenizer splits text before it merges.

llama.cpp's converter knows published tokenizers by a hash of what they give for one text; a tokenizer that was trained
anew splits the same way and hashes otherwise. It is known here by the patterns themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
_MARKED = _WORDS.replace(r"\p{L}+|\p{N}", r"[\p{L}\p{M}]+|\p{N}") + _TAIL.replace(r"\p{L}\p{N}", r"\p{L}\p{M}\p{N}")
_CASED = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+%s"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*%s"
    r"|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
PRE_TOKENIZERS: dict[tuple[str, ...], str] = {
    (_GPT2,): "gpt-2",
    ("\\p{N}", _GPT2): "smollm",
    (_WORDS + "{1,3}" + _TAIL,): "llama-bpe",
    (_WORDS + _TAIL,): "qwen2",
    (_MARKED,): "qwen35",
    (_CASED % ("", "", ""),): "tekken",
    (_CASED % (_CONTRACTIONS, _CONTRACTIONS, "{1,3}"),): "gpt-4o",
}
# llama.cpp looks a word up whole before it merges in these, and in these alone.
WHOLE_WORDS_FIRST = ("llama-bpe", "tekken")


def tokenizer_parts(node: object) -> Iterator[dict[str, Any]]:
    """The parts of a ``Sequence`` of tokenizer.json, or the one part that ``node`` is."""
    if not isinstance(node, dict):
        return
    if node.get("type") == "Sequence":
        for key in ("pretokenizers", "decoders", "normalizers", "processors"):
            for part in node.get(key) or []:
                yield from tokenizer_parts(part)
        return
    yield node


def detect_pre_tokenizer(document: dict[str, Any]) -> str | None:
    """llama.cpp's name of the way ``tokenizer.json`` splits text; ``None`` where it has no such way."""
    patterns: list[str] = []
    for part in tokenizer_parts(document.get("pre_tokenizer")):
        kind = part.get("type")
        if kind == "Split":
            pattern = part.get("pattern")
            text = pattern.get("Regex", pattern.get("String")) if isinstance(pattern, dict) else None
            patterns.append(str(text))
        elif kind == "Digits":
            patterns.append("\\p{N}" if part.get("individual_digits") else "\\p{N}+")
        elif kind == "ByteLevel":
            if part.get("use_regex", True):
                patterns.append(_GPT2)
        else:
            patterns.append(f"<{kind}>")
    return PRE_TOKENIZERS.get(tuple(patterns))
