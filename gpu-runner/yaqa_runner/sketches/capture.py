"""Runs the model and hands out what a sketch is made of: each linear's inputs and output gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop

from yaqa_runner.model.linears import LinearLayer, repeated_blocks
from yaqa_runner.sketches.labels import sampled_label_gradient

Visit = Callable[[LinearLayer, torch.Tensor, torch.Tensor], None]
"""Receives a linear, its inputs ``[..., in]`` and the loss gradient at its outputs ``[..., out]``."""
VisitInput = Callable[[LinearLayer, torch.Tensor], None]
"""Receives a linear and its inputs ``[..., in]``."""


def visit_inputs(model: nn.Module, layers: list[LinearLayer], tokens: torch.Tensor, visit: VisitInput) -> None:
    """One forward pass over ``tokens`` ``[b, T]``; ``visit`` sees every linear's inputs."""
    with visiting_inputs(layers, visit), torch.no_grad():
        model(input_ids=tokens.to(_device(model)), use_cache=False)


@contextmanager
def visiting_inputs(layers: list[LinearLayer], visit: VisitInput) -> Iterator[None]:
    """``visit`` sees the inputs of ``layers`` whenever they are called."""

    def hook_for(layer: LinearLayer) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            visit(layer, inputs[0].detach())

        return hook

    handles = [layer.module.register_forward_pre_hook(hook_for(layer)) for layer in layers]
    try:
        yield
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
    recompute: bool = False,
) -> None:
    """One forward pass over ``tokens`` ``[b, T]`` and ``label_samples`` backward passes.

    ``visit`` sees every linear once a label sample (once a call, for modules that are called several times).
    ``first_sequence`` is the number of the batch's first sequence within the calibration set. With ``recompute`` no
    activations are kept but those between the model's blocks; each backward pass computes the others anew.
    """
    with ExitStack() as stack:
        stack.enter_context(_gradients_through(model, layers))
        if recompute:
            start_backward = stack.enter_context(_recomputing_hooks(model, layers, visit))
        else:
            stack.enter_context(visiting_gradients(layers, visit))
        with torch.enable_grad():
            logits = model(input_ids=tokens.to(_device(model)), use_cache=False).logits
            for sample in range(label_samples):
                gradient = sampled_label_gradient(logits.detach(), seed, first_sequence, sample)
                if recompute:
                    start_backward()
                logits.backward(gradient, retain_graph=sample + 1 < label_samples)


@contextmanager
def visiting_gradients(layers: list[LinearLayer], visit: Visit) -> Iterator[None]:
    """Every linear's inputs are kept from a forward pass until its gradient comes; then ``visit`` gets both."""

    def hook_for(layer: LinearLayer) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
            if not output.requires_grad:
                # Some models repeat their blocks and let gradients through the last time alone.
                return
            values = inputs[0].detach()
            output.register_hook(lambda gradient: visit(layer, values, gradient.detach()))  # type: ignore[no-untyped-call]

        return hook

    handles = [layer.module.register_forward_hook(hook_for(layer)) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _recomputing_hooks(model: nn.Module, layers: list[LinearLayer], visit: Visit) -> Iterator[Callable[[], None]]:
    """Every block's inside is computed anew in the backward pass; inputs meet gradients there.

    A block's last linear gets its gradient before anything asks for the block's activations, so whichever of the two
    comes first waits for the other. Calls of one module are told apart by their order.
    """
    backward = False
    calls: dict[str, int] = {}
    waiting: dict[tuple[str, int], tuple[str, torch.Tensor]] = {}

    def meet(layer: LinearLayer, call: int, kind: str, value: torch.Tensor) -> None:
        found = waiting.pop((layer.name, call), None)
        if found is None:
            waiting[layer.name, call] = (kind, value)
            return
        values, gradient = (value, found[1]) if kind == "input" else (found[1], value)
        visit(layer, values, gradient)

    def hook_for(layer: LinearLayer) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
            call = calls.get(layer.name, 0)
            calls[layer.name] = call + 1
            if backward:
                meet(layer, call, "input", inputs[0].detach())
            elif output.requires_grad:
                output.register_hook(  # type: ignore[no-untyped-call]
                    lambda gradient: meet(layer, call, "gradient", gradient.detach())
                )

        return hook

    def start_backward() -> None:
        nonlocal backward
        backward = True
        calls.clear()
        waiting.clear()

    def through_checkpoint(block: nn.Module) -> Callable[..., Any]:
        forward = block.forward

        def run(*values: Any, **named: Any) -> Any:
            return checkpoint(partial(forward, **named), *values, use_reentrant=False, preserve_rng_state=False)

        return run

    blocks = repeated_blocks(model)
    handles = [layer.module.register_forward_hook(hook_for(layer)) for layer in layers]
    try:
        for block in blocks:
            block.forward = through_checkpoint(block)
        with set_checkpoint_early_stop(False):
            yield start_backward
    finally:
        for block in blocks:
            # The instance's own attribute hides the class's method only while it is there.
            del block.forward
        for handle in handles:
            handle.remove()


@contextmanager
def _gradients_through(model: nn.Module, layers: list[LinearLayer]) -> Iterator[None]:
    """Lets gradients reach the activations although no parameter wants one: backward then costs one forward.

    They start at the first block that holds one of ``layers``. What comes before it keeps no activations and is not
    gone back through, which over windows of blocks saves half of all backward passes.
    """
    first = min(layer.block for layer in layers)
    if first == 0:
        embedding = model.get_input_embeddings()  # type: ignore[operator]
        handle = embedding.register_forward_hook(lambda module, inputs, output: _wanting(output))
    else:
        handle = repeated_blocks(model)[first].register_forward_pre_hook(_enter_block, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _enter_block(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """The block's arguments with its hidden states, the first ``[b, T, n]`` among them, wanting a gradient."""
    for place, value in enumerate(inputs):
        if _is_hidden(value):
            return (*inputs[:place], _wanting(value), *inputs[place + 1 :]), named
    for name, value in named.items():
        if _is_hidden(value):
            return inputs, {**named, name: _wanting(value)}
    raise RuntimeError(f"{type(module).__name__} is called without hidden states of shape [batch, tokens, features]")


def _is_hidden(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point() and value.ndim == 3


def _wanting(hidden: torch.Tensor) -> torch.Tensor:
    return hidden.detach().requires_grad_(True)


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
