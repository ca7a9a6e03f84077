"""Tuning a container's scales under the true KL, with the codes fixed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.func import functional_call

from yaqa_runner.grids.grid import FixedGrid
from yaqa_runner.grids.tunable import TunableGrid
from yaqa_runner.machine.exhaustion import is_out_of_memory
from yaqa_runner.machine.precision import Precision
from yaqa_runner.monitor import SILENT, Monitor

LEARNING_RATE = 2e-3
"""Of the scales relative to their start, so that it means the same for every layer and model. On the demo model 4e-3
lowers the KL no further on the calibration's kind of text, and less on other kinds."""
TOKENS_A_STEP = 1024
"""Tokens an optimizer step sees, where a sequence is no longer than that."""
PASSES = 4
_MAXIMUM_STEPS = 400


def tuning_plan(sequences: int, length: int, passes: int = PASSES) -> tuple[int, int]:
    """Steps and sequences a step for ``passes`` over ``sequences`` of ``length`` tokens; at most 400 steps.

    A function of the text alone, never of the clock, so that equal jobs give equal files.
    """
    batch = max(1, min(sequences, TOKENS_A_STEP // max(1, length)))
    return max(1, min(_MAXIMUM_STEPS, passes * sequences // batch)), batch


@dataclass(frozen=True)
class TuningTask:
    """One linear whose scales are tuned.

    Attributes:
        parameter: Name of its weight in the model, ``model.layers.0.mlp.up_proj.weight``.
        codes: ``[out, in]`` int16, fixed.
        grid: The grid to start from.
        transposed: Whether the model keeps the weight as ``[in, out]`` (``Conv1D``).
        columns: Input of every column of ``codes``; ``None`` where they are in the model's order.
    """

    parameter: str
    codes: torch.Tensor
    grid: FixedGrid
    transposed: bool = False
    columns: torch.Tensor | None = None


@dataclass(frozen=True)
class TunedScales:
    """What tuning gave.

    Attributes:
        grids: New grid by parameter name, exact in the container's precision, with ``stored`` to match.
        losses: KL in nats a token of every step's batch, before that step.
    """

    grids: dict[str, FixedGrid]
    losses: list[float]


def tune_scales(
    model: nn.Module,
    tasks: list[TuningTask],
    tokens: torch.Tensor,
    *,
    steps: int,
    batch: int = 4,
    learning_rate: float = LEARNING_RATE,
    seed: int = 0,
    precision: Precision = "float32",
    monitor: Monitor = SILENT,
) -> TunedScales:
    """Minimise the mean KL(original ‖ quantized) a token on ``tokens`` over the scales alone.

    Adam with a rate that falls linearly to 0. Codes, sub-scales and zero points stay, so files keep their size and
    layout. The forward pass uses the scales as the container will round them.

    Args:
        model: The original causal LM in eval mode; called with ``input_ids``, gives ``logits``. Not modified.
        tasks: Every quantized linear; the others stay as they are.
        tokens: Calibration sequences ``[sequences, length]`` int64.
        steps: Optimizer steps, each on ``batch`` sequences.
        batch: Sequences a step.
        learning_rate: Of the scales relative to their start.
        seed: Order of the sequences.
        precision: What a model that is held in float32 on a CPU multiplies in, its head excepted.
        monitor: Progress in steps; a warning where memory runs out and the batch is halved (the steps stay as many).

    Raises:
        ValueError: there are no tasks or sequences, ``steps`` or ``batch`` is less than 1, or a grid stores no scale.
        FloatingPointError: the loss is not finite.
    """
    if not tasks or len(tokens) == 0 or steps < 1 or batch < 1:
        raise ValueError("tuning needs at least one layer, one sequence, one step and one sequence a step")
    device = next(model.parameters()).device
    grids = {task.parameter: TunableGrid(task.grid, device) for task in tasks}
    codes = {task.parameter: task.codes.to(device) for task in tasks}
    optimizer = torch.optim.Adam([change for grid in grids.values() for change in grid.changes.values()], learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    generator = torch.Generator().manual_seed(seed)
    order = torch.empty(0, dtype=torch.int64)
    losses: list[float] = []
    with torch.enable_grad():
        for step in range(steps):
            monitor.check()
            while True:
                if len(order) == 0:
                    order = torch.randperm(len(tokens), generator=generator)
                chosen = order[:batch]
                optimizer.zero_grad(set_to_none=True)
                try:
                    loss = _kl(model, tasks, grids, codes, tokens[chosen].to(device), precision)
                    value = float(loss.detach())
                    if not math.isfinite(value):
                        raise FloatingPointError(f"the KL became {value} in step {step + 1} of the scale tuning")
                    loss.backward()  # type: ignore[no-untyped-call]
                    break
                except Exception as error:
                    if not is_out_of_memory(error) or batch == 1:
                        raise
                # Outside the handler: the error's traceback holds the tensors that did not fit.
                batch = max(1, batch // 2)
                if device.type == "cuda":
                    torch.cuda.empty_cache()
                monitor.warn("tune-batch-halved", f"Memory ran out; scales are tuned on {batch} sequences a step.")
            order = order[len(chosen) :]
            losses.append(value)
            optimizer.step()
            schedule.step()
            monitor.progress(step + 1, steps)
    return TunedScales({name: grid.finished() for name, grid in grids.items()}, losses)


def _kl(
    model: nn.Module,
    tasks: list[TuningTask],
    grids: Mapping[str, TunableGrid],
    codes: Mapping[str, torch.Tensor],
    tokens: torch.Tensor,
    precision: Precision,
) -> torch.Tensor:
    """Mean KL(original ‖ quantized) in nats a token of ``tokens`` ``[b, T]``."""
    with torch.no_grad(), _passes(model, precision):
        original = model(input_ids=tokens).logits.float().log_softmax(-1)
    weights = {}
    for task in tasks:
        dtype = model.get_parameter(task.parameter).dtype
        weight = grids[task.parameter].decode(codes[task.parameter], dtype)
        if task.columns is not None:
            weight = weight[:, torch.argsort(task.columns).to(weight.device)]
        weights[task.parameter] = weight.T if task.transposed else weight
    with _passes(model, precision):
        logits = functional_call(model, weights, kwargs={"input_ids": tokens}).logits
    quantized = logits.float().log_softmax(-1)
    divergence: torch.Tensor = (original.exp() * (original - quantized)).sum(-1)
    return divergence.mean()


@contextmanager
def _passes(model: nn.Module, precision: Precision) -> Iterator[None]:
    """Around a pass of ``model``: products in ``precision`` on a CPU, but for the head.

    Logits of some twenty, rounded to bfloat16, are off by as much as the differences between four bits and sixteen.
    """
    if precision == "float32" or next(model.parameters()).device.type != "cpu":
        yield
        return
    head = model.get_output_embeddings()  # type: ignore[operator]
    forward = head.forward

    def exact(hidden: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", enabled=False):
            logits: torch.Tensor = forward(hidden.float())
            return logits

    head.forward = exact
    try:
        with torch.autocast("cpu", torch.bfloat16):
            yield
    finally:
        del head.forward
