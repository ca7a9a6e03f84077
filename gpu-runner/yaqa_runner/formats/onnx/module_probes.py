"""What a model's modules compute, found by having them compute: names and settings differ, the functions are few."""

from __future__ import annotations

import copy
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from yaqa_runner.formats.source import ExportError

# Norms and activations that the graph builder knows agree with a module's to this; the next likely one differs by more.
_TOLERANCE = 1e-5
_EPSILONS = (1e-5, 1e-6, 1e-8, 1e-12)
_STEPS = 5


@dataclass(frozen=True)
class Norm:
    """A norm over the last axis: ``gain · (x − mean) / √(variance + ε) + shift``, or ``gain · x / √(mean x² + ε)``.

    Attributes:
        path: The module's name in the model, which its ``weight`` and ``bias`` begin with.
        centered: Whether the mean is taken away.
        offset: Added to the stored weight.
        epsilon: ε.
        weighted: Whether it has a weight.
    """

    path: str
    centered: bool
    offset: float
    epsilon: float
    weighted: bool


@dataclass(frozen=True)
class Rotary:
    """Rotary angles of one kind of layer.

    Attributes:
        frequencies: Float32 ``[rotary width / 2]``.
        scaling: Multiplies cosine and sine.
        interleaved: Whether neighbours are turned together, instead of the halves of a head.
    """

    frequencies: torch.Tensor
    scaling: float
    interleaved: bool = False


def _squared_relu(values: torch.Tensor) -> torch.Tensor:
    return functional.relu(values).square()


def _tanh_gelu(values: torch.Tensor) -> torch.Tensor:
    return functional.gelu(values, approximate="tanh")


ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "silu": functional.silu,
    "gelu": functional.gelu,
    "gelu_tanh": _tanh_gelu,
    "relu": functional.relu,
    "relu2": _squared_relu,
}


def _on_cpu(module: nn.Module) -> nn.Module:
    """A copy of ``module``, which may be on the meta device, with random float32 parameters."""
    generator = torch.Generator().manual_seed(0)
    made = copy.deepcopy(module).to_empty(device="cpu").float()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5 + 0.5)
    return made.eval()


@torch.no_grad()
def norm_of(path: str, module: nn.Module, width: int) -> Norm:
    """The norm that ``module`` is, on inputs of ``width`` where it has no weight that says so.

    Raises:
        ExportError: it computes something else.
    """
    made = _on_cpu(module)
    weight = getattr(made, "weight", None)
    bias = getattr(made, "bias", None)
    shape = tuple(weight.shape) if isinstance(weight, torch.Tensor) else (width,)
    # Small values, so that ε has a say.
    values = torch.randn((3, *shape), generator=torch.Generator().manual_seed(1)) * 0.01
    try:
        wanted = made(values)
    except Exception as error:
        raise ExportError(f"{path} is no norm over the last axis alone. Choose another container.") from error
    told = [float(value) for name in ("variance_epsilon", "eps") if (value := getattr(made, name, None)) is not None]
    for epsilon in dict.fromkeys((*told, *_EPSILONS)):
        for centered in (False, True):
            for offset in (0.0, 1.0):
                moved = values - values.mean(-1, keepdim=True) if centered else values
                result = moved * torch.rsqrt(moved.square().mean(-1, keepdim=True) + epsilon)
                if isinstance(weight, torch.Tensor):
                    result = result * (weight + offset)
                if isinstance(bias, torch.Tensor):
                    result = result + bias
                if (result - wanted).abs().max() <= _TOLERANCE * wanted.abs().max():
                    return Norm(path, centered, offset, epsilon, isinstance(weight, torch.Tensor))
    raise ExportError(f"{path} is a norm that ONNX graphs of this version do not compute. Choose another container.")


@torch.no_grad()
def activation_of(path: str, module: Callable[[torch.Tensor], torch.Tensor]) -> str:
    """Which of :data:`ACTIVATIONS` ``module`` is.

    Raises:
        ExportError: none.
    """
    values = torch.linspace(-4, 4, 201)
    if isinstance(module, nn.Module) and next(module.parameters(), None) is not None:
        raise ExportError(f"{path} is an activation with weights of its own, which ONNX graphs here do not compute.")
    wanted = module(values)
    for name, function in ACTIVATIONS.items():
        if (function(values) - wanted).abs().max() <= _TOLERANCE:
            return name
    raise ExportError(f"{path} is an activation that ONNX graphs of this version do not compute.")


@torch.no_grad()
def rotaries_of(rotary: nn.Module, attention: nn.Module) -> dict[str, Rotary]:
    """The angles that ``rotary`` (with values) gives and ``attention`` turns by, by kind of layer.

    ``all`` is the name where there is one kind.

    Raises:
        ExportError: ``attention`` turns in a way of its own.
    """
    found = {}
    for name, buffer in rotary.named_buffers():
        if not name.endswith("inv_freq") or name.endswith("original_inv_freq"):
            continue
        label = name.removesuffix("inv_freq").removesuffix("_") or "all"
        scaling = float(getattr(rotary, "attention_scaling" if label == "all" else f"{label}_attention_scaling"))
        frequencies = buffer.detach().to(torch.float32)
        found[label] = Rotary(frequencies, scaling, _interleaved(rotary, attention, label, frequencies, scaling))
    return found


def _interleaved(
    rotary: nn.Module, attention: nn.Module, label: str, frequencies: torch.Tensor, scaling: float
) -> bool:
    apply: Any = getattr(sys.modules[type(attention).__module__], "apply_rotary_pos_emb", None)
    if apply is None:
        raise ExportError("The model's attention has no rotary function that ONNX graphs of this version know.")
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(1, 2, _STEPS, 2 * len(frequencies), generator=generator)
    positions = torch.arange(_STEPS)[None]
    by_kind = "layer_type" in inspect.signature(rotary.forward).parameters and label != "all"
    cosine, sine = rotary(query, positions, label) if by_kind else rotary(query, positions)
    wanted, _ = apply(query, query, cosine, sine)
    angles = positions[0, :, None].float() * frequencies
    for interleaved in (False, True):
        full = angles.repeat_interleave(2, -1) if interleaved else torch.cat((angles, angles), -1)
        if interleaved:
            turned = torch.stack((-query[..., 1::2], query[..., ::2]), -1).flatten(-2)
        else:
            first, second = query.chunk(2, -1)
            turned = torch.cat((-second, first), -1)
        result = (query * full.cos() + turned * full.sin()) * scaling
        if (result - wanted).abs().max() <= _TOLERANCE * wanted.abs().max():
            return interleaved
    raise ExportError(
        "The model turns its heads in a way that ONNX graphs of this version do not. Choose another container."
    )
