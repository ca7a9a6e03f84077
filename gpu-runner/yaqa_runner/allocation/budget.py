"""Bytes that linears take as one type or another, and may take together."""

from __future__ import annotations

import math
from dataclasses import dataclass

from yaqa_runner.grids.gguf import gguf_grid, gguf_type_for
from yaqa_runner.model.linears import LinearLayer

CANDIDATES = ("q2_k", "q3_k", "iq4_xs", "q4_k", "q5_k", "q6_k", "q8_0")
"""Types that are tried; rows that a K-type does not fit try what stands in for it."""


@dataclass(frozen=True)
class LinearBudget:
    """Bytes that the linears may take together.

    Attributes:
        size: In bytes.
        alignment: Every linear counts as a multiple of so many bytes.
    """

    size: int
    alignment: int

    def size_of(self, layer: LinearLayer, type_name: str) -> int:
        """Bytes that ``layer`` takes of the budget as ``type_name``."""
        size = math.ceil(layer.rows * layer.columns * gguf_grid(type_name).bits_per_weight / 8)
        return -(-size // self.alignment) * self.alignment


def candidate_types(layer: LinearLayer) -> list[str]:
    """The types that ``layer`` can have, each once."""
    found = (gguf_type_for(name, layer.rows, layer.columns) for name in CANDIDATES)
    return list(dict.fromkeys(name for name in found if name is not None))


def smallest_bytes(budget: LinearBudget, layers: list[LinearLayer]) -> int:
    """Bytes of ``layers`` with the smallest types that each can have."""
    return sum(min(budget.size_of(layer, name) for name in candidate_types(layer)) for layer in layers)
