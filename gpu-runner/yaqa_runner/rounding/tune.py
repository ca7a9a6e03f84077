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
from yaqa_runner.rounding.adam import Moments
from yaqa_runner.rounding.divergence import mean_divergence

LEARNING_RATE = 2e-3
"""Of the scales relative to their start, so that it means the same for every layer and model. On the demo model 4e-3
lowers the KL no further on the calibration's kind of text, and less on other kinds."""
TOKENS_A_STEP = 1024
"""Tokens an optimizer step sees, where a sequence is no longer than that."""
PASSES = 4
_MAXIMUM_STEPS = 400
SWEPT_STEPS = 8
"""Steps where each reads the whole model twice: fewer and larger ones, on as many sequences in all."""


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
class TuningSteps:
    """How scales are tuned.

    Attributes:
        count: Steps of the optimizer.
        batch: Sequences a step.
        learning_rate: Of the scales relative to their start, at the first step.
        seed: Order of the sequences.
    """

    count: int
    batch: int
    learning_rate: float = LEARNING_RATE
    seed: int = 0


def swept_steps(sequences: int, length: int, passes: int = PASSES, seed: int = 0) -> TuningSteps:
    """Few large steps for ``passes`` over ``sequences`` of ``length`` tokens; the rate grows as noise falls."""
    steps, batch = tuning_plan(sequences, length, passes)
    count = min(steps, SWEPT_STEPS)
    larger = min(sequences, max(batch, passes * sequences // count))
    return TuningSteps(count, larger, LEARNING_RATE * math.sqrt(larger / batch), seed)


def falling_rate(steps: TuningSteps, number: int) -> float:
    """The learning rate of step ``number``, which falls linearly to 0."""
    return steps.learning_rate * (1 - number / steps.count)


class BatchOrder:
    """Sequences in an order drawn anew each time that all were seen."""

    def __init__(self, sequences: int, seed: int) -> None:
        self._sequences = sequences
        self._generator = torch.Generator().manual_seed(seed)
        self._left = torch.empty(0, dtype=torch.int64)

    def next(self, count: int) -> torch.Tensor:
        """The next ``count`` sequences, or those that are left of this round."""
        if len(self._left) == 0:
            self._left = torch.randperm(self._sequences, generator=self._generator)
        chosen, self._left = self._left[:count], self._left[count:]
        return chosen

    def put_back(self, chosen: torch.Tensor) -> None:
        """Have ``chosen``, the last ones given, come next again."""
        self._left = torch.cat([chosen, self._left])


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
    steps: TuningSteps,
    *,
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
        steps: How many steps of what.
        precision: What a model that is held in float32 on a CPU multiplies in, its head excepted.
        monitor: Progress in steps; a warning where memory runs out and the batch is halved (the steps stay as many).

    Raises:
        ValueError: there are no tasks, sequences, steps or sequences a step, or a grid stores no scale.
        FloatingPointError: the loss is not finite.
    """
    batch = steps.batch
    if not tasks or len(tokens) == 0 or steps.count < 1 or batch < 1:
        raise ValueError("tuning needs at least one layer, one sequence, one step and one sequence a step")
    device = next(model.parameters()).device
    grids = {task.parameter: TunableGrid(task.grid, device) for task in tasks}
    codes = {task.parameter: task.codes.to(device) for task in tasks}
    changes = [change for grid in grids.values() for change in grid.changes.values()]
    moments = [Moments.none(change) for change in changes]
    order = BatchOrder(len(tokens), steps.seed)
    losses: list[float] = []
    with torch.enable_grad():
        for step in range(steps.count):
            monitor.check()
            while True:
                chosen = order.next(batch)
                for change in changes:
                    change.grad = None
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
                order.put_back(chosen)
                batch = max(1, batch // 2)
                if device.type == "cuda":
                    torch.cuda.empty_cache()
                monitor.warn("tune-batch-halved", f"Memory ran out; scales are tuned on {batch} sequences a step.")
            losses.append(value)
            _move(changes, moments, falling_rate(steps, step))
            monitor.progress(step + 1, steps.count)
    return TunedScales({name: grid.finished() for name, grid in grids.items()}, losses)


@torch.no_grad()
def _move(changes: list[torch.Tensor], moments: list[Moments], rate: float) -> None:
    for change, kept in zip(changes, moments, strict=True):
        if change.grad is not None:
            kept.move(change, change.grad, rate)


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
        original = model(input_ids=tokens).logits
    weights = {}
    for task in tasks:
        dtype = model.get_parameter(task.parameter).dtype
        weights[task.parameter] = decoded_weight(task, grids[task.parameter], codes[task.parameter], dtype)
    with _passes(model, precision):
        logits = functional_call(model, weights, kwargs={"input_ids": tokens}).logits
    return mean_divergence(logits, original)


def decoded_weight(task: TuningTask, grid: TunableGrid, codes: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The weight of ``task`` as the model keeps it, of ``codes`` ``[out, in]``; differentiable in the changes."""
    weight = grid.decode(codes, dtype)
    if task.columns is not None:
        weight = weight[:, torch.argsort(task.columns).to(weight.device)]
    return weight.T if task.transposed else weight


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
