"""``verification.safetensors``: what the control plane needs to measure the finished files once more."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from yaqa_runner.calibration.splits import EvaluationSet
from yaqa_runner.evaluate.measure import checked_log_probabilities
from yaqa_runner.evaluate.reference import OriginalReference
from yaqa_runner.evaluate.statistics import token_kl
from yaqa_runner.formats.container import ReferenceModel

MAXIMUM_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Verification:
    """Reference log-probabilities at chosen positions.

    Attributes:
        input_ids: int64 ``[S, L]``.
        positions: int64 ``[S, P]``, evenly spaced.
        log_probabilities: float32 ``[S, P, V]`` of the original model.
    """

    input_ids: torch.Tensor
    positions: torch.Tensor
    log_probabilities: torch.Tensor


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


def write_verification(verification: Verification, path: Path) -> None:
    """Write the file, whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    save_file(
        {
            "input_ids": verification.input_ids.contiguous(),
            "positions": verification.positions,
            "log_probabilities": verification.log_probabilities,
        },
        temporary,
    )
    temporary.rename(path)


def verification_kl(model: ReferenceModel, verification: Verification) -> float:
    """Mean KL(original ‖ quantized) in nats over the verification's positions."""
    total = 0.0
    vocabulary = verification.log_probabilities.shape[-1]
    for row in range(len(verification.input_ids)):
        values = checked_log_probabilities(model, verification.input_ids[row : row + 1], vocabulary)
        kl = token_kl(verification.log_probabilities[row], values[0, verification.positions[row]])
        total += float(kl.double().sum())
    return total / verification.positions.numel()
