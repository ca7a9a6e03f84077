"""Takes a sketch: passes over the calibration set, the power iteration of every linear, checkpoints."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from yaqa_runner.calibration.tokens import TokenSet
from yaqa_runner.model.linears import LinearLayer
from yaqa_runner.model.load import SourceModel
from yaqa_runner.protocol.failures import is_out_of_memory
from yaqa_runner.sketch.capture import visit_gradients, visit_inputs
from yaqa_runner.sketch.evidence import COSINE_BYTES, cosine_sequences, effective_rank, estimate_cosine
from yaqa_runner.sketch.iteration import IterationA, IterationB, add_input_moment
from yaqa_runner.sketch.memory import plan_memory
from yaqa_runner.sketch.settings import SketchSettings, sketch_key
from yaqa_runner.sketch.store import FreshLayer, Sketch, SketchedLayer, SketchWriter, block_file

logger = logging.getLogger(__name__)

Pair = tuple[torch.Tensor, torch.Tensor]
"""Inputs ``[b, T, in]`` and output gradients ``[b, T, out]`` of one linear in one batch."""


@dataclass
class SketchRun:
    """What every part of taking a sketch needs."""

    source: SourceModel
    tokens: TokenSet
    settings: SketchSettings
    writer: SketchWriter
    leaders: dict[str, str]
    batch: int
    progress: Callable[[float, float], None]
    check: Callable[[], None]
    warn: Callable[[str, str], None]
    total: float
    done: float = 0.0

    def advance(self, amount: float) -> None:
        """Report ``amount`` more sequences' worth of work."""
        self.done = min(self.total, self.done + amount)
        self.progress(self.done, self.total)


def compute_sketch(
    source: SourceModel,
    source_sha256: str,
    tokens: TokenSet,
    settings: SketchSettings,
    directory: Path,
    budget: int,
    progress: Callable[[float, float], None],
    check: Callable[[], None],
    warn: Callable[[str, str], None],
) -> Sketch:
    """Take the sketch of every linear of ``source`` on ``tokens`` and store it at ``directory``.

    Finished blocks and, when streaming, finished half steps are kept beside ``directory`` and taken up again by the
    next call with the same fingerprint.

    Raises:
        Interrupted: ``check`` raised it; what is finished stays.
        RuntimeError: memory ran out with a batch of one.
    """
    key = sketch_key(source_sha256, tokens.sha256, settings)
    plan = plan_memory(source.linears, tokens.sequences, tokens.length, settings, budget, source.device)
    logger.info("%s", plan.describe())
    factor = 2 if plan.mode == "cached" else 1
    run = SketchRun(
        source=source,
        tokens=tokens,
        settings=settings,
        writer=SketchWriter(directory, key),
        leaders=find_input_groups(source, tokens.tokens[:1]),
        batch=plan.batch,
        progress=progress,
        check=check,
        warn=warn,
        total=float(plan.passes * tokens.sequences * factor),
    )
    for number, window in enumerate(plan.windows):
        blocks = sorted({layer.block for layer in window})
        if all(run.writer.has_block(block) for block in blocks):
            run.advance(run.total / len(plan.windows))
        elif plan.mode == "cached":
            _cached_window(run, list(window))
        else:
            _streaming_window(run, list(window), number)
    return run.writer.finish(settings, source_sha256, tokens, sorted({layer.block for layer in source.linears}))


def find_input_groups(source: SourceModel, tokens: torch.Tensor) -> dict[str, str]:
    """For every linear the first one in its block that has the very same input (q/k/v; gate/up), itself included."""
    first: dict[tuple[int, int, tuple[int, ...]], str] = {}
    leaders: dict[str, str] = {}
    # Holding the inputs keeps their addresses from being used twice.
    held: list[torch.Tensor] = []

    def visit(layer: LinearLayer, values: torch.Tensor) -> None:
        held.append(values)
        place = (layer.block, values.data_ptr(), tuple(values.shape))
        leaders.setdefault(layer.name, first.setdefault(place, layer.name))

    visit_inputs(source.model, source.linears, tokens, visit)
    for layer in source.linears:
        leaders.setdefault(layer.name, layer.name)
    return leaders


def _batches(run: SketchRun, stop: int | None = None) -> Iterator[tuple[int, torch.Tensor]]:
    """First sequence and tokens of each batch; looks at ``run.batch`` anew, for it may shrink on the way."""
    start = 0
    end = run.tokens.sequences if stop is None else stop
    while start < end:
        run.check()
        size = min(run.batch, end - start)
        yield start, run.tokens.tokens[start : start + size]
        start += size


def _capture(
    run: SketchRun, layers: list[LinearLayer], tokens: torch.Tensor, first: int
) -> Iterator[dict[str, list[Pair]]]:
    """Inputs and gradients of ``layers`` on ``tokens``, in one part, or in halves when memory runs out."""
    pairs: dict[str, list[Pair]] = {layer.name: [] for layer in layers}

    def visit(layer: LinearLayer, x: torch.Tensor, g: torch.Tensor) -> None:
        sequences = 0 if layer.routed else len(tokens)
        pairs[layer.name].append((_by_sequence(x, sequences), _by_sequence(g, sequences)))

    try:
        visit_gradients(run.source.model, layers, tokens, run.settings.seed, first, run.settings.label_samples, visit)
    except Exception as error:
        if not is_out_of_memory(error) or len(tokens) == 1:
            raise
        failed = True
    else:
        failed = False
    if not failed:
        yield pairs
        return
    # Outside the handler, so that the failed attempt's tensors are free.
    pairs.clear()
    _halve(run, len(tokens))
    middle = len(tokens) // 2
    yield from _capture(run, layers, tokens[:middle], first)
    yield from _capture(run, layers, tokens[middle:], first + middle)


def _halve(run: SketchRun, size: int) -> None:
    run.batch = max(1, min(run.batch, size // 2))
    run.warn("batch-halved", f"Memory ran out in a batch of {size} sequences; going on with {run.batch}.")
    if run.source.device.type == "cuda":
        torch.cuda.empty_cache()


def _by_sequence(values: torch.Tensor, sequences: int) -> torch.Tensor:
    """``[b, T, n]``; flattened batch and time are unflattened, gathered tokens (``sequences`` 0) give ``[N, 1, n]``."""
    if sequences == 0:
        return values.reshape(-1, 1, values.shape[-1])
    if values.ndim == 3 and values.shape[0] == sequences:
        return values
    flat = values.reshape(-1, values.shape[-1])
    if values.ndim == 2 and len(flat) % sequences == 0:
        return flat.reshape(sequences, -1, flat.shape[-1])
    return flat[:, None, :]


def _cached_window(run: SketchRun, layers: list[LinearLayer]) -> None:
    """One pass over the calibration set; then every linear iterates on what was kept of it."""
    cache: dict[str, list[Pair]] = {layer.name: [] for layer in layers}
    for first, tokens in _batches(run):
        for pairs in _capture(run, layers, tokens, first):
            for name, found in pairs.items():
                cache[name].extend(found)
        run.advance(len(tokens))
    moments: dict[str, torch.Tensor] = {}
    for block in sorted({layer.block for layer in layers}):
        members = [layer for layer in layers if layer.block == block]
        fresh: list[FreshLayer] = []
        for layer in members:
            run.check()
            pairs_of_layer = cache.pop(layer.name)
            leader = run.leaders[layer.name]
            if leader not in moments:
                moments[leader] = _mean_moment(run, layer, pairs_of_layer)
            iteration = _new_iteration(run, layer)
            if isinstance(iteration, IterationA):
                iteration.start(moments[leader])
                steps = range(1, run.settings.iterations)
            else:
                steps = range(run.settings.iterations)
            for step in steps:
                run.check()
                iteration.begin(step)
                for x, g in pairs_of_layer:
                    iteration.add(x, g)
                iteration.finish()
            fresh.append(_evidence(run, layer, iteration, moments[leader], pairs_of_layer))
            run.advance(run.tokens.sequences / len(layers))
        run.writer.write_block(block, fresh)


def _mean_moment(run: SketchRun, layer: LinearLayer, pairs: list[Pair]) -> torch.Tensor:
    total: torch.Tensor | None = None
    count = 0
    # Every label sample repeats the same inputs.
    for x, _ in pairs[:: run.settings.label_samples]:
        total = add_input_moment(total, x)
        count += x.shape[0] * x.shape[1]
    if total is None:
        return torch.zeros(layer.columns, layer.columns, device=run.source.device)
    return total / max(1, count)


def _new_iteration(run: SketchRun, layer: LinearLayer) -> IterationA | IterationB:
    kind = IterationA if run.settings.kind == "a" else IterationB
    return kind(layer.rows, layer.columns, run.source.device)


def _streaming_window(run: SketchRun, layers: list[LinearLayer], window: int) -> None:
    """One pass over the calibration set for every half step; only factors are held, and kept after each step."""
    iterations = {layer.name: _new_iteration(run, layer) for layer in layers}
    own_leaders = {run.leaders[layer.name] for layer in layers}
    moments, first_step = _resume(run, layers, iterations, window)
    run.advance(first_step * run.tokens.sequences)
    for step in range(first_step, run.settings.iterations):
        if step == 0:
            totals: dict[str, torch.Tensor] = {}
            counts: dict[str, int] = {}
            leading = [layer for layer in layers if layer.name in own_leaders]
        if step == 0 and run.settings.kind == "a":
            _input_pass(run, leading, totals, counts)
        else:
            for iteration in iterations.values():
                iteration.begin(step)
            for first, tokens in _batches(run):
                for pairs in _capture(run, layers, tokens, first):
                    for name, found in pairs.items():
                        for number, (x, g) in enumerate(found):
                            iterations[name].add(x, g)
                            if step == 0 and name in own_leaders and number % run.settings.label_samples == 0:
                                totals[name] = add_input_moment(totals.get(name), x)
                                counts[name] = counts.get(name, 0) + x.shape[0] * x.shape[1]
                run.advance(len(tokens))
            for iteration in iterations.values():
                iteration.finish()
        if step == 0:
            for layer in leading:
                empty = torch.zeros(layer.columns, layer.columns, device=run.source.device)
                moments[layer.name] = totals.get(layer.name, empty) / max(1, counts.get(layer.name, 0))
            for name, iteration in iterations.items():
                if isinstance(iteration, IterationA):
                    iteration.start(moments[run.leaders[name]])
        _checkpoint(run, iterations, moments, window, step + 1)
    gradients = _sampled_pairs(run, layers)
    for block in sorted({layer.block for layer in layers}):
        fresh = [
            _evidence(run, layer, iterations[layer.name], moments[run.leaders[layer.name]], gradients[layer.name])
            for layer in layers
            if layer.block == block
        ]
        run.writer.write_block(block, fresh)


def _input_pass(
    run: SketchRun, layers: list[LinearLayer], totals: dict[str, torch.Tensor], counts: dict[str, int]
) -> None:
    def visit(layer: LinearLayer, x: torch.Tensor) -> None:
        totals[layer.name] = add_input_moment(totals.get(layer.name), x)
        counts[layer.name] = counts.get(layer.name, 0) + x[..., 0].numel()

    for _, tokens in _batches(run):
        visit_inputs(run.source.model, layers, tokens, visit)
        run.advance(len(tokens))


def _checkpoint(
    run: SketchRun,
    iterations: dict[str, IterationA | IterationB],
    moments: dict[str, torch.Tensor],
    window: int,
    step: int,
) -> None:
    tensors = {f"{name}.moment": moment for name, moment in moments.items()}
    for name, iteration in iterations.items():
        # One linear's E[x xᵀ] may serve several; safetensors stores no shared memory.
        tensors[f"{name}.input"] = iteration.factor_input.clone()
        tensors[f"{name}.output"] = iteration.factor_output
        if isinstance(iteration, IterationB):
            tensors[f"{name}.mean_square"] = torch.tensor([iteration.mean_square], dtype=torch.float64)
    run.writer.save_state(tensors, {"window": window, "step": step})


def _resume(
    run: SketchRun, layers: list[LinearLayer], iterations: dict[str, IterationA | IterationB], window: int
) -> tuple[dict[str, torch.Tensor], int]:
    state = run.writer.load_state()
    if state is None or state[1].get("window") != window:
        return {}, 0
    tensors, progress = state
    if any(f"{layer.name}.input" not in tensors for layer in layers):
        return {}, 0
    device = run.source.device
    moments = {
        name.removesuffix(".moment"): tensor.to(device) for name, tensor in tensors.items() if name.endswith(".moment")
    }
    for name, iteration in iterations.items():
        iteration.factor_input = tensors[f"{name}.input"].to(device)
        iteration.factor_output = tensors[f"{name}.output"].to(device)
        if isinstance(iteration, IterationB):
            iteration.mean_square = float(tensors[f"{name}.mean_square"])
    logger.info("resuming the sketch of window %d at step %d", window, progress["step"])
    return moments, progress["step"]


def _sampled_pairs(run: SketchRun, layers: list[LinearLayer]) -> dict[str, list[Pair]]:
    """Inputs and gradients of the first sequences, for the evidence; none where they would not fit."""
    affordable = COSINE_BYTES // max(1, sum(4 * run.tokens.length * (layer.rows + layer.columns) for layer in layers))
    count = min(affordable, 16, run.tokens.sequences)
    kept: dict[str, list[Pair]] = {layer.name: [] for layer in layers}
    if count < 4:
        return kept
    for first, tokens in _batches(run, count):
        for pairs in _capture(run, layers, tokens, first):
            for name, found in pairs.items():
                kept[name].extend(found)
    return kept


def _evidence(
    run: SketchRun,
    layer: LinearLayer,
    iteration: IterationA | IterationB,
    moment: torch.Tensor,
    pairs: list[Pair],
) -> FreshLayer:
    factor_input, factor_output = iteration.scaled_factors()
    entry = SketchedLayer(
        name=layer.name,
        shape=(layer.rows, layer.columns),
        block=layer.block,
        file=block_file(layer.block),
        second_moment=run.leaders[layer.name],
        tokens=sum(x.shape[0] * x.shape[1] for x, _ in pairs),
        effective_rank_input=effective_rank(factor_input),
        effective_rank_output=effective_rank(factor_output),
        cosine_similarity=_cosine(run, layer, pairs, factor_input, factor_output),
    )
    own_moment = moment if run.leaders[layer.name] == layer.name else None
    return FreshLayer(entry, factor_input, factor_output, own_moment)


def _cosine(
    run: SketchRun, layer: LinearLayer, pairs: list[Pair], factor_input: torch.Tensor, factor_output: torch.Tensor
) -> float | None:
    wanted = cosine_sequences(layer.rows, layer.columns, run.tokens.sequences)
    gradients: list[torch.Tensor] = []
    for x, g in pairs[:: run.settings.label_samples]:
        # Tokens that were gathered from many sequences give no sequence's gradient.
        if len(gradients) >= wanted or x.shape[1] == 1:
            break
        gradients.extend((g[row].float().T @ x[row].float()) for row in range(min(len(x), wanted - len(gradients))))
    if len(gradients) < 4:
        return None
    return estimate_cosine(torch.stack(gradients), factor_input, factor_output)
