"""A set of equally long token sequences, identified by its content."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class TokenSet:
    """Token sequences int64 ``[sequences, length]``."""

    tokens: torch.Tensor

    @property
    def sequences(self) -> int:
        """Number of sequences."""
        return int(self.tokens.shape[0])

    @property
    def length(self) -> int:
        """Tokens a sequence."""
        return int(self.tokens.shape[1])

    @property
    def count(self) -> int:
        """Tokens in all."""
        return int(self.tokens.numel())

    @property
    def sha256(self) -> str:
        """Hex sha256 of the shape and the tokens as little-endian int64."""
        digest = hashlib.sha256(f"{self.sequences} {self.length}\n".encode())
        digest.update(np.ascontiguousarray(self.tokens.numpy().astype("<i8")).tobytes())
        return digest.hexdigest()
