"""The tokenizer as GGUF keys, from the tokenizer that transformers loads. In the converter's process only.

The converter reads a model's tokenizer files. It gets them as the loaded tokenizer writes them, so that it sees every
token that transformers sees, whichever of the files names it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from yaqa_runner.formats.gguf.pre_tokenizer import WHOLE_WORDS_FIRST, detect_pre_tokenizer, tokenizer_parts
from yaqa_runner.formats.source import ExportError
from yaqa_runner.model.source_files import VOCABULARY_FILES

# With the last two alone a tokenizer may be meant that does not load: an error then, not a model without one.
_TOKENIZER_FILES = (*VOCABULARY_FILES, "merges.txt", "tekken.json")
_SPACE = "\u2581"
_SPECIAL = ("bos", "eos", "unk", "pad", "sep")
_KEYS = {"unk": "unknown", "pad": "padding", "sep": "seperator"}


class Vocabulary:
    """The loaded tokenizer of a snapshot, and what GGUF can say of it.

    Raises:
        ExportError: The tokenizer does not load, or does what llama.cpp does not.
    """

    def __init__(self, snapshot: Path) -> None:
        self.notes: list[str] = []
        self.tokenizer: Any | None = None
        self.document: dict[str, Any] = {}
        self._model_file = snapshot / "tokenizer.model"
        if not any((snapshot / name).is_file() for name in _TOKENIZER_FILES):
            self.notes.append("The checkpoint has no tokenizer: the file carries no vocabulary.")
            return
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(snapshot)
        except Exception as error:
            raise ExportError(f"The tokenizer cannot be loaded: {type(error).__name__}: {error}") from error
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise ExportError(
                f"{type(self.tokenizer).__name__} has no form of tokenizer.json, which GGUF files are written from."
            )
        self.document = json.loads(backend.to_str())
        self.is_byte_level = any(
            part.get("type") == "ByteLevel"
            for key in ("pre_tokenizer", "decoder")
            for part in tokenizer_parts(self.document.get(key))
        )
        self._refuse_what_gguf_cannot_say()

    def _refuse_what_gguf_cannot_say(self) -> None:
        model = self.document["model"]
        kind = str(model.get("type"))
        if kind != "BPE":
            raise ExportError(
                f"The tokenizer is a {kind[:40]} model, and llama.cpp's for language models are BPE. "
                "Choose another container."
            )
        if not self.is_byte_level and not {"<0x00>", "<0x0A>", "<0xFF>"} <= set(model["vocab"]):
            raise ExportError(
                "The tokenizer has no tokens for bytes, which llama.cpp needs for what its vocabulary lacks. "
                "Choose another container."
            )
        for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
            if model.get(key):
                raise ExportError(f"The tokenizer has {key}, which llama.cpp has not. Choose another container.")
        for part in tokenizer_parts(self.document.get("normalizer")):
            self._check_normalizer(part)
        for part in tokenizer_parts(self.document.get("pre_tokenizer")):
            if part.get("type") == "ByteLevel" and part.get("add_prefix_space"):
                raise ExportError(
                    "The tokenizer puts a space before the text (add_prefix_space), which llama.cpp's byte-level "
                    "tokenizers do not. Choose another container."
                )
        strips = [
            str(token.get("content"))
            for token in self.document.get("added_tokens") or []
            if token.get("lstrip") or token.get("rstrip") or token.get("single_word")
        ]
        if strips:
            self.notes.append(
                f"{len(strips)} added tokens (the first is {strips[0][:40]!r}) take the spaces beside them along in "
                "the original's tokenizer; llama.cpp keeps those spaces."
            )

    def _check_normalizer(self, part: dict[str, Any]) -> None:
        kind = str(part.get("type"))
        if self.is_byte_level:
            if kind == "NFC":
                self.notes.append(
                    "The original's tokenizer composes accents first (NFC); llama.cpp takes the text as it is. Texts "
                    "with combining marks give other tokens."
                )
                return
        elif part == {"type": "Prepend", "prepend": _SPACE} or (
            kind == "Replace" and part.get("pattern") == {"String": " "} and part.get("content") == _SPACE
        ):
            return
        raise ExportError(
            f"The tokenizer normalizes text ({kind[:40]}), which llama.cpp does not. Choose another container."
        )

    def write_files(self, folder: Path) -> None:
        """The loaded tokenizer as files, with ``tokenizer.model`` where it says the same."""
        if self.tokenizer is None:
            return
        self.tokenizer.save_pretrained(folder)
        path = folder / "tokenizer_config.json"
        settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        settings["added_tokens_decoder"] = {
            str(number): {"content": token.content, "special": token.special}
            for number, token in self.tokenizer.added_tokens_decoder.items()
        }
        settings.pop("add_prefix_space", None)
        path.write_text(json.dumps(settings), encoding="utf-8")
        model_file = folder / "tokenizer.model"
        model_file.unlink(missing_ok=True)
        if not self.is_byte_level and self._model_file.is_file() and self._sentencepiece_agrees():
            model_file.symlink_to(self._model_file.resolve())

    def write_count(self, folder: Path, size: int) -> None:
        """A tokenizer.json that counts ``size`` tokens and holds none.

        The converter's Gemma 3 cuts the embedding to the tokens it counts there, and not the vocabulary.
        """
        if self.tokenizer is not None:
            (folder / "tokenizer.model").unlink(missing_ok=True)
            document = {"model": {"vocab": {}}, "added_tokens": [None] * size}
            (folder / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")

    def _sentencepiece_agrees(self) -> bool:
        """Whether every piece of tokenizer.model has the id that the loaded tokenizer gives it."""
        from sentencepiece import SentencePieceProcessor

        assert self.tokenizer is not None
        try:
            pieces = SentencePieceProcessor(model_file=str(self._model_file))
        except Exception as error:
            raise ExportError(f"tokenizer.model is not a SentencePiece model: {error}") from error
        known = self.tokenizer.get_vocab()
        added = self.tokenizer.added_tokens_decoder
        return all(
            known.get(pieces.id_to_piece(number)) == number or number in added for number in range(pieces.vocab_size())
        )

    def install(self, model: Any) -> None:
        """Make the converter's ``model`` write this tokenizer."""
        if self.tokenizer is None:
            model.set_vocab = model._set_vocab_none
            return
        own = model.set_vocab
        splits = model.get_vocab_base_pre

        def pre_tokenizer(tokenizer: Any) -> str:
            try:
                found = str(splits(tokenizer))
            except NotImplementedError as error:
                known = detect_pre_tokenizer(self.document)
                if known is None:
                    raise ExportError(
                        "The tokenizer splits text in a way that llama.cpp has no name for. Choose another container."
                    ) from error
                found = known
                if self.document["model"].get("ignore_merges") and found not in WHOLE_WORDS_FIRST:
                    raise ExportError(
                        "The tokenizer looks words up whole before it merges (ignore_merges), which llama.cpp's "
                        f"{found} does not. Choose another container."
                    ) from error
            return found

        def sentencepiece(*_: Any, **__: Any) -> None:
            if self.is_byte_level:
                model._set_vocab_gpt2()
            elif (model.dir_model / "tokenizer.model").is_file():
                type(model)._set_vocab_sentencepiece(model)
            else:
                self._write_ranked(model)

        def set_vocab() -> None:
            before = dict(model.gguf_writer.kv_data[-1])
            try:
                own()
            except ExportError:
                raise
            except Exception as error:
                # The class's own way wants a file or a token that this tokenizer has not: written by its kind alone.
                model.gguf_writer.kv_data[-1].clear()
                model.gguf_writer.kv_data[-1].update(before)
                try:
                    sentencepiece()
                except AssertionError as second:
                    raise ExportError(
                        "The tokenizer has tokens beyond the rows of the embedding. Push the tokenizer of this model."
                    ) from second
                del error
            self._settle(model)

        model.get_vocab_base_pre = pre_tokenizer
        model._set_vocab_sentencepiece = sentencepiece
        model._set_vocab_llama_hf = sentencepiece
        model.set_vocab = set_vocab

    def _write_ranked(self, model: Any) -> None:
        """SentencePiece's form from tokenizer.json alone: llama.cpp merges by score, so a score is a merge's rank."""
        assert self.tokenizer is not None
        kinds = _module_of(model).TokenType
        size = int(model.hparams["vocab_size"])
        vocabulary = self.tokenizer.get_vocab()
        if max(vocabulary.values()) >= size:
            raise ExportError(
                "The tokenizer has tokens beyond the rows of the embedding. Push the tokenizer of this model."
            )
        texts = [f"[PAD{number}]" for number in range(size)]
        types = [int(kinds.UNUSED)] * size
        ranks: dict[str, int] = {}
        for rank, merge in enumerate(self.document["model"]["merges"]):
            left, right = merge if isinstance(merge, list) else merge.split(" ", 1)
            ranks.setdefault(left + right, rank)
        scores = [-1e6] * size
        unknown = self.document["model"].get("unk_token")
        for text, number in vocabulary.items():
            texts[number] = text
            scores[number] = float(-ranks[text]) if text in ranks else -1e6
            types[number] = int(kinds.NORMAL)
            if len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
                types[number] = int(kinds.BYTE)
            elif text == unknown:
                types[number] = int(kinds.UNKNOWN)
        for number, token in self.tokenizer.added_tokens_decoder.items():
            if types[number] == int(kinds.UNKNOWN):
                continue
            types[number] = int(kinds.CONTROL if token.special else kinds.USER_DEFINED)
            if not token.special:
                texts[number] = token.content.replace(_SPACE, " ")
        writer = model.gguf_writer
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_list(texts)
        writer.add_token_scores(scores)
        writer.add_token_types(types)
        special = _module_of(model).SpecialVocab(model.dir_model, n_vocab=size)
        special.add_to_gguf(writer)

    def _settle(self, model: Any) -> None:
        """Special tokens, and what is put around a text, as the loaded tokenizer has them."""
        tokenizer = self.tokenizer
        assert tokenizer is not None
        writer = model.gguf_writer
        keys = writer.kv_data[-1]
        for name in _SPECIAL:
            number = getattr(tokenizer, f"{name}_token_id", None)
            if isinstance(number, int):
                keys.pop(f"tokenizer.ggml.{_KEYS.get(name, name)}_token_id", None)
                getattr(writer, f"add_{name}_token_id")(number)
        around = tokenizer("a").input_ids
        for name, number in (("bos", around[0]), ("eos", around[-1])):
            keys.pop(f"tokenizer.ggml.add_{name}_token", None)
            wanted = getattr(tokenizer, f"{name}_token_id", None)
            getattr(writer, f"add_add_{name}_token")(len(around) > 1 and wanted is not None and number == wanted)
        if not self.is_byte_level:
            keys.pop("tokenizer.ggml.add_space_prefix", None)
            writer.add_add_space_prefix(self._puts_space_first())

    def _puts_space_first(self) -> bool:
        for part in tokenizer_parts(self.document.get("normalizer")):
            if part.get("type") == "Prepend":
                return True
        for part in tokenizer_parts(self.document.get("pre_tokenizer")):
            if part.get("type") == "Metaspace":
                return str(part.get("prepend_scheme", "always")) != "never"
        return False


def _module_of(model: Any) -> Any:
    """The converter's own gguf package."""
    import gguf

    return gguf
