"""The KL divergence of two models' logits as a loss, with its gradient made on the way forward."""

from __future__ import annotations

from typing import Any

import torch

ROWS = 64
"""Rows of logits at a time: what is made of them stays near the processor, and none of it is as large as the logits."""


class _Divergence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, original: torch.Tensor) -> torch.Tensor:
        gradient = torch.empty_like(logits, memory_format=torch.contiguous_format)
        total = torch.zeros((), dtype=torch.float64, device=logits.device)
        parts = (torch.split(whole, ROWS) for whole in (logits, original, gradient))
        for own, theirs, kept in zip(*parts, strict=True):
            quantized = own.float().log_softmax(-1)
            probability = theirs.float().log_softmax(-1)
            difference = probability - quantized
            probability.exp_()
            total += difference.mul_(probability).sum(dtype=torch.float64)
            kept.copy_(quantized.exp_().sub_(probability).div_(len(logits)))
        ctx.save_for_backward(gradient)
        return (total / len(logits)).float()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * gradients[0].to(gradient.dtype), None


def mean_divergence(logits: torch.Tensor, original: torch.Tensor) -> torch.Tensor:
    """Mean KL(original ‖ quantized) in nats a token of ``logits`` ``[…, vocabulary]``, differentiable in them alone.

    The gradient is ``(q − p) / tokens``; autograd would keep six tensors as large as the logits for it.

    Args:
        logits: The quantized model's.
        original: The original's, of the same shape.
    """
    vocabulary = logits.shape[-1]
    loss: torch.Tensor = _Divergence.apply(  # type: ignore[no-untyped-call]
        logits.reshape(-1, vocabulary), original.reshape(-1, vocabulary)
    )
    return loss
