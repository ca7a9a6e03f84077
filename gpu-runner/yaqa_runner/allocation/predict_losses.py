"""The loss that each linear is predicted to have as each type: ½ tr(H_O E H_I Eᵀ) of its two-sided rounding."""

from __future__ import annotations

from collections.abc import Iterator

from yaqa_runner.allocation.budget import LinearBudget, candidate_types
from yaqa_runner.allocation.choose_types import TypeOption
from yaqa_runner.grids.fit_rows import fit_rows
from yaqa_runner.grids.gguf import gguf_grid
from yaqa_runner.model.linears import LinearLayer
from yaqa_runner.monitor import Monitor
from yaqa_runner.rounding.layers import RoundingTask, round_layers
from yaqa_runner.rounding.settings import RoundingSettings
from yaqa_runner.sketches.regularize import regularize
from yaqa_runner.sketches.store import Sketch


def predict_losses(
    *,
    layers: list[LinearLayer],
    budget: LinearBudget,
    sketch: Sketch,
    settings: RoundingSettings,
    monitor: Monitor,
) -> dict[str, list[TypeOption]]:
    """For every linear its candidate types, each with its bytes and its predicted KL in nats a token.

    Every linear is rounded two-sided, unrefined, to each candidate type.

    Raises:
        SketchUnreadable: the sketch lacks a linear.
        Interrupted: ``monitor.check`` raised it.
    """
    by_name = {layer.name: layer for layer in layers}
    types = {layer.name: candidate_types(layer) for layer in layers}
    scales: dict[str, float] = {}
    options: dict[str, list[TypeOption]] = {layer.name: [] for layer in layers}

    def tasks() -> Iterator[RoundingTask[tuple[str, str]]]:
        for layer in layers:
            monitor.check()
            yield from tasks_of(layer)

    # What a generator still names while the next layer's factors are prepared stays in memory. Hence a function apart.
    def tasks_of(layer: LinearLayer) -> Iterator[RoundingTask[tuple[str, str]]]:
        weight = layer.stored_weight()  # [out, in]
        factors = regularize(sketch.factors(layer.name), settings.sigma_input, settings.sigma_output, weight.device)
        scales[layer.name] = factors.scale
        for type_name in types[layer.name]:
            grid = fit_rows(gguf_grid(type_name), weight, factors.input.diagonal)
            yield RoundingTask((layer.name, type_name), weight, grid, factors.input, factors.output)

    total = sum(map(len, types.values()))
    for done, rounded in enumerate(round_layers(tasks(), settings.workers), start=1):
        monitor.check()
        name, type_name = rounded.key
        loss = max(0.0, rounded.proxy * scales[name] / 2)
        options[name].append(TypeOption(type_name, budget.size_of(by_name[name], type_name), loss))
        monitor.progress(done, total)
    return options
