"""Tunes the scales of the two-sided result; recipes whose codes and scales are equal are tuned once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

import torch
from transformers.pytorch_utils import Conv1D

from yaqa_runner.formats.container import QuantizedLinear
from yaqa_runner.machine.exhaustion import is_out_of_memory
from yaqa_runner.model.load import SourceModel
from yaqa_runner.monitor import Monitor
from yaqa_runner.pipeline.rounding_stage import PlannedRecipe, RoundedRecipe
from yaqa_runner.rounding.tune import TuningTask, tune_scales, tuning_plan


def tune_recipes(
    source: SourceModel,
    planned: list[PlannedRecipe],
    rounded: dict[str, RoundedRecipe],
    tokens: torch.Tensor,
    passes: int,
    seed: int,
    progress: Callable[[float, float], None],
    check: Callable[[], None],
    warn: Callable[[str, str], None],
) -> None:
    """Add ``two-sided-tuned`` to every recipe that asks for it.

    A tuning that runs out of memory even with one sequence a step, or whose KL is not finite, is told of and left
    out: the gate then chooses among the others.

    Args:
        source: The original model.
        planned: The recipes in order.
        rounded: What was rounded, by canonical name; changed in place.
        tokens: Calibration sequences ``[sequences, length]``.
        passes: Over ``tokens``.
        seed: Order of the sequences.
        progress: Called with steps done and steps in all.
        check: May raise to stop.
        warn: Told of what was left out, with a code.

    Raises:
        Interrupted: ``check`` raised it.
    """
    groups: dict[str, list[str]] = {}
    for plan in planned:
        if plan.recipe.tune:
            canonical = plan.recipe.canonical
            groups.setdefault(_digest(rounded[canonical].linears["two-sided"]), []).append(canonical)
    paths = {layer.name: layer.path for layer in source.linears}
    steps, batch = tuning_plan(len(tokens), tokens.shape[1], passes)
    total = steps * len(groups)
    for number, recipes in enumerate(groups.values()):
        linears = rounded[recipes[0]].linears["two-sided"]
        tasks = [
            TuningTask(
                f"{layer.path}.weight",
                linears[layer.name].codes,
                linears[layer.name].grid,
                _is_transposed(layer.module),
            )
            for layer in source.linears
            if layer.name in linears
        ]
        base = steps * number

        try:
            tuned = tune_scales(
                source.model,
                tasks,
                tokens,
                steps=steps,
                batch=batch,
                seed=seed,
                monitor=Monitor(progress, check, warn).part(base, total),
            )
        except FloatingPointError as error:
            warn("not-tuned", f"{', '.join(recipes)}: scales are not tuned, as {error}.")
            continue
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            warn("not-tuned", f"{', '.join(recipes)}: scales are not tuned, as memory does not suffice for it.")
            continue
        for canonical in recipes:
            own = rounded[canonical].linears
            own["two-sided-tuned"] = {
                name: replace(linear, grid=tuned.grids[f"{paths[name]}.weight"])
                for name, linear in own["two-sided"].items()
            }


def _is_transposed(module: torch.nn.Module) -> bool:
    return isinstance(module, Conv1D)


def _digest(linears: dict[str, QuantizedLinear]) -> str:
    """Equal where codes, and everything that the container stores beside them, are."""
    digest = hashlib.sha256()
    for name, linear in sorted(linears.items()):
        grid = linear.grid
        digest.update(f"{name} {grid.group} {grid.minimum} {grid.maximum} {list(linear.codes.shape)}".encode())
        digest.update(linear.codes.contiguous().numpy().tobytes())
        for key, value in sorted(grid.stored.items()):
            digest.update(f"{key} {value.dtype} {list(value.shape)}".encode())
            digest.update(value.contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()
