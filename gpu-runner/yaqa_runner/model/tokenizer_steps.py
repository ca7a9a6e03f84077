"""Steps of a ``tokenizer.json`` that would exhaust whoever carries them out, found before anybody does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from yaqa_runner.model.snapshot import read_json
from yaqa_runner.protocol.failures import SourceRefused

#: Steps of one kind; the longest list of a known model has about thirty.
MAXIMUM_STEPS = 1000
#: How often longer all replacements together may make a text. Those of known models keep its length or double it.
MAXIMUM_GROWTH = 1024.0
#: Characters of one added token; the longest of known models have a few dozen.
MAXIMUM_TOKEN_CHARACTERS = 10_000
#: Tokens that a model has no row for: some tokenizers are of a larger relative.
SPARE_TOKENS = 100_000
#: Lists in lists; ``tokenizers`` itself gives up earlier.
MAXIMUM_DEPTH = 50

_KINDS = {"normalizer": "normalizers", "pre_tokenizer": "pretokenizers", "decoder": "decoders"}
_REMEDY = "Push a tokenizer.json with the steps of the model's own tokenizer."


def refuse_exhausting_steps(path: Path, rows: int | None) -> None:
    """Look at the ``tokenizer.json`` at ``path``; nothing of it is carried out.

    Args:
        path: The file.
        rows: Tokens that the model has embeddings for, where its configuration says.

    Raises:
        SourceRefused: it has too many steps, they multiply a text's length, a token is absurdly long, or there are
            far more tokens than the model knows.
    """
    document = read_json(path)
    model = document.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    tokens = len(vocabulary) if isinstance(vocabulary, dict | list) else 0
    if rows is not None and tokens > 2 * rows + SPARE_TOKENS:
        raise SourceRefused(f"The tokenizer has {tokens} tokens; the model has embeddings for {rows}.", _REMEDY)
    for kind, inner in _KINDS.items():
        growth = 1.0
        for count, step in enumerate(_steps(document.get(kind), inner), start=1):
            if count > MAXIMUM_STEPS:
                raise SourceRefused(f"The tokenizer's {kind} has more than {MAXIMUM_STEPS} steps.", _REMEDY)
            growth *= _growth(step)
            if growth > MAXIMUM_GROWTH:
                raise SourceRefused(
                    f"The replacements in the tokenizer's {kind} make a text more than "
                    f"{MAXIMUM_GROWTH:.0f} times as long.",
                    _REMEDY,
                )
    added = document.get("added_tokens")
    for token in added if isinstance(added, list) else []:
        content = token.get("content") if isinstance(token, dict) else None
        if isinstance(content, str) and len(content) > MAXIMUM_TOKEN_CHARACTERS:
            raise SourceRefused(
                f"The tokenizer has a token of {len(content)} characters; {MAXIMUM_TOKEN_CHARACTERS} are allowed.",
                _REMEDY,
            )


def _steps(step: Any, inner: str, depth: int = 0) -> Iterator[dict[str, Any]]:
    if not isinstance(step, dict):
        return
    if depth > MAXIMUM_DEPTH:
        raise SourceRefused(f"The tokenizer's steps lie more than {MAXIMUM_DEPTH} deep in each other.", _REMEDY)
    listed = step.get(inner)
    if isinstance(listed, list):
        for one in listed:
            yield from _steps(one, inner, depth + 1)
    else:
        yield step


def _growth(step: dict[str, Any]) -> float:
    """How many characters one step makes of one, at most."""
    if step.get("type") != "Replace":
        return 1.0
    content, pattern = step.get("content"), step.get("pattern")
    text = pattern.get("String") if isinstance(pattern, dict) else None
    written = len(content) if isinstance(content, str) else 0
    return max(1.0, written / max(1, len(text) if isinstance(text, str) else 1))
