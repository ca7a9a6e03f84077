"""Rounds every linear for every recipe; grids that are equal are rounded once."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import torch

from yaqa_runner.formats import Container
from yaqa_runner.formats.container import QuantizedLinear
from yaqa_runner.grids.grid import FixedGrid
from yaqa_runner.machine.allocator import give_small_blocks_back
from yaqa_runner.model.linears import LinearLayer
from yaqa_runner.pipeline.codes_file import keep_in_file
from yaqa_runner.protocol.manifest import LayerEvidence, ProxyError, QuantizerName
from yaqa_runner.protocol.recipes import Recipe
from yaqa_runner.rounding.adaptive import round_nearest
from yaqa_runner.rounding.layers import RoundedLayer, RoundingTask, round_layers
from yaqa_runner.rounding.weighed_error import Metric, rounding_error
from yaqa_runner.sketch.regularize import RegularizedLayer, regularize, regularized_moment
from yaqa_runner.sketch.store import Sketch

ROUNDED: tuple[QuantizerName, ...] = ("rtn", "one-sided", "two-sided")
RESCALE_ITERATIONS = 2
"""Times that scales are fitted to the codes and the codes swept again, where a recipe refines at all."""
QUANTIZERS: tuple[QuantizerName, ...] = (*ROUNDED, "two-sided-tuned")


@dataclass(frozen=True)
class PlannedRecipe:
    """A recipe with its container and the names of the linears that the container can store."""

    recipe: Recipe
    container: Container
    linears: frozenset[str]


@dataclass
class RoundedRecipe:
    """Every quantizer's codes and grids of one recipe, and what is known of each linear."""

    linears: dict[QuantizerName, dict[str, QuantizedLinear]] = field(
        default_factory=lambda: {quantizer: {} for quantizer in ROUNDED}
    )
    evidence: list[LayerEvidence] = field(default_factory=list)

    @property
    def quantizers(self) -> tuple[QuantizerName, ...]:
        """What there is of this recipe, the simplest first."""
        return tuple(quantizer for quantizer in QUANTIZERS if quantizer in self.linears)


@dataclass(frozen=True)
class _Half:
    """One rounding of a job: the one-sided, or the two-sided that ends it."""

    job: int
    is_two_sided: bool


@dataclass
class _Job:
    """One linear on one grid with one number of sweeps, for all recipes that share it."""

    layer: LinearLayer
    grid: FixedGrid
    recipes: list[PlannedRecipe]
    weight: torch.Tensor
    factors: RegularizedLayer


def round_recipes(
    layers: list[LinearLayer],
    planned: list[PlannedRecipe],
    sketch: Sketch,
    sigma_input: float,
    sigma_output: float,
    workers: int,
    folder: Path,
    on_layer: Callable[[str, str, ProxyError], None],
    progress: Callable[[int, int], None],
    check: Callable[[], None],
    warn: Callable[[str, str], None],
) -> dict[str, RoundedRecipe]:
    """Codes of every linear for every recipe, by canonical name.

    Factors are loaded a layer at a time, those of one-sided rounding apart from the pair; weights are the model's own.
    Codes are kept in files in ``folder``, which is made, and emptied of an earlier call's.

    Raises:
        SketchUnreadable: the sketch lacks a linear.
        Interrupted: ``check`` raised it.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    results = {plan.recipe.canonical: RoundedRecipe() for plan in planned}
    jobs: dict[int, _Job] = {}
    total = sum(len(plan.linears) for plan in planned)
    done = 0
    numbers = count()

    def tasks() -> Iterator[RoundingTask[_Half]]:
        for layer in layers:
            check()
            yield from tasks_of(layer)

    # What a generator or a loop still names while the next layer is prepared stays in memory: hence a function each.
    def tasks_of(layer: LinearLayer) -> Iterator[RoundingTask[_Half]]:
        own = {next(numbers): job for job in _jobs_of(layer, planned, sketch, sigma_input, sigma_output, warn)}
        if not own:
            return
        jobs.update(own)
        moment = regularized_moment(sketch.factors(layer.name), sigma_input, layer.stored_weight().device)
        for number, job in own.items():
            yield RoundingTask(_Half(number, is_two_sided=False), job.weight, job.grid, moment, None)
        del moment
        for number, job in own.items():
            sweeps = job.recipes[0].recipe.refine_sweeps
            rescale_iterations = RESCALE_ITERATIONS if sweeps > 0 else 0
            pair = job.factors.input, job.factors.output
            yield RoundingTask(
                _Half(number, is_two_sided=True), job.weight, job.grid, *pair, sweeps, rescale_iterations
            )

    one_sided: dict[int, RoundedLayer[_Half]] = {}

    def finish(number: int, two_sided: RoundedLayer[_Half]) -> int:
        job = jobs.pop(number)
        errors = _collect(job, one_sided.pop(number), two_sided, folder / str(number), results)
        for plan in job.recipes:
            _record(job, plan, errors, sketch, results[plan.recipe.canonical])
            on_layer(job.layer.name, plan.recipe.canonical, errors)
        give_small_blocks_back(job.weight.numel())
        return len(job.recipes)

    for rounded in round_layers(tasks(), workers):
        check()
        if rounded.key.is_two_sided:
            done += finish(rounded.key.job, rounded)
            progress(done, total)
        else:
            one_sided[rounded.key.job] = rounded
        del rounded
    return results


def _jobs_of(
    layer: LinearLayer,
    planned: list[PlannedRecipe],
    sketch: Sketch,
    sigma_input: float,
    sigma_output: float,
    warn: Callable[[str, str], None],
) -> list[_Job]:
    wanted = [plan for plan in planned if layer.name in plan.linears]
    if not wanted:
        return []
    weight = layer.stored_weight()
    factors = regularize(sketch.factors(layer.name), sigma_input, sigma_output, weight.device)
    if factors.reason is not None:
        warn("factor-fallback", f"{layer.name}: {factors.reason}")
    shared: dict[tuple[str, int], _Job] = {}
    for plan in wanted:
        grid = plan.container.grid(layer.name)
        fixed = grid.fit(weight, factors.input.diagonal)
        place = (_digest(fixed.to("cpu")), plan.recipe.refine_sweeps)
        if place in shared:
            shared[place].recipes.append(plan)
        else:
            shared[place] = _Job(layer, fixed, [plan], weight, factors)
    give_small_blocks_back(weight.numel())
    return list(shared.values())


def _digest(grid: FixedGrid) -> str:
    """Equal where the grids' values are, and what the container stores of them."""
    digest = hashlib.sha256(f"{grid.group} {grid.minimum} {grid.maximum} {list(grid.scale.shape)}".encode())
    digest.update(grid.scale.contiguous().numpy().tobytes())
    digest.update(grid.offset.contiguous().numpy().tobytes())
    for key, value in sorted(grid.stored.items()):
        digest.update(f"{key} {value.dtype} {list(value.shape)}".encode())
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _collect(
    job: _Job,
    one_sided: RoundedLayer[_Half],
    two_sided: RoundedLayer[_Half],
    prefix: Path,
    results: dict[str, RoundedRecipe],
) -> ProxyError:
    output = None if job.factors.output is None else job.factors.output.symmetric
    metric = Metric(job.factors.input.symmetric, output)

    def keep(quantizer: QuantizerName, codes: torch.Tensor, grid: FixedGrid, proxy: float | None = None) -> float:
        """The proxy error, in nats."""
        if proxy is None:
            proxy = metric.square(rounding_error(job.weight, grid.to(job.weight.device), codes))
        kept = keep_in_file(codes.cpu(), prefix.with_name(f"{prefix.name}-{quantizer}.codes"))
        for plan in job.recipes:
            results[plan.recipe.canonical].linears[quantizer][job.layer.name] = QuantizedLinear(
                job.layer.name,
                kept,
                grid.to("cpu"),
                plan.container.grid(job.layer.name).type_of(job.layer.rows, job.layer.columns),
            )
        return max(0.0, proxy * job.factors.scale)

    return ProxyError(
        two_sided=keep("two-sided", two_sided.codes, two_sided.grid, two_sided.proxy),
        one_sided=keep("one-sided", one_sided.codes, one_sided.grid),
        rtn=keep("rtn", round_nearest(job.weight, job.grid), job.grid),
    )


def _record(job: _Job, plan: PlannedRecipe, errors: ProxyError, sketch: Sketch, result: RoundedRecipe) -> None:
    known = sketch.layers[job.layer.name]
    result.evidence.append(
        LayerEvidence(
            name=job.layer.name,
            shape=(job.layer.rows, job.layer.columns),
            type=plan.container.grid(job.layer.name).type_of(job.layer.rows, job.layer.columns),
            proxy_error=errors,
            effective_rank_output=known.effective_rank_output,
            effective_rank_input=known.effective_rank_input,
            cosine_similarity=known.cosine_similarity,
            sigma_input=job.factors.input.sigma,
            sigma_output=0.0 if job.factors.output is None else job.factors.output.sigma,
        )
    )
