"""What rounding takes beside weights and factors."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RoundingSettings:
    """How layers are rounded.

    Attributes:
        sigma_input: Damping of ``H_I``: the share of the identity that is added to it; ``None``: as held-out tokens
            chose for each linear.
        sigma_output: Damping of ``H_O``, likewise.
        workers: Layers in flight.
    """

    sigma_input: float | None
    sigma_output: float | None
    workers: int
