"""Token sequences from text files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from yaqa_runner.calibration.overlap import MAXIMUM_SHARE, HeldOut
from yaqa_runner.calibration.tokens import TokenSet
from yaqa_runner.protocol.failures import InvalidSpec

Warn = Callable[[str, str], None]
Windows = npt.NDArray[np.int64]

MAXIMUM_TEXT_BYTES = 1024 * 1024 * 1024
# Fast tokenizers are linear in the text only in pieces; each is cut at a line end.
PIECE_CHARACTERS = 1_000_000
# Bound on what is tokenized: this many times the tokens that are asked for, read from the front of each file.
TOKENIZED_SURPLUS = 4


def leading_token(tokenizer: Any) -> int | None:
    """The token that this tokenizer puts before every text (BOS), or ``None`` when it puts none."""
    with_special = tokenizer("a").input_ids
    without = tokenizer("a", add_special_tokens=False).input_ids
    if len(with_special) > len(without) and len(with_special) > 0 and with_special[0] == tokenizer.bos_token_id:
        return int(with_special[0])
    return None


def tokenize_file(path: Path, tokenizer: Any, most: int) -> npt.NDArray[np.int64]:
    """Up to ``most`` tokens from the front of a UTF-8 text, without special tokens.

    Raises:
        InvalidSpec: the file cannot be read, is not UTF-8, holds NUL bytes (is no text), or is empty.
    """
    try:
        if path.stat().st_size > MAXIMUM_TEXT_BYTES:
            raise InvalidSpec(f"{path} is larger than {MAXIMUM_TEXT_BYTES} bytes.", "Give a smaller text.")
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InvalidSpec(f"The text {path} cannot be read: {error.strerror}.", "Check the path.") from error
    except UnicodeDecodeError as error:
        raise InvalidSpec(f"The text {path} is not UTF-8.", "Give plain text in UTF-8.") from error
    if "\0" in text:
        raise InvalidSpec(f"{path} is not a text: it holds NUL bytes.", "Give plain text in UTF-8.")
    tokens: list[int] = []
    start = 0
    while start < len(text) and len(tokens) < most:
        end = min(len(text), start + PIECE_CHARACTERS)
        if end < len(text):
            line_end = text.rfind("\n", start, end)
            end = line_end + 1 if line_end > start else end
        tokens.extend(tokenizer(text[start:end], add_special_tokens=False, verbose=False).input_ids)
        start = end
    if not tokens:
        raise InvalidSpec(f"The text {path} is empty.", "Give a text with words in it.")
    return np.asarray(tokens[:most], dtype=np.int64)


def cut_windows(tokens: npt.NDArray[np.int64], length: int, leading: int | None) -> Windows:
    """Consecutive windows ``[count, length]``, each beginning with ``leading`` where there is one.

    A text shorter than one window is repeated until it fills one.
    """
    body = length - (leading is not None)
    if len(tokens) < body:
        tokens = np.resize(tokens, body)
    count = len(tokens) // body
    windows = tokens[: count * body].reshape(count, body)
    if leading is None:
        return windows.copy()
    return np.concatenate([np.full((count, 1), leading, dtype=np.int64), windows], axis=1)


def _shuffled(windows: Windows, seed: int, salt: int) -> Windows:
    return windows[np.random.default_rng([seed, salt]).permutation(len(windows))]


def calibration_from_text(
    files: list[Path], tokenizer: Any, sequences: int, length: int, seed: int, held_out: HeldOut, warn: Warn
) -> TokenSet:
    """Sequences ``[sequences, length]`` mixed evenly over the files, shuffled by ``seed``.

    Windows that repeat held-out text are left out. Where the files hold fewer windows than asked for, windows
    at random other offsets fill up, and ``warn`` says so.

    Raises:
        InvalidSpec: a file cannot be read, or nothing but held-out text is left.
    """
    leading = leading_token(tokenizer)
    body = length - (leading is not None)
    most = max(body, TOKENIZED_SURPLUS * body * (sequences // len(files) + 1))
    generator = np.random.default_rng([seed, 1])
    pools: list[Windows] = []
    texts: list[npt.NDArray[np.int64]] = []
    dropped = 0
    for number, path in enumerate(files):
        tokens = tokenize_file(path, tokenizer, most)
        if len(tokens) < body:
            warn(
                "calibration-text-short",
                f"{path.name} is shorter than one sequence of {length} tokens; it is repeated.",
            )
        windows = _shuffled(cut_windows(tokens, length, leading), seed, number + 2)
        kept = np.array([held_out.share(window) <= MAXIMUM_SHARE for window in windows], dtype=bool)
        dropped += int((~kept).sum())
        if kept.any():
            pools.append(windows[kept])
            texts.append(tokens)
    if not pools:
        raise InvalidSpec(
            "All calibration text is also in the selection or report texts.",
            "Calibrate on other text than you measure on.",
        )
    if dropped:
        warn("calibration-overlap", f"{dropped} calibration windows repeat held-out text and are left out.")
    chosen: list[npt.NDArray[np.int64]] = []
    depth = 0
    while len(chosen) < sequences and any(depth < len(pool) for pool in pools):
        chosen.extend(pool[depth] for pool in pools if depth < len(pool))
        depth += 1
    if len(chosen) < sequences:
        warn(
            "calibration-text-short",
            f"The calibration text holds {len(chosen)} sequences of {length} tokens; overlapping ones fill up "
            f"to {sequences}.",
        )
    filled = _overlapping(texts, body, leading, sequences - len(chosen), generator, held_out)
    chosen = chosen[:sequences] + filled
    # All overlapping windows may be held out; then what there is repeats.
    chosen = [chosen[index % len(chosen)] for index in range(sequences)]
    order = generator.permutation(sequences)
    return TokenSet(torch.from_numpy(np.stack([chosen[index] for index in order])))


def _overlapping(
    texts: list[npt.NDArray[np.int64]],
    body: int,
    leading: int | None,
    count: int,
    generator: np.random.Generator,
    held_out: HeldOut,
) -> list[npt.NDArray[np.int64]]:
    long_enough = [tokens for tokens in texts if len(tokens) > body]
    windows: list[npt.NDArray[np.int64]] = []
    if not long_enough:
        return windows
    for _ in range(4 * max(0, count)):
        if len(windows) == count:
            break
        tokens = long_enough[int(generator.integers(len(long_enough)))]
        start = int(generator.integers(len(tokens) - body + 1))
        window = tokens[start : start + body]
        if leading is not None:
            window = np.concatenate([np.array([leading], dtype=np.int64), window])
        if held_out.share(window) <= MAXIMUM_SHARE:
            windows.append(window)
    return windows


def evaluation_from_text(
    path: Path, tokenizer: Any, sequences: int, length: int, held_out: HeldOut, warn: Warn
) -> TokenSet:
    """At most ``sequences`` distinct consecutive sequences from the front of a text, none of them held out.

    Never repeated or overlapping, for the standard error counts sequences as independent. A text with fewer
    windows gives fewer; one with less than two is cut into two shorter ones. ``warn`` says so.

    Raises:
        InvalidSpec: the file cannot be read, or nothing but held-out text is left.
    """
    leading = leading_token(tokenizer)
    body = length - (leading is not None)
    tokens = tokenize_file(path, tokenizer, TOKENIZED_SURPLUS * body * sequences)
    if len(tokens) < 2 * body:
        length = max(8, len(tokens) // 2 + (leading is not None))
        warn("evaluation-text-short", f"{path.name} is short: it is measured in two sequences of {length} tokens.")
    windows = cut_windows(tokens, length, leading)
    kept = np.array([held_out.share(window) <= MAXIMUM_SHARE for window in windows], dtype=bool)
    if not kept.any():
        raise InvalidSpec(
            f"{path.name} repeats the text of another split.", "Give each split its own text: selection, report."
        )
    windows = windows[kept][:sequences]
    if len(windows) < sequences:
        warn(
            "evaluation-text-short", f"{path.name} gives {len(windows)} sequences of {length} tokens, not {sequences}."
        )
    return TokenSet(torch.from_numpy(np.ascontiguousarray(windows)))
