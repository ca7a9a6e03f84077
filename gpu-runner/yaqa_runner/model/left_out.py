"""Tensors that checkpoints hold and no runtime of the language model needs, each with the reason."""

from __future__ import annotations

import re

_REASONS = (
    (
        re.compile(r"(rotary_emb\.(inv_freq|cos\w*|sin\w*)|\.(attn|attention|self_attention)\.(masked_)?bias)$"),
        "a buffer that every runtime computes for itself",
    ),
    (re.compile(r"(^|\.)(mtp|nextn)\w*(\.|$)"), "multi-token prediction, which is no part of the next token's answer"),
)


def reason_left_out(name: str) -> str | None:
    """Why a tensor called ``name`` is not needed; ``None`` where none is known."""
    return next((reason for pattern, reason in _REASONS if pattern.search(name)), None)
