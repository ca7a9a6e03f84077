"""Runs the model and hands out what a sketch is made of: each linear's inputs and output gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from yaqa_runner.model.linears import LinearLayer
from yaqa_runner.sketch.labels import sampled_label_gradient

Visit = Callable[[LinearLayer, torch.Tensor, torch.Tensor], None]
"""Receives a linear, its inputs ``[..., in]`` and the loss gradient at its outputs ``[..., out]``."""
VisitInput = Callable[[LinearLayer, torch.Tensor], None]
"""Receives a linear and its inputs ``[..., in]``."""


def visit_inputs(model: nn.Module, layers: list[LinearLayer], tokens: torch.Tensor, visit: VisitInput) -> None:
    """One forward pass over ``tokens`` ``[b, T]``; ``visit`` sees every linear's inputs."""

    def hook_for(layer: LinearLayer) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            visit(layer, inputs[0].detach())

        return hook

    handles = [layer.module.register_forward_pre_hook(hook_for(layer)) for layer in layers]
    try:
        with torch.no_grad():
            model(input_ids=tokens.to(_device(model)), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()


def visit_gradients(
    model: nn.Module,
    layers: list[LinearLayer],
    tokens: torch.Tensor,
    seed: int,
    first_sequence: int,
    label_samples: int,
    visit: Visit,
) -> None:
    """One forward pass over ``tokens`` ``[b, T]`` and ``label_samples`` backward passes.

    ``visit`` sees every linear once a label sample (once a call, for modules that are called several times).
    ``first_sequence`` is the number of the batch's first sequence within the calibration set.
    """

    def hook_for(layer: LinearLayer) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
            values = inputs[0].detach()
            output.register_hook(lambda gradient: visit(layer, values, gradient.detach()))  # type: ignore[no-untyped-call]

        return hook

    with _gradients_through(model):
        handles = [layer.module.register_forward_hook(hook_for(layer)) for layer in layers]
        try:
            with torch.enable_grad():
                logits = model(input_ids=tokens.to(_device(model)), use_cache=False).logits
                for sample in range(label_samples):
                    gradient = sampled_label_gradient(logits.detach(), seed, first_sequence, sample)
                    logits.backward(gradient, retain_graph=sample + 1 < label_samples)
        finally:
            for handle in handles:
                handle.remove()


@contextmanager
def _gradients_through(model: nn.Module) -> Iterator[None]:
    """Lets gradients reach every activation although no parameter wants one: backward then costs one forward."""
    embedding = model.get_input_embeddings()  # type: ignore[operator]

    def hook(module: nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        return output.detach().requires_grad_(True)

    handle = embedding.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
