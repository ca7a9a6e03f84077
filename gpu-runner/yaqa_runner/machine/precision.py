"""The arithmetic of large products, and whether this machine has it."""

from __future__ import annotations

from functools import cache
from typing import Literal

import torch

Precision = Literal["float32", "bfloat16"]
"""Of the operands of large products; sums are float32 always."""


@cache
def cpu_multiplies_bfloat16() -> bool:
    """Whether this machine's CPU has instructions for products of bfloat16."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
