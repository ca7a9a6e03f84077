"""Rounding many layers at once: they do not depend on one another once the sketches exist."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass

import torch

from yaqa_runner.grids.grid import FixedGrid
from yaqa_runner.rounding.adaptive import proxy_error, round_adaptive
from yaqa_runner.rounding.factor import PreparedFactor
from yaqa_runner.rounding.refine import refine
from yaqa_runner.rounding.rescale import rescale
from yaqa_runner.rounding.workers import available_cores, single_core_workers


@dataclass(frozen=True)
class RoundingTask:
    """A layer to round.

    Attributes:
        name: Whatever the caller calls it.
        weight: ``[out, in]``.
        grid: Frozen grid.
        factor_input: ``H_I``, ready.
        factor_output: ``H_O``, ready; ``None`` rounds one-sided.
        sweeps: Most sweeps of refinement; 0 for none.
        turns: After refinement, times that the scales are fitted to the codes and the codes swept again.
    """

    name: str
    weight: torch.Tensor
    grid: FixedGrid
    factor_input: PreparedFactor
    factor_output: PreparedFactor | None
    sweeps: int = 0
    turns: int = 0


@dataclass(frozen=True)
class RoundedLayer:
    """A rounded layer.

    Attributes:
        name: The task's.
        codes: ``[out, in]`` int16.
        grid: What the codes index: the task's grid, or the one that ``turns`` made of it.
        proxy: ``tr(H_O E H_I Eᵀ)`` under the prepared factors (mean diagonal 1, ``sigma`` included).
        seconds: Wall-clock of this layer.
    """

    name: str
    codes: torch.Tensor
    grid: FixedGrid
    proxy: float
    seconds: float


def round_layers(tasks: Iterable[RoundingTask], workers: int | None = None) -> Iterator[RoundedLayer]:
    """Round every task and yield in their order.

    ``tasks`` is read only as far as there are free workers, one further at most, so that a generator which loads
    weights and factors keeps no more than ``workers + 1`` layers in memory. Closing the iterator drops what has not
    started.

    Args:
        tasks: What to round; may be a generator.
        workers: Layers in flight; the cores of the machine when ``None``. One layer alone uses all cores itself.

    Raises:
        ValueError: ``workers`` is less than 1, or a task's shapes or values do not fit.
    """
    count = available_cores() if workers is None else workers
    if count < 1:
        raise ValueError(f"at least one layer must be in flight, not {workers}")
    if count == 1:
        for task in tasks:
            yield _round(task, None)
        return
    with single_core_workers(count) as pool:
        flying: deque[Future[RoundedLayer]] = deque()
        try:
            for task in tasks:
                flying.append(pool.submit(_round, task, 1))
                if len(flying) > count:
                    yield flying.popleft().result()
            while flying:
                yield flying.popleft().result()
        finally:
            for future in flying:
                future.cancel()


def _round(task: RoundingTask, threads: int | None) -> RoundedLayer:
    started = time.perf_counter()
    output = task.factor_output
    square_input = task.factor_input.square
    square_output = None if output is None else output.square
    codes = round_adaptive(task.weight, task.grid, square_input, square_output, threads=threads)
    grid = task.grid
    codes = refine(task.weight, grid, codes, square_input, square_output, task.sweeps)
    for _ in range(task.turns):
        fitted = rescale(task.weight, grid, codes, square_input, square_output)
        if fitted is grid:
            break
        grid = fitted
        codes = refine(task.weight, grid, codes, square_input, square_output, 1)
    proxy = proxy_error(task.weight, grid.decode(codes), square_input, square_output)
    return RoundedLayer(task.name, codes, grid, proxy, time.perf_counter() - started)
