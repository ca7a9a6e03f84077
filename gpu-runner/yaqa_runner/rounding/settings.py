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
        gpu_bytes: What a layer may take on a GPU; larger ones are rounded on the host. ``None``: none is.
    """

    sigma_input: float | None
    sigma_output: float | None
    workers: int
    gpu_bytes: int | None = None
