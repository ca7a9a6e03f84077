"""Rounding many layers at once: they do not depend on one another once the sketches exist."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from typing import Generic, TypeVar

import torch

from yaqa_runner.grids.grid import FixedGrid
from yaqa_runner.machine.allocator import give_large_blocks_back, give_small_blocks_back
from yaqa_runner.machine.cores import available_cores
from yaqa_runner.rounding.adaptive import round_adaptive
from yaqa_runner.rounding.linalg.factor import PreparedFactor, SymmetricUpper
from yaqa_runner.rounding.refine import refine, refine_sub_scales
from yaqa_runner.rounding.rescale import rescale
from yaqa_runner.rounding.weighed_error import Metric, rounding_error
from yaqa_runner.rounding.workers import single_core_workers

Key = TypeVar("Key")


@dataclass(frozen=True)
class RoundingTask(Generic[Key]):
    """A layer to round.

    Attributes:
        key: What the caller knows it by.
        weight: ``[out, in]``.
        grid: Frozen grid.
        factor_input: ``H_I``, ready.
        factor_output: ``H_O``, ready; ``None`` rounds one-sided.
        sweeps: Most sweeps of refinement; 0 for none.
        rescale_iterations: After refinement, times that scales are fitted to the codes and the codes swept again.
    """

    key: Key
    weight: torch.Tensor
    grid: FixedGrid
    factor_input: PreparedFactor
    factor_output: PreparedFactor | None
    sweeps: int = 0
    rescale_iterations: int = 0


@dataclass(frozen=True)
class RoundedLayer(Generic[Key]):
    """A rounded layer.

    Attributes:
        key: The task's.
        codes: ``[out, in]`` int16.
        grid: What the codes index: the task's grid, or the one that ``rescale_iterations`` made of it.
        proxy: ``tr(H_O E H_I Eᵀ)`` under the prepared factors (mean diagonal 1, ``sigma`` included).
        seconds: Wall-clock of this layer.
    """

    key: Key
    codes: torch.Tensor
    grid: FixedGrid
    proxy: float
    seconds: float


def round_layers(tasks: Iterable[RoundingTask[Key]], workers: int | None = None) -> Iterator[RoundedLayer[Key]]:
    """Round every task and yield in their order.

    ``tasks`` is read only as far as there are free workers, one further at most, so that a generator which loads
    weights and factors keeps no more than ``workers + 1`` layers in memory. Closing the iterator drops what has not
    started.

    On CUDA every worker has a stream of its own; codes and grids come back to the host.

    Args:
        tasks: What to round; may be a generator.
        workers: Layers in flight; the cores of the machine when ``None``. One layer alone uses all cores itself.

    Raises:
        ValueError: ``workers`` is less than 1, or a task's shapes or values do not fit.
    """
    count = available_cores() if workers is None else workers
    if count < 1:
        raise ValueError(f"at least one layer must be in flight, not {workers}")
    give_large_blocks_back()
    if count == 1:
        # Neither this nor the next task's maker may hold on to a task that is done: its factors are most of the memory.
        waiting = iter(tasks)
        while (task := next(waiting, None)) is not None:
            rounded = _round(task, None, _work_so_far(task))
            del task
            yield rounded
            del rounded
        return
    with single_core_workers(count) as pool:
        flying: deque[Future[RoundedLayer[Key]]] = deque()
        try:
            waiting = iter(tasks)
            while (task := next(waiting, None)) is not None:
                flying.append(pool.submit(_round, task, 1, _work_so_far(task)))
                del task
                if len(flying) > count:
                    yield flying.popleft().result()
            while flying:
                yield flying.popleft().result()
        finally:
            for future in flying:
                future.cancel()


def _work_so_far(task: RoundingTask[Key]) -> torch.cuda.Event | None:
    """What this thread has asked of the GPU until now, the making of ``task`` at the end of it."""
    if not task.weight.is_cuda:
        return None
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(task.weight.device))
    return event


def _round(task: RoundingTask[Key], threads: int | None, made: torch.cuda.Event | None) -> RoundedLayer[Key]:
    started = time.perf_counter()
    if made is None:
        return replace(_rounded(task, threads), seconds=time.perf_counter() - started)
    # Kernels of one stream wait for each other; the layers in flight do not.
    stream = _stream_of_this_thread(task.weight.device)
    stream.wait_event(made)
    with torch.cuda.stream(stream):
        rounded = _rounded(task, threads)
        # Copying waits for the stream, so nothing is freed that it still reads.
        codes, grid = rounded.codes.cpu(), rounded.grid.to("cpu")
    return replace(rounded, codes=codes, grid=grid, seconds=time.perf_counter() - started)


_streams = threading.local()


def _stream_of_this_thread(device: torch.device) -> torch.cuda.Stream:
    # One a thread and not one a layer: the allocator keeps what a stream has freed for that stream.
    known: dict[torch.device, torch.cuda.Stream] = _streams.__dict__.setdefault("by_device", {})
    if device not in known:
        known[device] = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return known[device]


def _rounded(task: RoundingTask[Key], threads: int | None) -> RoundedLayer[Key]:
    output = task.factor_output
    lower_output = None if output is None else output.unit_lower
    metric_input = task.factor_input.symmetric
    metric_output = None if output is None else output.symmetric
    tidy = partial(give_small_blocks_back, task.weight.numel())
    codes = round_adaptive(
        task.weight,
        task.grid,
        task.factor_input.unit_lower,
        lower_output,
        pivots_input=task.factor_input.pivots,
        threads=threads,
    )
    tidy()
    grid = task.grid
    descend = _descent(task.weight, metric_input, metric_output)
    codes = descend(grid, codes, task.sweeps)
    tidy()
    for _ in range(task.rescale_iterations):
        fitted = rescale(task.weight, grid, codes, metric_input, metric_output)
        tidy()
        if fitted is grid:
            break
        grid, codes = refine_sub_scales(task.weight, fitted, codes, metric_input, metric_output)
        codes = descend(grid, codes, 1)
        tidy()
    del descend
    proxy = Metric(metric_input, metric_output).square(rounding_error(task.weight, grid, codes))
    tidy()
    return RoundedLayer(task.key, codes, grid, proxy, 0.0)


def _descent(
    weight: torch.Tensor, hessian_input: SymmetricUpper, hessian_output: SymmetricUpper | None
) -> Callable[[FixedGrid, torch.Tensor, int], torch.Tensor]:
    """``refine`` on this layer, of a grid, codes and a number of sweeps; 0 of them prepare nothing."""
    on_cuda: Callable[[FixedGrid, torch.Tensor, int], torch.Tensor] | None = None

    def descend(grid: FixedGrid, codes: torch.Tensor, sweeps: int) -> torch.Tensor:
        nonlocal on_cuda
        if sweeps == 0 or not weight.is_cuda or grid.table is not None:
            return refine(weight, grid, codes, hessian_input, hessian_output, sweeps)
        if on_cuda is None:
            # Imported here: Triton is installed where CUDA is, and nowhere else.
            from yaqa_runner.rounding.kernels.triton_refine import CudaRefinement

            on_cuda = CudaRefinement(weight, hessian_input, hessian_output)
        return on_cuda(grid, codes, sweeps)

    return descend
