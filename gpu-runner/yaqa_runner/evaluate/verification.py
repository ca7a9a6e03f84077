"""``verification.safetensors``: what the control plane needs to measure the finished files once more.

Log-probabilities are whole distributions in float32: a top-k with a tail is no exact KL, and float16 would cost more
digits than an 8-bit file loses. Their bytes are bounded by the number of positions instead.
"""

from __future__ import annotations

import inspect
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import PretrainedConfig

from yaqa_runner.calibration.splits import EvaluationSet
from yaqa_runner.evaluate.hard_texts import TokenizerRecord, tokenizer_record
from yaqa_runner.evaluate.measure import checked_log_probabilities
from yaqa_runner.evaluate.reference import OriginalReference
from yaqa_runner.evaluate.statistics import clustered_estimate, not_negative, token_kl
from yaqa_runner.formats.blockwise_reference import BlockwiseReferenceModel
from yaqa_runner.formats.container import ReferenceModel
from yaqa_runner.formats.torch_reference import TorchReferenceModel
from yaqa_runner.model.load import SourceModel

MAXIMUM_BYTES = 64 * 1024 * 1024
# Of the sequence that passes a sliding window: its last positions.
WINDOW_BYTES = 16 * 1024 * 1024
WINDOW_POSITIONS = 64
# A longer window is reported and not exercised: a pass over it takes too long on processors.
MAXIMUM_WINDOW = 8192
GREEDY_TOKENS = 32
# Of a model that is run block by block: each of them reads all of its weights.
SWEPT_GREEDY_TOKENS = 4
GREEDY_PROMPT = 24


@dataclass(frozen=True)
class WindowSequence:
    """A sequence longer than the model's sliding window.

    Attributes:
        window: Tokens that the config's window holds.
        input_ids: int64 ``[1, W]``; empty where the window is longer than :data:`MAXIMUM_WINDOW`.
        log_probabilities: float32 ``[1, P, V]`` of the original at the last ``P`` positions.
    """

    window: int
    input_ids: torch.Tensor
    log_probabilities: torch.Tensor

    @property
    def reached(self) -> bool:
        """Whether there is a sequence that passes the window."""
        return self.input_ids.numel() > 0


@dataclass(frozen=True)
class Verification:
    """Reference log-probabilities at chosen positions, and what else an engine is compared with.

    Attributes:
        input_ids: int64 ``[S, L]``.
        positions: int64 ``[S, P]``, evenly spaced.
        log_probabilities: float32 ``[S, P, V]`` of the original model.
        window: Where the sequences above do not pass the model's sliding window.
        greedy_prompt: int64 ``[G]``.
        greedy_tokens: int64 ``[32]`` or ``[4]``, what the original says after the prompt, each time the most likely
            token.
        tokenizer: Ids of hard texts; ``None`` where the model has no tokenizer.
    """

    input_ids: torch.Tensor
    positions: torch.Tensor
    log_probabilities: torch.Tensor
    window: WindowSequence | None = None
    greedy_prompt: torch.Tensor | None = None
    greedy_tokens: torch.Tensor | None = None
    tokenizer: TokenizerRecord | None = None


@dataclass(frozen=True)
class VerificationKl:
    """KL(original ‖ quantized) in nats a token over the verification's positions, and beyond the sliding window."""

    mean: float
    standard_error: float
    window: float | None


def choose_verification(report: list[EvaluationSet], reference: OriginalReference, sequences: int) -> Verification:
    """Up to ``sequences`` report sequences, taken from the texts in turn, with as many positions as 64 MiB hold."""
    length = max(item.tokens.length for item in report)
    whole = [item for item in report if item.tokens.length == length]
    bytes_of_position = 4 * reference.vocabulary
    wanted = min(sequences, sum(item.tokens.sequences for item in whole), max(1, MAXIMUM_BYTES // bytes_of_position))
    chosen: list[tuple[EvaluationSet, int]] = []
    row = 0
    while len(chosen) < wanted:
        chosen.extend((item, row) for item in whole if row < item.tokens.sequences)
        row += 1
    chosen = chosen[:wanted]
    count = max(1, min(length, MAXIMUM_BYTES // (bytes_of_position * wanted)))
    positions = torch.linspace(0, length - 1, count).round().long() if count > 1 else torch.tensor([length - 1])
    return Verification(
        input_ids=torch.stack([item.tokens.tokens[row] for item, row in chosen]),
        positions=positions.expand(wanted, -1).contiguous(),
        log_probabilities=torch.stack(
            [reference.log_probabilities(item, row, row + 1)[0, positions] for item, row in chosen]
        ).contiguous(),
    )


def complete_verification(verification: Verification, report: list[EvaluationSet], source: SourceModel) -> Verification:
    """``verification`` with what engines beside onnxruntime are compared with: window, greedy tokens, tokenizer."""
    prompt = verification.input_ids[0, :GREEDY_PROMPT].clone()
    return Verification(
        input_ids=verification.input_ids,
        positions=verification.positions,
        log_probabilities=verification.log_probabilities,
        window=_window_sequence(verification, report, source),
        greedy_prompt=prompt,
        greedy_tokens=_greedy(source, prompt),
        tokenizer=None if source.tokenizer is None else tokenizer_record(source.tokenizer),
    )


def sliding_window(config: PretrainedConfig) -> int | None:
    """Tokens that some layer of the model looks back at most, as its config says; ``None`` for all."""
    text = config.get_text_config(decoder=True)
    if getattr(text, "use_sliding_window", True) is False:
        return None
    kinds = getattr(text, "layer_types", None)
    if isinstance(kinds, list) and not any(kind in ("sliding_attention", "chunked_attention") for kind in kinds):
        return None
    found = [
        value
        for name in ("sliding_window", "attention_chunk_size", "window_size")
        if isinstance(value := getattr(text, name, None), int) and value > 0
    ]
    return min(found) if found else None


def texts_of(verification: Verification) -> list[torch.Tensor]:
    """The sequences, each ``[S, L]``, that :func:`verification_kl` runs a model on."""
    window = verification.window
    return [verification.input_ids, *([window.input_ids] if window is not None and window.reached else [])]


def write_verification(verification: Verification, path: Path) -> None:
    """Write the file, whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    tensors = {
        "input_ids": verification.input_ids.contiguous(),
        "positions": verification.positions,
        "log_probabilities": verification.log_probabilities,
    }
    if verification.window is not None and verification.window.reached:
        tensors["window_input_ids"] = verification.window.input_ids
        tensors["window_log_probabilities"] = verification.window.log_probabilities
    if verification.greedy_prompt is not None and verification.greedy_tokens is not None:
        tensors["greedy_prompt"] = verification.greedy_prompt
        tensors["greedy_tokens"] = verification.greedy_tokens
    if verification.tokenizer is not None:
        text = json.dumps(asdict(verification.tokenizer), ensure_ascii=False)
        tensors["tokenizer"] = torch.frombuffer(bytearray(text.encode("utf-8")), dtype=torch.uint8)
    save_file(tensors, temporary)
    temporary.rename(path)


def verification_kl(model: ReferenceModel, verification: Verification) -> VerificationKl:
    """Mean KL(original ‖ quantized) in nats over the verification's positions, with its clustered standard error."""
    vocabulary = verification.log_probabilities.shape[-1]
    rows = []
    for row in range(len(verification.input_ids)):
        values = checked_log_probabilities(model, verification.input_ids[row : row + 1], vocabulary)
        rows.append(token_kl(verification.log_probabilities[row], values[0, verification.positions[row]]))
    mean, error = clustered_estimate([torch.stack(rows)])
    beyond = None
    window = verification.window
    # An exported graph gives the logits of every position: too many bytes over a long sequence.
    if window is not None and window.reached and isinstance(model, (TorchReferenceModel, BlockwiseReferenceModel)):
        count = window.log_probabilities.shape[1]
        if isinstance(model, TorchReferenceModel):
            values = _last_log_probabilities(model.model, window.input_ids, count)
        else:
            values = model.log_probabilities(window.input_ids)[:, -count:]
        beyond = float(token_kl(window.log_probabilities, values).double().mean())
    return VerificationKl(not_negative(mean), error, beyond)


def _window_sequence(
    verification: Verification, report: list[EvaluationSet], source: SourceModel
) -> WindowSequence | None:
    window = sliding_window(source.model.config)
    if window is None or verification.input_ids.shape[1] >= window + min(16, window):
        return None
    vocabulary = verification.log_probabilities.shape[-1]
    count = min(WINDOW_POSITIONS, max(1, WINDOW_BYTES // (4 * vocabulary)))
    length = window + count
    if window > MAXIMUM_WINDOW or (source.maximum_length is not None and source.maximum_length < length):
        return WindowSequence(window, torch.empty(1, 0, dtype=torch.int64), torch.empty(1, 0, vocabulary))
    rows = torch.cat([item.tokens.tokens for item in report])
    # Where every sequence begins with the same token, it opens texts: it stands once.
    first = rows[:1, :1]
    body = rows[:, 1:] if bool((rows[:, 0] == rows[0, 0]).all()) else rows
    stream = torch.cat([first[0], body.flatten()])
    stream = stream.repeat(math.ceil(length / len(stream)))[:length]
    tokens = stream[None].contiguous()
    if source.weights.whole:
        return WindowSequence(window, tokens, _last_log_probabilities(source.model, tokens, count))
    last = source.logits(tokens)[:, -count:].float().log_softmax(dim=-1).cpu().contiguous()
    return WindowSequence(window, tokens, last)


@torch.inference_mode()
def _last_log_probabilities(model: torch.nn.Module, tokens: torch.Tensor, count: int) -> torch.Tensor:
    """Float32 ``[1, count, V]`` at the last positions of ``tokens`` ``[1, W]``."""
    device = next(model.parameters()).device
    # All positions' logits of a large vocabulary take gigabytes.
    kept = {"logits_to_keep": count} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
    logits = model(input_ids=tokens.to(device), use_cache=False, **kept).logits
    values = logits[:, -count:].float().log_softmax(dim=-1).cpu().contiguous()
    return values  # type: ignore[no-any-return]


@torch.inference_mode()
def _greedy(source: SourceModel, prompt: torch.Tensor) -> torch.Tensor:
    tokens = prompt[None].to(source.device)
    for _ in range(GREEDY_TOKENS if source.weights.whole else SWEPT_GREEDY_TOKENS):
        logits = source.logits(tokens)
        tokens = torch.cat([tokens, logits[:, -1:].argmax(dim=-1)], dim=1)
    return tokens[0, len(prompt) :].cpu().contiguous()
