"""What the folders of compressed-tensors differ in: how one linear's weight is stored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch

from yaqa_runner.formats.container import QuantizedLinear
from yaqa_runner.formats.grid_choice import ContainerGrid
from yaqa_runner.formats.safetensors_writer import PlannedTensor


class WeightForm(Protocol):
    """One of the library's formats, for weights alone: activations stay in 16 bits."""

    @property
    def format(self) -> str:
        """The library's own name for it."""
        ...

    @property
    def parts(self) -> tuple[str, ...]:
        """What the tensors of a linear are called after its name; the first is found in no other linear."""
        ...

    @property
    def unpacks_experts(self) -> bool:
        """Whether transformers unpacks the experts of a mixture that it holds fused."""
        ...

    def grid(self) -> ContainerGrid:
        """The grid of every linear."""
        ...

    def tensors(self, linears: Mapping[str, QuantizedLinear], dtype: torch.dtype) -> list[PlannedTensor]:
        """The tensors of all ``linears``; scales that the format keeps in the model's own type are in ``dtype``.

        Raises:
            ExportError: a grid that the form does not hold. Scales are looked at when their turn to be written comes.
        """
        ...

    def settings(self, linears: Mapping[str, QuantizedLinear]) -> dict[str, Any]:
        """What ``config.json`` says of the weights."""
        ...
