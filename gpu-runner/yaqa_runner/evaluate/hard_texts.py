"""Texts that tokenizers get wrong, with the ids that the original's tokenizer gives."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from yaqa_runner.evaluate.chat_process import render_apart

logger = logging.getLogger(__name__)

# Which kinds are of small consequence where an engine cuts them otherwise: HARMLESS_KINDS of
# src/verify/llama-cpp-checks.ts.
HARD_TEXTS: tuple[tuple[str, str], ...] = (
    ("prose", "The quick brown fox doesn't jump; it's we'll I'm DON'T YOU'RE."),
    ("leading-space", " a leading space, then words."),
    ("accents", "Zürich, naïve café, déjà vu — Ångström, ¿Qué? Straße"),
    ("decomposed", "cafe\u0301 A\u030angstro\u0308m n\u0303"),
    ("scripts", "Привет, мир! Γειά σου Κόσμε. שלום עולם مرحبا بالعالم नमस्ते दुनिया สวัสดี"),
    ("cjk", "日本語のテキスト、你好，世界！한국어 텍스트。漢字かな交じり文"),
    ("emoji", "🙂 done 👩‍👩‍👧 🇨🇭 👍🏽 ✨✨"),
    ("digits", "1 12 123 1234 12345 1234567890 3.14159 1,000,000 0x1F 2026-11-28"),
    ("code", "def f(x):\n    return {'a': x[0] >> 2, \"b\": x != y}  # comment\n\tif (a&&b||!c) { ++i; }"),
    ("code", '<div class="x">&amp;</div> $PATH ~/.bashrc C:\\Users\\me https://example.org/?q=1&r=%20'),
    ("spaces", "a  b   c    d     e        f"),
    ("spaces", "trailing spaces   "),
    ("lines", "one\ntwo\n\nthree\r\nfour\n\n\n\tfive\t\tsix"),
    ("capitals", "HTTPServer iPhone XMLHttpRequest ÉCOLE İstanbul"),
    ("symbols", "≤ ≥ ± × ÷ € £ ¥ © ® ™ … “quoted” ‘single’ «guillemets»"),
)
OPENING_TEXT = "Hello world"
MAXIMUM_SPECIAL_TOKENS = 64
MAXIMUM_TEXT_CHARACTERS = 8192


@dataclass(frozen=True)
class TokenizedText:
    """A text and the ids that the original's tokenizer gives, without what it puts around a whole prompt."""

    kind: str
    text: str
    ids: list[int]


@dataclass(frozen=True)
class TokenizerRecord:
    """What a tokenizer of a finished file is compared with.

    Attributes:
        texts: Hard texts and their ids.
        opening: :data:`OPENING_TEXT` as the tokenizer begins and ends a prompt with it.
        end: The id that ends a text, or ``None``.
    """

    texts: list[TokenizedText]
    opening: list[int]
    end: int | None


def tokenizer_record(tokenizer: Any) -> TokenizerRecord:
    """The battery through ``tokenizer``, a tokenizer of transformers."""
    texts = [*HARD_TEXTS, *_special_texts(tokenizer)]
    end = tokenizer.eos_token_id
    return TokenizerRecord(
        texts=[TokenizedText(kind, text, _ids(tokenizer, text, False)) for kind, text in texts],
        opening=_ids(tokenizer, OPENING_TEXT, True),
        end=int(end) if isinstance(end, int) else None,
    )


def _ids(tokenizer: Any, text: str, around: bool) -> list[int]:
    return [int(token) for token in tokenizer(text, add_special_tokens=around)["input_ids"]]


def _special_texts(tokenizer: Any) -> list[tuple[str, str]]:
    added = sorted(tokenizer.added_tokens_decoder.items())
    contents = [str(token.content) for _, token in added if 0 < len(str(token.content)) <= 100]
    shown = contents[:MAXIMUM_SPECIAL_TOKENS]
    texts = [("special", content) for content in shown]
    if shown:
        texts.append(("special", "".join(f"{content}word" for content in shown[:16])))
        texts.append(("spaced-special", " ".join(f"{content} word" for content in shown[:16])))
    chat = _chat(tokenizer)
    return texts if chat is None else [*texts, ("chat", chat)]


def _chat(tokenizer: Any) -> str | None:
    if not getattr(tokenizer, "chat_template", None):
        return None
    messages = [
        {"role": "user", "content": "What is 2 + 2? Réponds 中文."},
        {"role": "assistant", "content": "4."},
        {"role": "user", "content": "Thanks!"},
    ]
    try:
        template = tokenizer.get_chat_template()
    # Of several templates none may be the usual one: no reason to refuse the model.
    except Exception as error:
        logger.info("there is no usual chat template: %s", error)
        return None
    return render_apart(template, messages, dict(tokenizer.special_tokens_map), MAXIMUM_TEXT_CHARACTERS)
