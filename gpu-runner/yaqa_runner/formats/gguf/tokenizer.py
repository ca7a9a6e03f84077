"""The tokenizer of a snapshot as GGUF keys. Read as data: no tokenizer code of the model runs."""

from __future__ import annotations

import json
import logging
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf

from yaqa_runner.formats.source import MAXIMUM_JSON_BYTES, ExportError

log = logging.getLogger(__name__)

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
_CASED = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+%s"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*%s"
    r"|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
# The split patterns of tokenizer.json and llama.cpp's name for the same splitting.
PRE_TOKENIZERS: dict[tuple[str, ...], str] = {
    (_GPT2,): "gpt-2",
    ("\\p{N}", _GPT2): "smollm",
    (_WORDS + "{1,3}" + _TAIL,): "llama-bpe",
    (_WORDS + _TAIL,): "qwen2",
    (_CASED % ("", "", ""),): "tekken",
    (_CASED % (_CONTRACTIONS, _CONTRACTIONS, "{1,3}"),): "gpt-4o",
}


@dataclass(frozen=True)
class Vocabulary:
    """What ``tokenizer.ggml.*`` says about the tokens, by id."""

    model: str
    pre: str | None
    tokens: list[str]
    types: list[int]
    scores: list[float] | None
    space_prefix: bool | None = None


def add_tokenizer(writer: gguf.GGUFWriter, directory: Path, vocabulary_size: int) -> None:
    """Write the tokenizer keys of the snapshot ``directory``: tokens, merges, special ids, chat template.

    ``vocabulary_size`` is the embedding's row count; ids without a token become ``[PADn]``. A snapshot without
    ``tokenizer.json`` gets llama.cpp's ``no_vocab`` and a warning in the log.
    """
    vocabulary = read_vocabulary(directory, vocabulary_size)
    if vocabulary is None:
        log.warning("%s has no tokenizer.json: the GGUF file carries no vocabulary", directory.name)
        writer.add_tokenizer_model("no_vocab")
        return
    writer.add_tokenizer_model(vocabulary.model)
    if vocabulary.pre is not None:
        writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    if vocabulary.scores is not None:
        writer.add_token_scores(vocabulary.scores)
    writer.add_token_types(vocabulary.types)
    if vocabulary.space_prefix is not None:
        writer.add_add_space_prefix(vocabulary.space_prefix)
    special = gguf.SpecialVocab(directory, load_merges=vocabulary.model == "gpt2", n_vocab=vocabulary_size)
    template = directory / "chat_template.jinja"
    if template.is_file():
        # transformers takes the file before the field of tokenizer_config.json; the gguf package the other way round.
        special.chat_template = _chat_templates(template)
    special.add_to_gguf(writer, quiet=True)


def _chat_templates(default: Path) -> str | list[dict[str, str]]:
    """The template of ``chat_template.jinja``, with those of ``additional_chat_templates`` where there are any."""
    text = default.read_text(encoding="utf-8")
    further = sorted((default.parent / "additional_chat_templates").glob("*.jinja"))
    if not further:
        return text
    named = [{"name": path.stem, "template": path.read_text(encoding="utf-8")} for path in further]
    return [{"name": "default", "template": text}, *named]


def read_vocabulary(directory: Path, vocabulary_size: int) -> Vocabulary | None:
    """The vocabulary of ``tokenizer.json`` padded to ``vocabulary_size``; ``None`` without that file.

    Raises:
        ExportError: The file is malformed, or its algorithm has no GGUF form here.
    """
    path = directory / "tokenizer.json"
    if not path.is_file():
        return None
    document = _load_json(path)
    model = document.get("model")
    if not isinstance(model, dict) or not isinstance(model.get("vocab"), dict):
        raise ExportError("tokenizer.json holds no BPE vocabulary; GGUF files are written for BPE tokenizers.")
    added = [token for token in document.get("added_tokens") or [] if isinstance(token, dict)]
    texts: dict[int, str] = {}
    for text, number in model["vocab"].items():
        _place(texts, text, number, vocabulary_size)
    types = {number: gguf.TokenType.NORMAL for number in texts}
    for token in added:
        number = token.get("id")
        _place(texts, token.get("content"), number, vocabulary_size)
        assert isinstance(number, int)
        types[number] = gguf.TokenType.CONTROL if token.get("special") else gguf.TokenType.USER_DEFINED
    byte_level = _contains_type(document.get("pre_tokenizer"), "ByteLevel") or _contains_type(
        document.get("decoder"), "ByteLevel"
    )
    tokens = [texts.get(number, f"[PAD{number}]") for number in range(vocabulary_size)]
    kinds = [int(types.get(number, gguf.TokenType.UNUSED)) for number in range(vocabulary_size)]
    if byte_level:
        return Vocabulary("gpt2", detect_pre_tokenizer(document), tokens, kinds, None)
    return _sentencepiece(directory, document, tokens, kinds)


def _load_json(path: Path) -> dict[str, Any]:
    if path.stat().st_size > MAXIMUM_JSON_BYTES:
        raise ExportError(f"{path.name} is larger than {MAXIMUM_JSON_BYTES} bytes.")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ExportError(f"{path.name} is not valid JSON.") from error
    if not isinstance(document, dict):
        raise ExportError(f"{path.name} is not a JSON object.")
    return document


def _place(texts: dict[int, str], text: object, number: object, size: int) -> None:
    if not isinstance(text, str) or not isinstance(number, int):
        raise ExportError("tokenizer.json holds a token without text or id.")
    if not 0 <= number < size:
        raise ExportError(f"tokenizer.json has a token with id {number}, but the embedding has {size} rows.")
    texts[number] = text


def _parts(node: object) -> Iterator[dict[str, Any]]:
    if not isinstance(node, dict):
        return
    if node.get("type") == "Sequence":
        for key in ("pretokenizers", "decoders", "normalizers"):
            for part in node.get(key) or []:
                yield from _parts(part)
        return
    yield node


def _contains_type(node: object, name: str) -> bool:
    return any(part.get("type") == name for part in _parts(node))


def detect_pre_tokenizer(document: dict[str, Any]) -> str:
    """llama.cpp's name of the way ``tokenizer.json`` splits text before merging; ``default`` where unknown."""
    patterns: list[str] = []
    for part in _parts(document.get("pre_tokenizer")):
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
    name = PRE_TOKENIZERS.get(tuple(patterns))
    if name is None:
        log.warning("the tokenizer splits text in a way llama.cpp has no known name for: using 'default'")
        return "default"
    return name


def _puts_space_first(document: dict[str, Any]) -> bool:
    """Whether the tokenizer sets a space before the text, as SentencePiece's dummy prefix does."""
    for part in _parts(document.get("normalizer")):
        if part.get("type") == "Prepend":
            return True
    for part in _parts(document.get("pre_tokenizer")):
        if part.get("type") == "Metaspace":
            return str(part.get("prepend_scheme", "always")) != "never"
    return False


def _sentencepiece(directory: Path, document: dict[str, Any], tokens: list[str], kinds: list[int]) -> Vocabulary:
    """``llama`` vocabulary: pieces with ``▁`` for spaces, byte tokens, scores that order the merges."""
    model = document["model"]
    # BPE ids are given out in merge order, so −id ranks merges where tokenizer.model does not tell scores.
    scores = [-float(number) for number in range(len(tokens))]
    for number, token in enumerate(tokens):
        if kinds[number] == gguf.TokenType.NORMAL and len(token) == 6 and token.startswith("<0x") and token[-1] == ">":
            kinds[number] = int(gguf.TokenType.BYTE)
    unknown = model.get("unk_token")
    if isinstance(unknown, str) and unknown in tokens:
        kinds[tokens.index(unknown)] = int(gguf.TokenType.UNKNOWN)
    path = directory / "tokenizer.model"
    if path.is_file() and path.stat().st_size <= MAXIMUM_JSON_BYTES:
        for number, (piece, score, kind) in enumerate(_pieces(path.read_bytes())):
            if number < len(tokens) and tokens[number] == piece:
                scores[number] = score
                if kinds[number] == gguf.TokenType.NORMAL and 1 <= kind <= 6:
                    kinds[number] = kind
    for number, kind in enumerate(kinds):
        if kind == gguf.TokenType.USER_DEFINED:
            tokens[number] = tokens[number].replace("\u2581", " ")
            scores[number] = -1000.0
    return Vocabulary("llama", "default", tokens, kinds, scores, _puts_space_first(document))


def _pieces(data: bytes) -> Iterator[tuple[str, float, int]]:
    """``(piece, score, type)`` of a SentencePiece ``ModelProto`` (field 1: text 1, score 2, type 3)."""
    for field, value in _fields(data):
        if field != 1 or not isinstance(value, bytes):
            continue
        piece, score, kind = "", 0.0, 1
        for inner, content in _fields(value):
            if inner == 1 and isinstance(content, bytes):
                piece = content.decode("utf-8", errors="replace")
            elif inner == 2 and isinstance(content, bytes):
                (score,) = struct.unpack("<f", content)
            elif inner == 3 and isinstance(content, int):
                kind = content
        yield piece, score, kind


def _fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    """Protocol-buffer fields: numbers of varints, bytes of everything else."""
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        wire = key & 7
        if wire == 0:
            number, position = _varint(data, position)
            yield key >> 3, number
            continue
        if wire == 2:
            length, position = _varint(data, position)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise ExportError("tokenizer.model is not a SentencePiece model.")
        if position + length > len(data):
            raise ExportError("tokenizer.model ends in the middle of a field.")
        yield key >> 3, data[position : position + length]
        position += length


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            raise ExportError("tokenizer.model ends in the middle of a number.")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, position
    raise ExportError("tokenizer.model holds a number that is too long.")
