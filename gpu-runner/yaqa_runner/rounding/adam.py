"""A step of Adam whose moments may lie in files between steps (arXiv 1412.6980).

PyTorch's own gives the same, and loads its compiler with the first optimizer that is made: 150 MB.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

MOMENTS = ("step", "mean", "square")
_BETAS = (0.9, 0.999)
_EPSILON = 1e-8


@dataclass
class Moments:
    """What Adam keeps of one parameter.

    Attributes:
        step: Steps so far, a float32 scalar.
        mean: Of gradients, as large as the parameter.
        square: Mean of their squares, likewise.
    """

    step: torch.Tensor
    mean: torch.Tensor
    square: torch.Tensor

    @classmethod
    def none(cls, parameter: torch.Tensor) -> Moments:
        """Before the first step of ``parameter``."""
        mean = torch.zeros_like(parameter, requires_grad=False)
        return cls(torch.zeros(()), mean, mean.clone())

    @classmethod
    def of(cls, tensors: Mapping[str, torch.Tensor]) -> Moments:
        """Those that :meth:`tensors` gave; they are changed."""
        return cls(*(tensors[name] for name in MOMENTS))

    def tensors(self) -> dict[str, torch.Tensor]:
        """All of it, by name."""
        return {"step": self.step, "mean": self.mean, "square": self.square}

    def move(self, parameter: torch.Tensor, gradient: torch.Tensor, rate: float) -> None:
        """Move ``parameter`` in place against ``gradient``, by ``rate`` where gradients agree."""
        first, second = _BETAS
        self.step += 1
        step = float(self.step)
        self.mean = self.mean.to(gradient.device).lerp_(gradient, 1 - first)
        self.square = self.square.to(gradient.device).mul_(second).addcmul_(gradient, gradient, value=1 - second)
        size = (self.square.sqrt() / math.sqrt(1 - second**step)).add_(_EPSILON)
        parameter.addcdiv_(self.mean, size, value=-rate / (1 - first**step))
