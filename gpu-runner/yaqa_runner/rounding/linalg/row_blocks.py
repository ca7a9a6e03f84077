"""A matrix's rows a few at a time."""

from __future__ import annotations

import torch

PRODUCT_ROWS = 256
"""Of a product: with fewer the other matrix passes by too often, with more a diagonal block falls out of the cache."""
STRIP_ROWS = 64
"""Of all that is done element by element, so that what it takes on the way is small."""
GPU_ROWS = 4096
"""Of either on CUDA, where launches are what is dear: whole layers of a small model, and a sixteenth of the widest."""


def row_blocks(start: int, stop: int, height: int, device: torch.device) -> list[tuple[int, int]]:
    """First and last row (exclusive) of blocks of ``height`` from ``start`` to ``stop``; of ``GPU_ROWS`` on CUDA."""
    step = GPU_ROWS if device.type == "cuda" else height
    return [(top, min(top + step, stop)) for top in range(start, stop, step)]
