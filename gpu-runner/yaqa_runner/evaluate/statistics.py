"""Per-token comparisons of two models, and the figures made of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from yaqa_runner.protocol.manifest import KlEstimate, Metrics, Perplexity

# Rows of a [tokens, vocabulary] temporary; bounds memory for vocabularies of 256 thousand.
CHUNK_TOKENS = 256


@dataclass(frozen=True)
class Comparison:
    """Original against quantized on one text.

    Attributes:
        kl: KL(original ‖ quantized) in nats of every position, float32 ``[sequences, length]``.
        agree: Whether both models' most likely next token is the same, bool ``[sequences, length]``.
        original_loss: ``−log p`` of the text's own next token, float32 ``[sequences, length − 1]``.
        quantized_loss: The same of the quantized model.
    """

    kl: torch.Tensor
    agree: torch.Tensor
    original_loss: torch.Tensor
    quantized_loss: torch.Tensor


def token_kl(original: torch.Tensor, quantized: torch.Tensor) -> torch.Tensor:
    """``Σ p (log p − log q)`` in nats ``[...]`` of log-probabilities ``[..., V]``."""
    vocabulary = original.shape[-1]
    flat_p, flat_q = original.reshape(-1, vocabulary), quantized.reshape(-1, vocabulary)
    parts = [
        (p.exp() * (p - q)).sum(dim=-1)
        for p, q in zip(torch.split(flat_p, CHUNK_TOKENS), torch.split(flat_q, CHUNK_TOKENS), strict=True)
    ]
    return torch.cat(parts).reshape(original.shape[:-1])


def compare(tokens: torch.Tensor, original: torch.Tensor, quantized: torch.Tensor) -> Comparison:
    """Compare log-probabilities ``[b, T, V]`` of both models on ``tokens`` ``[b, T]``."""
    following = tokens[:, 1:, None]
    return Comparison(
        kl=token_kl(original, quantized),
        agree=original.argmax(dim=-1) == quantized.argmax(dim=-1),
        original_loss=-original[:, :-1].gather(-1, following).squeeze(-1),
        quantized_loss=-quantized[:, :-1].gather(-1, following).squeeze(-1),
    )


def join(parts: list[Comparison]) -> Comparison:
    """One comparison of several batches of equally long sequences."""
    return Comparison(
        torch.cat([part.kl for part in parts]),
        torch.cat([part.agree for part in parts]),
        torch.cat([part.original_loss for part in parts]),
        torch.cat([part.quantized_loss for part in parts]),
    )


def clustered_estimate(strata: list[torch.Tensor]) -> tuple[float, float]:
    """Mean over all tokens and its standard error.

    Each stratum is a text's values ``[sequences, length]``. Tokens of one sequence depend on each other, so sequences
    are the clusters; texts are fixed strata, so differences between them are no error. One sequence alone says nothing
    of the spread: its text adds 0.
    """
    count = sum(values.numel() for values in strata)
    mean = sum(float(values.double().sum()) for values in strata) / count
    variance = 0.0
    for values in strata:
        sequences = values.shape[0]
        if sequences < 2:
            continue
        sums = values.double().sum(dim=1)
        variance += sequences / (sequences - 1) * float((sums - sums.mean()).square().sum())
    return mean, math.sqrt(variance) / count


def not_negative(mean: float) -> float:
    """A mean KL, which is none below 0: where two models agree to the last digits, what is left is noise of float32."""
    return max(0.0, mean)


def summarize(texts: list[Comparison]) -> Metrics:
    """The figures over one or several texts together."""
    kl = torch.cat([text.kl.flatten() for text in texts]).double()
    mean, error = clustered_estimate([text.kl for text in texts])
    ordered = kl.sort().values
    agreement = torch.cat([text.agree.flatten() for text in texts]).double().mean()
    original = _perplexity([text.original_loss for text in texts])
    quantized = _perplexity([text.quantized_loss for text in texts])
    return Metrics(
        kl_nats=KlEstimate(
            mean=not_negative(mean),
            standard_error=error,
            median=_quantile(ordered, 0.5),
            p90=_quantile(ordered, 0.9),
            p99=_quantile(ordered, 0.99),
        ),
        top_one_agreement=float(agreement),
        perplexity=Perplexity(original=original, quantized=quantized, ratio=quantized / original),
        sequences=sum(text.kl.shape[0] for text in texts),
        tokens=len(kl),
    )


def _quantile(ordered: torch.Tensor, share: float) -> float:
    # torch.quantile refuses more than 2^24 values.
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return float(ordered[low] + (place - low) * (ordered[high] - ordered[low]))


def _perplexity(losses: list[torch.Tensor]) -> float:
    total = sum(float(loss.double().sum()) for loss in losses)
    count = sum(loss.numel() for loss in losses)
    # Capped where float64 and JSON would overflow: a model that broken needs no more digits.
    return math.exp(min(700.0, total / max(1, count)))
