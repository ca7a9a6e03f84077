"""The tune stage: scales of the two-sided result; recipes whose codes and scales are equal are tuned once."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import torch
from transformers.pytorch_utils import Conv1D

from yaqa_runner.formats.container import QuantizedLinear
from yaqa_runner.grids.grid import FixedGrid
from yaqa_runner.grids.tunable import is_tunable
from yaqa_runner.machine.exhaustion import is_out_of_memory
from yaqa_runner.model.load import SourceModel
from yaqa_runner.model.swept_tuning import tune_by_sweeps
from yaqa_runner.monitor import Monitor
from yaqa_runner.pipeline.codes_file import keep_grid_in_file
from yaqa_runner.pipeline.round import RoundedJob
from yaqa_runner.pipeline.run_context import RunContext
from yaqa_runner.rounding.tune import TunedScales, TuningSteps, TuningTask, swept_steps, tune_scales, tuning_plan


def tune_recipes(*, context: RunContext, rounded: RoundedJob, tokens: torch.Tensor) -> None:
    """Add ``two-sided-tuned`` to every recipe of ``rounded`` that asks for it, by ``tokens`` ``[sequences, length]``.

    A tuning that runs out of memory even with one sequence a step, or whose KL is not finite, is warned of and left
    out: the gate then chooses among the others.

    Raises:
        Interrupted: a signal came.
    """
    passes = context.spec.tuning.passes
    groups: dict[str, list[str]] = {}
    if passes > 0:
        for canonical in (plan.recipe.canonical for plan in rounded.plans if plan.recipe.tune):
            linears = rounded.recipes[canonical].linears["two-sided"]
            # Scales that are powers of two can only double: the search has chosen them.
            if any(is_tunable(linear.grid) for linear in linears.values()):
                groups.setdefault(_digest(linears), []).append(canonical)
    if not groups:
        return
    steps = _steps(context, tokens)
    paths = {layer.name: layer.path for layer in context.source.linears}
    with context.monitor.stage("tune", "steps") as monitor:
        for number, (digest, recipes) in enumerate(groups.items()):
            linears = rounded.recipes[recipes[0]].linears["two-sided"]
            try:
                part = monitor.part(steps.count * number, steps.count * len(groups))
                tuned = _tuned(context, linears, tokens, steps, digest, part)
            except Exception as error:
                _warn_or_raise(error, recipes, monitor)
                continue
            for canonical in recipes:
                own = rounded.recipes[canonical].linears
                own["two-sided-tuned"] = _with_scales(own["two-sided"], tuned, paths)


def _steps(context: RunContext, tokens: torch.Tensor) -> TuningSteps:
    passes, seed = context.spec.tuning.passes, context.spec.calibration.seed
    if not context.source.weights.whole:
        return swept_steps(len(tokens), tokens.shape[1], passes, seed)
    return TuningSteps(*tuning_plan(len(tokens), tokens.shape[1], passes), seed=seed)


def _tuned(
    context: RunContext,
    linears: dict[str, QuantizedLinear],
    tokens: torch.Tensor,
    steps: TuningSteps,
    digest: str,
    monitor: Monitor,
) -> TunedScales:
    """The scales of ``linears``; by sweeps over the blocks of a model that is not there whole."""
    source = context.source
    tasks = _tasks(source, linears)
    if source.weights.whole:
        return tune_scales(source.model, tasks, tokens, steps, monitor=monitor)
    asked = hashlib.sha256(f"{digest} {steps}".encode() + tokens.numpy().tobytes()).hexdigest()
    folder = context.work / "tuning" / asked[:16]
    folder.mkdir(parents=True, exist_ok=True)

    def keep(parameter: str, grid: FixedGrid) -> FixedGrid:
        return keep_grid_in_file(grid.to("cpu"), folder / f"{parameter}.grid")

    return tune_by_sweeps(source.blockwise(), tasks, tokens, steps=steps, folder=folder, monitor=monitor, keep=keep)


def _tasks(source: SourceModel, linears: dict[str, QuantizedLinear]) -> list[TuningTask]:
    return [
        TuningTask(
            f"{layer.path}.weight",
            linears[layer.name].codes,
            linears[layer.name].grid,
            isinstance(layer.module, Conv1D),
            linears[layer.name].columns,
        )
        for layer in source.linears
        if layer.name in linears
    ]


def _warn_or_raise(error: Exception, recipes: list[str], monitor: Monitor) -> None:
    if isinstance(error, FloatingPointError):
        monitor.warn("not-tuned", f"{', '.join(recipes)}: scales are not tuned, as {error}.")
    elif is_out_of_memory(error):
        monitor.warn("not-tuned", f"{', '.join(recipes)}: scales are not tuned, as memory does not suffice for it.")
    else:
        raise error


def _with_scales(
    linears: dict[str, QuantizedLinear], tuned: TunedScales, paths: dict[str, str]
) -> dict[str, QuantizedLinear]:
    return {name: replace(linear, grid=tuned.grids[f"{paths[name]}.weight"]) for name, linear in linears.items()}


def _digest(linears: dict[str, QuantizedLinear]) -> str:
    """Equal where codes, and everything that the container stores beside them, are."""
    digest = hashlib.sha256()
    for name, linear in sorted(linears.items()):
        grid = linear.grid
        digest.update(f"{name} {grid.group} {grid.minimum} {grid.maximum} {list(linear.codes.shape)}".encode())
        digest.update(linear.codes.contiguous().numpy().tobytes())
        if grid.table is not None:
            digest.update(grid.table.cpu().numpy().tobytes())
        if grid.codebook is not None:
            digest.update(grid.codebook.name.encode())
        for key, value in sorted(grid.stored.items()):
            digest.update(f"{key} {value.dtype} {list(value.shape)}".encode())
            digest.update(value.contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()
