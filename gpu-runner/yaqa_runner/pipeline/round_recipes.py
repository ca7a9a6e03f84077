"""Rounds every linear for every recipe; grids that are equal are rounded once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from yaqa_runner.formats.container import QuantizedLinear
from yaqa_runner.grids.grid import FixedGrid
from yaqa_runner.machine.allocator import give_small_blocks_back
from yaqa_runner.model.linears import LinearLayer
from yaqa_runner.monitor import SILENT, Monitor
from yaqa_runner.pipeline.codes_file import (
    GridDescription,
    codes_in_file,
    describe_grid,
    grid_in_file,
    keep_grid_in_file,
    keep_in_file,
)
from yaqa_runner.pipeline.planned_recipe import PlannedRecipe
from yaqa_runner.pipeline.rounded_layers import FinishedJob, FinishedLayer, RoundedLayers, rounding_key
from yaqa_runner.pipeline.rounded_recipe import RoundedRecipe
from yaqa_runner.protocol.manifest import (
    HeldOutLoss,
    LayerEvidence,
    ProxyError,
    QuantizerName,
    TokenConcentration,
)
from yaqa_runner.rounding.adaptive import round_nearest
from yaqa_runner.rounding.layers import RoundedLayer, RoundingTask, round_layers
from yaqa_runner.rounding.memory import gpu_bytes
from yaqa_runner.rounding.settings import RoundingSettings
from yaqa_runner.rounding.weighed_error import Metric, rounding_error
from yaqa_runner.sketches.evidence import Concentration
from yaqa_runner.sketches.regularize import RegularizedLayer, regularize, regularized_moment
from yaqa_runner.sketches.store import LayerFactors, Sketch, SketchTrust

CAUTION = 8.0
"""How much more the factors of ``two-sided-cautious`` are damped than the settings or held-out tokens say."""
RESCALE_ITERATIONS = 2
"""Times that scales are fitted to the codes and the codes swept again, where a recipe refines at all."""

# Of one linear, on grids and in orders of its inputs that differ: no job has nearly as many recipes.
_JOBS_A_LAYER = 1024

LayerReport = Callable[[str, str, ProxyError], None]
"""Called with a linear, a recipe's canonical name, and the proxy errors of its quantizers."""


@dataclass(frozen=True)
class RecipeRounder:
    """Rounds linears for any number of recipes.

    Attributes:
        layers: The model's linears; weights are the model's own.
        sketch: Their factors.
        settings: Damping, and layers in flight.
        folder: Codes are kept in files here; it is made, and emptied of those of another rounding.
        monitor: Progress in linears of recipes.
    """

    layers: list[LinearLayer]
    sketch: Sketch
    settings: RoundingSettings
    folder: Path
    monitor: Monitor = SILENT

    def round(
        self, plans: list[PlannedRecipe], report: LayerReport = lambda name, recipe, errors: None
    ) -> dict[str, RoundedRecipe]:
        """Codes of every linear for every one of ``plans``, by canonical name.

        Factors are loaded a layer at a time, those of one-sided rounding apart from the pair. Linears that an
        interrupted call has finished are taken up from their files.

        Raises:
            SketchUnreadable: the sketch lacks a linear.
            Interrupted: ``monitor.check`` raised it.
        """
        records = RoundedLayers(self.folder, rounding_key(plans, self.layers, self.sketch, self.settings))
        results = {plan.recipe.canonical: RoundedRecipe() for plan in plans}
        total = sum(len(plan.linears) for plan in plans)
        done = 0
        jobs: dict[int, _Job] = {}
        finished = [records.finished(place, layer.name) for place, layer in enumerate(self.layers)]
        made: dict[int, list[FinishedJob]] = {}
        for place, known in enumerate(finished):
            for job in known.jobs if known is not None else []:
                done += self._give(self.layers[place], plans, job, results, report)
        for rounded in round_layers(self._tasks(plans, jobs, finished), self.settings.workers):
            self.monitor.check()
            part = rounded.key
            jobs[part.job].rounded[part.quantizer] = rounded
            # Its codes are in a file soon; the name would keep them until the next layer is done.
            del rounded
            if part.quantizer == "two-sided":
                place = part.job // _JOBS_A_LAYER
                layer, siblings = self.layers[place], jobs[part.job].siblings
                made.setdefault(place, []).append(self._keep(part.job, jobs.pop(part.job)))
                if len(made[place]) == siblings:
                    records.keep(place, FinishedLayer(name=layer.name, jobs=made[place]))
                done += self._give(layer, plans, made[place][-1], results, report)
                self.monitor.progress(done, total)
        # Whatever was taken up came first.
        order = {layer.name: place for place, layer in enumerate(self.layers)}
        for result in results.values():
            result.evidence.sort(key=lambda evidence: order[evidence.name])
            for quantizer, linears in result.linears.items():
                result.linears[quantizer] = {name: linears[name] for name in sorted(linears, key=order.__getitem__)}
        return results

    def _tasks(
        self, plans: list[PlannedRecipe], jobs: dict[int, _Job], finished: list[FinishedLayer | None]
    ) -> Iterator[RoundingTask[_Part]]:
        for place, layer in enumerate(self.layers):
            if finished[place] is None:
                self.monitor.check()
                yield from self._tasks_of(place, layer, plans, jobs)

    # What a generator or a loop still names while the next layer is prepared stays in memory. Hence a function each.
    def _tasks_of(
        self, place: int, layer: LinearLayer, plans: list[PlannedRecipe], jobs: dict[int, _Job]
    ) -> Iterator[RoundingTask[_Part]]:
        own = {place * _JOBS_A_LAYER + number: job for number, job in enumerate(self._jobs_of(layer, plans))}
        if not own:
            return
        for job in own.values():
            job.siblings = len(own)
        jobs.update(own)
        settings, device = self.settings, next(iter(own.values())).weight.device
        for columns in _distinct([job.columns for job in own.values()]):
            stored = self._factors(layer, columns)
            same = {number: job for number, job in own.items() if job.columns is columns}
            moment = regularized_moment(stored, settings.sigma_input, device)
            for number, job in same.items():
                yield RoundingTask(_Part(number, "one-sided"), job.weight, job.grid, moment, None)
            del moment
            cautious = regularize(stored, settings.sigma_input, settings.sigma_output, device, CAUTION)
            for number, job in same.items():
                yield _two_sided(_Part(number, "two-sided-cautious"), job, cautious)
            del cautious
        for number, job in own.items():
            yield _two_sided(_Part(number, "two-sided"), job, job.factors)

    def _jobs_of(self, layer: LinearLayer, plans: list[PlannedRecipe]) -> list[_Job]:
        wanted = [plan for plan in plans if layer.name in plan.linears]
        if not wanted:
            return []
        jobs: list[_Job] = []
        orders = _distinct([plan.columns.get(layer.name) for plan in wanted])
        for columns in orders:
            same = [plan for plan in wanted if _same_order(plan.columns.get(layer.name), columns)]
            jobs.extend(self._jobs_in_order(layer, same, columns, warn=columns is orders[0]))
        return jobs

    def _jobs_in_order(
        self, layer: LinearLayer, plans: list[PlannedRecipe], columns: torch.Tensor | None, *, warn: bool
    ) -> list[_Job]:
        weight = self._weight(layer)
        if columns is not None:
            weight = weight[:, columns.to(weight.device)]
        settings = self.settings
        stored = self._factors(layer, columns)
        factors = regularize(stored, settings.sigma_input, settings.sigma_output, weight.device)
        if factors.reason is not None and warn:
            self.monitor.warn("factor-fallback", f"{layer.name}: {factors.reason}")
        shared: dict[tuple[str, int], _Job] = {}
        for plan in plans:
            grid = plan.container.grid(layer.name).fit(weight, factors.input.diagonal)
            place = (_digest(grid.to("cpu")), plan.recipe.refine_sweeps)
            if place in shared:
                shared[place].recipes.append(plan)
            else:
                shared[place] = _Job(layer, grid, weight, factors, columns, [plan])
        give_small_blocks_back(weight.numel())
        return list(shared.values())

    def _weight(self, layer: LinearLayer) -> torch.Tensor:
        """``[out, in]``, where the linear is rounded."""
        weight, limit = layer.stored_weight(), self.settings.gpu_bytes
        return weight if limit is None or gpu_bytes(layer.rows, layer.columns) <= limit else weight.cpu()

    def _factors(self, layer: LinearLayer, columns: torch.Tensor | None) -> LayerFactors:
        """The linear's factors with its inputs in the order of ``columns``."""
        found = self.sketch.factors(layer.name)
        return found if columns is None else found.with_inputs_in(columns)

    def _give(
        self,
        layer: LinearLayer,
        plans: list[PlannedRecipe],
        job: FinishedJob,
        results: dict[str, RoundedRecipe],
        report: LayerReport,
    ) -> int:
        """Hand a job's codes, from their files, to all recipes that share it; how many these are."""
        sharing = [plan for plan in plans if plan.recipe.canonical in job.recipes]
        for quantizer, known in job.grids.items():
            codes = codes_in_file(self._codes_file(job.number, quantizer), (layer.rows, layer.columns))
            grid = grid_in_file(self._grid_file(job.number, quantizer), known)
            for plan in sharing:
                results[plan.recipe.canonical].linears[quantizer][layer.name] = QuantizedLinear(
                    layer.name, codes, grid, _type_of(plan, layer), plan.columns.get(layer.name)
                )
        for plan in sharing:
            canonical = plan.recipe.canonical
            results[canonical].evidence.append(self._evidence(layer, plan, job))
            report(layer.name, canonical, job.errors)
        return len(sharing)

    def _codes_file(self, number: int, quantizer: QuantizerName) -> Path:
        return self.folder / f"{number}-{quantizer}.codes"

    def _grid_file(self, number: int, quantizer: QuantizerName) -> Path:
        return self.folder / f"{number}-{quantizer}.grid"

    def _keep(self, number: int, job: _Job) -> FinishedJob:
        """Move all rounded results and the nearest codes to files."""
        factors = job.factors
        metric = Metric(factors.input.symmetric, None if factors.output is None else factors.output.symmetric)
        grids: dict[QuantizerName, GridDescription] = {}

        def keep(quantizer: QuantizerName, codes: torch.Tensor, grid: FixedGrid, proxy: float | None = None) -> float:
            """The proxy error, in nats, of ``codes`` ``[out, in]``."""
            if proxy is None:
                proxy = metric.square(rounding_error(job.weight, grid.to(job.weight.device), codes))
            on_host = grid.to("cpu")
            keep_in_file(codes.cpu(), self._codes_file(number, quantizer))
            keep_grid_in_file(on_host, self._grid_file(number, quantizer))
            grids[quantizer] = describe_grid(on_host)
            return max(0.0, proxy * factors.scale)

        two_sided, one_sided, cautious = (
            job.rounded.pop(name) for name in ("two-sided", "one-sided", "two-sided-cautious")
        )
        keep("two-sided-cautious", cautious.codes, cautious.grid)
        errors = ProxyError(
            two_sided=keep("two-sided", two_sided.codes, two_sided.grid, two_sided.proxy),
            one_sided=keep("one-sided", one_sided.codes, one_sided.grid),
            rtn=keep("rtn", round_nearest(job.weight, job.grid), job.grid),
        )
        # What a step leaves is handed back once its own names are gone.
        give_small_blocks_back(job.weight.numel())
        return FinishedJob(
            number=number,
            recipes=[plan.recipe.canonical for plan in job.recipes],
            errors=errors,
            sigma_input=factors.input.sigma,
            sigma_output=0.0 if factors.output is None else factors.output.sigma,
            grids=grids,
        )

    def _evidence(self, layer: LinearLayer, plan: PlannedRecipe, job: FinishedJob) -> LayerEvidence:
        known = self.sketch.layers[layer.name]
        return LayerEvidence(
            name=layer.name,
            shape=(layer.rows, layer.columns),
            type=_type_of(plan, layer),
            proxy_error=job.errors,
            effective_rank_output=known.effective_rank_output,
            effective_rank_input=known.effective_rank_input,
            cosine_similarity=known.cosine_similarity,
            sigma_input=job.sigma_input,
            sigma_output=job.sigma_output,
            concentration_input=_concentration(known.concentration_input),
            concentration_output=_concentration(known.concentration_output),
            held_out=_held_out(known.trust),
        )


@dataclass(frozen=True)
class _Part:
    """One rounding of a job; ``two-sided`` comes last and ends it."""

    job: int
    quantizer: QuantizerName


@dataclass
class _Job:
    """One linear on one grid with one number of sweeps, for all recipes that share it.

    Grid, weight and factors have the linear's inputs in the order of ``columns``.
    """

    layer: LinearLayer
    grid: FixedGrid
    weight: torch.Tensor
    factors: RegularizedLayer
    columns: torch.Tensor | None
    recipes: list[PlannedRecipe] = field(default_factory=list)
    rounded: dict[QuantizerName, RoundedLayer[_Part]] = field(default_factory=dict)
    siblings: int = 1


def _two_sided(part: _Part, job: _Job, factors: RegularizedLayer) -> RoundingTask[_Part]:
    sweeps = job.recipes[0].recipe.refine_sweeps
    iterations = RESCALE_ITERATIONS if sweeps > 0 else 0
    return RoundingTask(part, job.weight, job.grid, factors.input, factors.output, sweeps, iterations)


def _concentration(known: Concentration | None) -> TokenConcentration | None:
    return None if known is None else TokenConcentration(**known.model_dump())


def _held_out(trust: SketchTrust | None) -> HeldOutLoss | None:
    if trust is None:
        return None
    return HeldOutLoss(predicted_loss=trust.predicted_loss, standard_error=trust.standard_error, tokens=trust.tokens)


def _distinct(orders: list[torch.Tensor | None]) -> list[torch.Tensor | None]:
    """``orders`` without those that are like an earlier one."""
    found: list[torch.Tensor | None] = []
    for order in orders:
        if not any(_same_order(order, other) for other in found):
            found.append(order)
    return found


def _same_order(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    return one is other if one is None or other is None else torch.equal(one, other)


def _type_of(plan: PlannedRecipe, layer: LinearLayer) -> str:
    return plan.container.grid(layer.name).type_of(layer.rows, layer.columns)


def _digest(grid: FixedGrid) -> str:
    """Equal where the grids' values are, and what the container stores of them."""
    digest = hashlib.sha256(f"{grid.group} {grid.minimum} {grid.maximum} {list(grid.scale.shape)}".encode())
    digest.update(grid.scale.contiguous().numpy().tobytes())
    digest.update(grid.offset.contiguous().numpy().tobytes())
    if grid.table is not None:
        digest.update(grid.table.numpy().tobytes())
    if grid.codebook is not None:
        digest.update(grid.codebook.name.encode())
    for key, value in sorted(grid.stored.items()):
        digest.update(f"{key} {value.dtype} {list(value.shape)}".encode())
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()
