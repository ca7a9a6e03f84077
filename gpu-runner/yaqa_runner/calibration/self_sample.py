"""Token sequences sampled from the model itself, so that no data set is needed."""

from __future__ import annotations

import hashlib

import torch
from torch import nn

from yaqa_runner.calibration.tokens import TokenSet
from yaqa_runner.monitor import SILENT, Monitor

# Sequences that are sampled at once; the KV cache grows with it.
BATCH_SEQUENCES = 64


def sequence_seed(*parts: int | str) -> int:
    """A 63-bit seed from ``parts``, the same on every machine."""
    digest = hashlib.sha256("\0".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


@torch.no_grad()
def sample_sequences(
    model: nn.Module,
    sequences: int,
    length: int,
    seed: int,
    first_token: int | None,
    monitor: Monitor = SILENT,
    batch: int = BATCH_SEQUENCES,
) -> TokenSet:
    """Sample ``[sequences, length]`` at temperature 1, each beginning with ``first_token``.

    Without a first token each sequence begins with a random one of the vocabulary. Every sequence has its own
    random stream, so the batch size changes nothing but rounding in the last bit.
    """
    device = next(model.parameters()).device
    rows: list[torch.Tensor] = []
    cached = keeps_cache(model)
    for start in range(0, sequences, batch):
        stop = min(sequences, start + batch)
        uniform = torch.stack(
            [
                torch.rand(length, generator=torch.Generator().manual_seed(sequence_seed("self", seed, row)))
                for row in range(start, stop)
            ]
        )
        output = torch.empty(stop - start, length, dtype=torch.int64)
        output[:, 0] = _first(model, uniform[:, 0], first_token)
        cache = None
        for position in range(1, length):
            monitor.check()
            if cached:
                token = output[:, position - 1 : position].to(device)
                step = model(input_ids=token, past_key_values=cache, use_cache=True)
                cache = step.past_key_values
            else:
                step = model(input_ids=output[:, :position].to(device), use_cache=False)
            output[:, position] = pick(step.logits[:, -1].float(), uniform[:, position].to(device)).cpu()
        rows.append(output)
        monitor.progress(stop, sequences)
    return TokenSet(torch.cat(rows))


@torch.no_grad()
def keeps_cache(model: nn.Module) -> bool:
    """Whether two steps of one token go by ``past_key_values``; models that keep a state have it under other names."""
    token = torch.zeros(1, 1, dtype=torch.int64, device=next(model.parameters()).device)
    try:
        first = model(input_ids=token, use_cache=True)
        model(input_ids=token, past_key_values=first.past_key_values, use_cache=True)
    except (AttributeError, TypeError, ValueError, KeyError, IndexError, NotImplementedError):
        return False
    return first.past_key_values is not None


def _first(model: nn.Module, uniform: torch.Tensor, first_token: int | None) -> torch.Tensor:
    if first_token is not None:
        return torch.full(uniform.shape, first_token, dtype=torch.int64)
    size = int(model.get_input_embeddings().weight.shape[0])  # type: ignore[operator]
    return (uniform * size).long().clamp(max=size - 1)


def pick(logits: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Draw from ``softmax(logits [..., V])`` by inverting its distribution function at ``uniform [...]``."""
    cumulative = logits.softmax(dim=-1).cumsum(dim=-1)
    target = (uniform[..., None] * cumulative[..., -1:]).to(cumulative.dtype)
    return torch.searchsorted(cumulative, target).squeeze(-1).clamp(max=logits.shape[-1] - 1)
