"""Takes a sketch: passes over the calibration set, the power iteration of every linear, checkpoints."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Protocol

import torch

from yaqa_runner.calibration.tokens import TokenSet
from yaqa_runner.machine.exhaustion import is_out_of_memory
from yaqa_runner.machine.precision import Precision
from yaqa_runner.model.linears import LinearLayer
from yaqa_runner.model.load import SourceModel
from yaqa_runner.monitor import Monitor
from yaqa_runner.sketches.capture import Visit, VisitInput, visit_gradients, visit_inputs
from yaqa_runner.sketches.contraction import mirror
from yaqa_runner.sketches.evidence import COSINE_BYTES, cosine_sequences, effective_rank, estimate_cosine
from yaqa_runner.sketches.iteration import FactorPlace, IterationA, IterationB, add_input_moment
from yaqa_runner.sketches.memory import MemoryPlan
from yaqa_runner.sketches.parallel import ALONE, Ranks
from yaqa_runner.sketches.settings import SketchSettings, sketch_key
from yaqa_runner.sketches.store import (
    FreshLayer,
    Sketch,
    SketchedLayer,
    SketchTrust,
    SketchWriter,
    block_file,
    open_sketch,
)
from yaqa_runner.sketches.trust import choose_trust, held_out_sequences

logger = logging.getLogger(__name__)

# A resumed half step loses no more than this, or twenty times what keeping its sums takes.
CHECKPOINT_SECONDS = 300.0
CHECKPOINT_SHARE = 20
# Of a disk, before the first checkpoint has measured it.
EXPECTED_BYTES_PER_SECOND = 5e8

Pair = tuple[torch.Tensor, torch.Tensor]
"""Inputs ``[b, T, in]`` and output gradients ``[b, T, out]`` of one linear in one batch."""


@dataclass(frozen=True)
class SketchInputs:
    """What the factors of a sketch depend on.

    Attributes:
        source: The original model.
        source_sha256: Of its files, by ``fingerprint_files``.
        tokens: Calibration sequences.
        settings: How it is taken.
    """

    source: SourceModel
    source_sha256: str
    tokens: TokenSet
    settings: SketchSettings

    @property
    def key(self) -> str:
        """The sketch's fingerprint."""
        return sketch_key(self.source_sha256, self.tokens.sha256, self.settings)


class Passes(Protocol):
    """Where the inputs and gradients of linears come from."""

    @property
    def recomputes(self) -> bool:
        """Whether less memory is held with ``recompute``."""

    def inputs(self, layers: list[LinearLayer], tokens: torch.Tensor, first: int, visit: VisitInput) -> None:
        """``visit`` sees the inputs of ``layers`` on ``tokens`` ``[b, T]``, the sequences from ``first`` on."""

    def gradients(
        self, layers: list[LinearLayer], tokens: torch.Tensor, first: int, recompute: bool, visit: Visit
    ) -> None:
        """``visit`` sees inputs and gradients of ``layers``, once a label sample."""


@dataclass(frozen=True)
class WholePasses:
    """Forward and backward passes of the whole model."""

    source: SourceModel
    settings: SketchSettings
    recomputes = True

    def inputs(self, layers: list[LinearLayer], tokens: torch.Tensor, first: int, visit: VisitInput) -> None:
        """One forward pass."""
        visit_inputs(self.source.model, layers, tokens, visit)

    def gradients(
        self, layers: list[LinearLayer], tokens: torch.Tensor, first: int, recompute: bool, visit: Visit
    ) -> None:
        """One forward pass, and a backward pass a label sample."""
        settings = self.settings
        visit_gradients(
            self.source.model, layers, tokens, settings.seed, first, settings.label_samples, visit, recompute
        )


@dataclass
class SketchRun:
    """What every part of taking a sketch needs. ``share_of_work`` is what a pass over a window's linears counts."""

    source: SourceModel
    passes: Passes
    tokens: TokenSet
    settings: SketchSettings
    writer: SketchWriter
    representatives: dict[str, str]
    batch: int
    recompute: bool
    place: FactorPlace
    ranks: Ranks
    monitor: Monitor
    total: float
    share_of_work: float = 1.0
    done: float = 0.0
    kept_at: float = 0.0
    keeping_seconds: float = 0.0

    def multiplying(self) -> torch.autocast:
        """Around every pass of the model: on a CPU it is held in float32, whatever the precision of products."""
        narrow = self.source.device.type == "cpu" and self.place.precision == "bfloat16"
        return torch.autocast("cpu", torch.bfloat16, enabled=narrow)

    @property
    def share(self) -> tuple[int, int]:
        """First and last (exclusive) of the sequences whose sums this process takes."""
        return self.ranks.share(self.tokens.sequences - held_out_sequences(self.tokens.sequences))

    def advance(self, amount: float) -> None:
        """Report ``amount`` more sequences' worth of work."""
        self.done = min(self.total, self.done + amount * self.share_of_work)
        self.monitor.progress(self.done * self.ranks.count, self.total * self.ranks.count)

    def may_keep(self) -> bool:
        """Whether it is time to keep an unfinished half step."""
        waited = time.monotonic() - self.kept_at
        return self.ranks.count == 1 and waited >= max(CHECKPOINT_SECONDS, CHECKPOINT_SHARE * self.keeping_seconds)

    def worth_keeping(self, size: int) -> bool:
        """Whether ``size`` bytes of a finished half step are: where they take a second, or little of what it took."""
        expected = self.keeping_seconds or size / EXPECTED_BYTES_PER_SECOND
        return expected < 1.0 or time.monotonic() - self.kept_at >= CHECKPOINT_SHARE * expected


def compute_sketch(
    inputs: SketchInputs,
    *,
    directory: Path,
    plan: MemoryPlan,
    monitor: Monitor,
    ranks: Ranks = ALONE,
    precision: Precision | None = None,
) -> Sketch:
    """Take the sketch of every linear of the source by passes of the whole model, and store it at ``directory``.

    What models need whose blocks cannot be run one at a time, and what the sweep over blocks is held against. Finished
    blocks and, when streaming, half steps (and what of one was gathered in five minutes) are kept beside ``directory``
    and taken up again by the next call with the same fingerprint. With ``ranks``, every process of them calls this with
    the same arguments; ``directory`` is one that all of them see, and the first of them writes there. ``precision`` is
    that of large products and, on a CPU, of the model's own passes; without it bfloat16 on a GPU and float32 elsewhere.

    Raises:
        Interrupted: ``monitor.check`` raised it; what is finished stays.
        RuntimeError: memory ran out with a batch of one.
    """
    source, tokens, key = inputs.source, inputs.tokens, inputs.key
    logger.info("%s", plan.describe())
    factor = 2 if plan.mode == "cached" else 1
    writer = joint_writer(directory, key, ranks)
    start, stop = ranks.share(tokens.sequences - held_out_sequences(tokens.sequences))
    run = SketchRun(
        source=source,
        passes=WholePasses(source, inputs.settings),
        tokens=tokens,
        settings=inputs.settings,
        writer=writer,
        representatives=shared_input_representatives(source, tokens.tokens[:1]),
        batch=plan.batch,
        recompute=plan.recompute,
        place=factor_place(source.device, plan.place == "pinned", precision),
        ranks=ranks,
        monitor=monitor,
        total=float(plan.passes * (stop - start) * factor),
        kept_at=time.monotonic(),
    )
    for number, window in enumerate(plan.windows):
        blocks = sorted({layer.block for layer in window})
        if ranks.agree(all(writer.has_block(block) for block in blocks)):
            run.advance(run.total / len(plan.windows))
            continue
        fresh = (
            cached_window(run, list(window)) if plan.mode == "cached" else streaming_window(run, list(window), number)
        )
        for block, layers in groupby(fresh, lambda layer: layer.entry.block):
            writer.write_block(block, list(layers))
    return finished_sketch(inputs, directory, writer, ranks)


def joint_writer(directory: Path, key: str, ranks: Ranks) -> SketchWriter:
    """The writer of a sketch at ``directory``; the leader of ``ranks`` makes its folder before the others look."""
    if not ranks.leads:
        ranks.wait()
    writer = SketchWriter(directory, key)
    if ranks.leads:
        ranks.wait()
    return writer


def factor_place(device: torch.device, pinned: bool = False, precision: Precision | None = None) -> FactorPlace:
    """Where factors of a model on ``device`` are kept, and how their products are made."""
    chosen = precision or ("bfloat16" if device.type == "cuda" else "float32")
    return FactorPlace(torch.device("cpu") if pinned else device, chosen, pinned)


def finished_sketch(inputs: SketchInputs, directory: Path, writer: SketchWriter, ranks: Ranks) -> Sketch:
    """The sketch at ``directory``, all of whose blocks are written."""
    if ranks.leads:
        blocks = sorted({layer.block for layer in inputs.source.linears})
        writer.finish(inputs.settings, inputs.source_sha256, inputs.tokens, blocks)
    ranks.wait()
    return open_sketch(directory, inputs.key, verify=False)


def shared_input_representatives(source: SourceModel, tokens: torch.Tensor) -> dict[str, str]:
    """For every linear the first one in its block that has the very same input (q/k/v; gate/up), itself included."""
    layers = source.linears
    return representatives_of(layers, lambda visit: visit_inputs(source.model, layers, tokens, visit))


def representatives_of(layers: list[LinearLayer], visit_all: Callable[[VisitInput], None]) -> dict[str, str]:
    """For each of ``layers`` the first one in its block that has the very same input, as ``visit_all`` shows them."""
    first: dict[tuple[int, int, tuple[int, ...]], str] = {}
    representatives: dict[str, str] = {}
    # Holding the inputs keeps their addresses from being used twice.
    held: list[torch.Tensor] = []

    def visit(layer: LinearLayer, values: torch.Tensor) -> None:
        held.append(values)
        place = (layer.block, values.data_ptr(), tuple(values.shape))
        representatives.setdefault(layer.name, first.setdefault(place, layer.name))

    visit_all(visit)
    for layer in layers:
        representatives.setdefault(layer.name, layer.name)
    return representatives


def _batches(run: SketchRun, skip: int = 0, count: int | None = None) -> Iterator[tuple[int, torch.Tensor]]:
    """First sequence and tokens of each batch of this process's share; looks at ``run.batch`` anew, for it may shrink.

    The first ``skip`` sequences are left out, and ``count`` ends it early.
    """
    start, end = run.share
    start += skip
    end = end if count is None else min(end, start + count)
    while start < end:
        run.monitor.check()
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
        with run.multiplying():
            run.passes.gradients(layers, tokens, first, run.recompute, visit)
    except Exception as error:
        if not is_out_of_memory(error) or (len(tokens) == 1 and (run.recompute or not run.passes.recomputes)):
            raise
        failed = True
    else:
        failed = False
    if not failed:
        yield pairs
        return
    # Outside the handler, so that the failed attempt's tensors are free.
    pairs.clear()
    if len(tokens) == 1:
        run.recompute = True
        run.monitor.warn(
            "activations-recomputed",
            "Memory ran out with one sequence; going on with activations computed anew in the backward pass.",
        )
        yield from _capture(run, layers, tokens, first)
        return
    halve_batch(run, len(tokens))
    middle = len(tokens) // 2
    yield from _capture(run, layers, tokens[:middle], first)
    yield from _capture(run, layers, tokens[middle:], first + middle)


def halve_batch(run: SketchRun, size: int) -> None:
    """Go on with half of a batch of ``size`` sequences, for which memory ran out."""
    run.batch = max(1, min(run.batch, size // 2))
    run.monitor.warn("batch-halved", f"Memory ran out in a batch of {size} sequences; going on with {run.batch}.")
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


def cached_window(run: SketchRun, layers: list[LinearLayer]) -> Iterator[FreshLayer]:
    """One pass over the calibration set; then every linear iterates on what was kept of it. The leader gets them."""
    cache: dict[str, list[Pair]] = {layer.name: [] for layer in layers}
    for first, tokens in _batches(run):
        for pairs in _capture(run, layers, tokens, first):
            for name, found in pairs.items():
                cache[name].extend(found)
        run.advance(len(tokens))
    held_out = _held_out_pairs(run, layers) if run.ranks.leads else {}
    moments: dict[str, Moment] = {}
    for layer in layers:
        run.monitor.check()
        pairs_of_layer = cache.pop(layer.name)
        representative = run.representatives[layer.name]
        if representative not in moments:
            moments[representative] = _mean_moment(run, layer, pairs_of_layer)
        iteration = _new_iteration(run, layer)
        if isinstance(iteration, IterationA):
            iteration.start(moments[representative].mean)
            steps = range(1, run.settings.iterations)
        else:
            steps = range(run.settings.iterations)
        for step in steps:
            run.monitor.check()
            iteration.begin(step)
            for x, g in pairs_of_layer:
                iteration.add(x, g)
            iteration.finish(run.ranks)
        run.advance((run.share[1] - run.share[0]) / len(layers))
        if run.ranks.leads:
            seen = held_out.pop(layer.name, None)
            yield _evidence(run, layer, iteration, moments[representative], seen, pairs_of_layer)


@dataclass(frozen=True)
class Moment:
    """``E[x xᵀ]`` ``[in, in]`` over ``tokens`` inputs."""

    mean: torch.Tensor
    tokens: int


def _mean_moment(run: SketchRun, layer: LinearLayer, pairs: list[Pair]) -> Moment:
    total: torch.Tensor | None = None
    count = 0
    # Every label sample repeats the same inputs.
    for x, _ in pairs[:: run.settings.label_samples]:
        total = add_input_moment(total, x, run.place)
        count += x.shape[0] * x.shape[1]
    return _reduced_moment(run, layer, total, count)


def _reduced_moment(run: SketchRun, layer: LinearLayer, total: torch.Tensor | None, count: int) -> Moment:
    whole = mirror(run.ranks.add_up(run.place.zeros(layer.columns) if total is None else total))
    tokens = int(run.ranks.add_up_number(count))
    return Moment(whole / max(1, tokens), tokens)


def _new_iteration(run: SketchRun, layer: LinearLayer) -> IterationA | IterationB:
    kind = IterationA if run.settings.kind == "a" else IterationB
    return kind(layer.rows, layer.columns, run.place)


@dataclass
class _Gathered:
    """What a window's current half step holds so far; ``sequences`` of this process's share are in it."""

    step: int
    sequences: int
    totals: dict[str, torch.Tensor]
    counts: dict[str, int]


def streaming_window(run: SketchRun, layers: list[LinearLayer], window: int) -> Iterator[FreshLayer]:
    """One pass over the calibration set for every half step; only factors are held, and kept after each step."""
    iterations = {layer.name: _new_iteration(run, layer) for layer in layers}
    own_representatives = {run.representatives[layer.name] for layer in layers}
    representing = [layer for layer in layers if layer.name in own_representatives]
    moments, gathered = _resume(run, layers, iterations, window)
    first_step = gathered.step
    run.advance(first_step * (run.share[1] - run.share[0]) + gathered.sequences)
    for step in range(first_step, run.settings.iterations):
        if step > first_step:
            gathered = _Gathered(step, 0, {}, {})
        if step == 0 and run.settings.kind == "a":
            _input_pass(run, representing, iterations, moments, gathered, window)
        else:
            if gathered.sequences == 0:
                for iteration in iterations.values():
                    iteration.begin(step)
            for first, tokens in _batches(run, gathered.sequences):
                for pairs in _capture(run, layers, tokens, first):
                    for name, found in pairs.items():
                        for number, (x, g) in enumerate(found):
                            iterations[name].add(x, g)
                            if step == 0 and name in own_representatives and number % run.settings.label_samples == 0:
                                _gather(run, gathered, name, x)
                gathered.sequences += len(tokens)
                run.advance(len(tokens))
                if run.may_keep():
                    _checkpoint(run, iterations, moments, window, gathered)
            for iteration in iterations.values():
                iteration.finish(run.ranks)
        if step == 0:
            for layer in representing:
                moments[layer.name] = _reduced_moment(
                    run, layer, gathered.totals.get(layer.name), gathered.counts.get(layer.name, 0)
                )
            for name, iteration in iterations.items():
                if isinstance(iteration, IterationA):
                    iteration.start(moments[run.representatives[name]].mean)
        kept_bytes = sum(4 * (2 * layer.columns**2 + layer.rows**2) for layer in layers)
        if run.worth_keeping(kept_bytes):
            _checkpoint(run, iterations, moments, window, _Gathered(step + 1, 0, {}, {}))
    if not run.ranks.leads:
        return
    # An earlier call may have written some before it was ended.
    layers = [layer for layer in layers if not run.writer.has_block(layer.block)]
    held_out = _held_out_pairs(run, layers)
    sampled = {} if held_out else _sampled_pairs(run, layers)
    for layer in layers:
        iteration, moment = iterations.pop(layer.name), moments[run.representatives[layer.name]]
        yield _evidence(run, layer, iteration, moment, held_out.pop(layer.name, None), sampled.pop(layer.name, []))


def _gather(run: SketchRun, gathered: _Gathered, name: str, x: torch.Tensor) -> None:
    gathered.totals[name] = add_input_moment(gathered.totals.get(name), x, run.place)
    gathered.counts[name] = gathered.counts.get(name, 0) + x[..., 0].numel()


def _input_pass(
    run: SketchRun,
    layers: list[LinearLayer],
    iterations: dict[str, IterationA | IterationB],
    moments: dict[str, Moment],
    gathered: _Gathered,
    window: int,
) -> None:
    for first, tokens in _batches(run, gathered.sequences):
        with run.multiplying():
            run.passes.inputs(layers, tokens, first, lambda layer, x: _gather(run, gathered, layer.name, x))
        gathered.sequences += len(tokens)
        run.advance(len(tokens))
        if run.may_keep():
            _checkpoint(run, iterations, moments, window, gathered)


def _checkpoint(
    run: SketchRun,
    iterations: dict[str, IterationA | IterationB],
    moments: dict[str, Moment],
    window: int,
    gathered: _Gathered,
) -> None:
    if not run.ranks.leads:
        return
    started = time.monotonic()
    tensors: dict[str, torch.Tensor] = {}
    for name, moment in moments.items():
        tensors[f"{name}.moment"] = moment.mean
        tensors[f"{name}.tokens"] = torch.tensor([moment.tokens])
    for name, total in gathered.totals.items():
        tensors[f"{name}.gathered"] = total
        tensors[f"{name}.count"] = torch.tensor([gathered.counts[name]])
    sums_too = gathered.sequences > 0 and (gathered.step > 0 or run.settings.kind == "b")
    for name, iteration in iterations.items():
        # One linear's E[x xᵀ] may serve several; safetensors stores no shared memory.
        tensors[f"{name}.input"] = iteration.factor_input.clone()
        tensors[f"{name}.output"] = iteration.factor_output
        if isinstance(iteration, IterationB):
            tensors[f"{name}.mean_square"] = torch.tensor([iteration.mean_square], dtype=torch.float64)
        if sums_too:
            tensors |= {f"{name}.sum.{part}": tensor for part, tensor in iteration.sums().items()}
    run.writer.save_state(tensors, {"window": window, "step": gathered.step, "sequences": gathered.sequences})
    run.kept_at = time.monotonic()
    run.keeping_seconds = run.kept_at - started


def _resume(
    run: SketchRun, layers: list[LinearLayer], iterations: dict[str, IterationA | IterationB], window: int
) -> tuple[dict[str, Moment], _Gathered]:
    state = run.writer.load_state()
    fits = (
        state is not None
        and state[1].get("window") == window
        and all(f"{layer.name}.input" in state[0] for layer in layers)
        # An unfinished half step is one process's.
        and (run.ranks.count == 1 or state[1].get("sequences") == 0)
    )
    if not run.ranks.agree(fits):
        return {}, _Gathered(0, 0, {}, {})
    if state is None:
        raise RuntimeError("this process does not see the folder that the sketch is written to")
    tensors, progress = state
    device = run.place.device
    moments: dict[str, Moment] = {}
    gathered = _Gathered(progress["step"], progress["sequences"], {}, {})
    for key, tensor in tensors.items():
        name, _, part = key.rpartition(".")
        if part == "moment":
            moments[name] = Moment(tensor.to(device), int(tensors[f"{name}.tokens"]))
        elif part == "gathered":
            gathered.totals[name] = tensor.to(device)
            gathered.counts[name] = int(tensors[f"{name}.count"])
    for name, iteration in iterations.items():
        iteration.factor_input = tensors[f"{name}.input"].to(device)
        iteration.factor_output = tensors[f"{name}.output"].to(device)
        if isinstance(iteration, IterationB):
            iteration.mean_square = float(tensors[f"{name}.mean_square"])
        if gathered.sequences > 0 and (gathered.step > 0 or run.settings.kind == "b"):
            iteration.begin(gathered.step)
            prefix = f"{name}.sum."
            iteration.resume(
                {key.removeprefix(prefix): value.to(device) for key, value in tensors.items() if key.startswith(prefix)}
            )
    logger.info("resuming the sketch of window %d at step %d, sequence %d", window, gathered.step, gathered.sequences)
    return moments, gathered


def _sampled_pairs(run: SketchRun, layers: list[LinearLayer]) -> dict[str, list[Pair]]:
    """Inputs and gradients of the first sequences, for the evidence; none where they would not fit."""
    affordable = COSINE_BYTES // max(1, sum(4 * run.tokens.length * (layer.rows + layer.columns) for layer in layers))
    count = min(affordable, 16, run.share[1] - run.share[0])
    kept: dict[str, list[Pair]] = {layer.name: [] for layer in layers}
    if count < 4:
        return kept
    for first, tokens in _batches(run, 0, count):
        for pairs in _capture(run, layers, tokens, first):
            for name, found in pairs.items():
                kept[name].extend(found)
    return kept


def _held_out_pairs(run: SketchRun, layers: list[LinearLayer]) -> dict[str, list[Pair]]:
    """Inputs and gradients of one batch of the sequences that are in no factor; empty where none are held out."""
    count = min(held_out_sequences(run.tokens.sequences), run.batch)
    first = run.tokens.sequences - count
    if count == 0:
        return {}
    kept: dict[str, list[Pair]] = {layer.name: [] for layer in layers}
    for pairs in _capture(run, layers, run.tokens.tokens[first:], first):
        for name, found in pairs.items():
            kept[name].extend(found)
    return kept


def _evidence(
    run: SketchRun,
    layer: LinearLayer,
    iteration: IterationA | IterationB,
    moment: Moment,
    held_out: list[Pair] | None,
    seen: list[Pair],
) -> FreshLayer:
    """The linear's entry. What can be, is measured on ``held_out`` pairs; without any, the cosine on ``seen`` ones."""
    factor_input, factor_output = (factor.to(run.source.device) for factor in iteration.scaled_factors())
    trust = None
    if held_out:
        x, g = (torch.cat([pair[part].flatten(0, -2) for pair in held_out]) for part in (0, 1))
        width = held_out[0][0].shape[1]
        pair = x.reshape(-1, width, x.shape[-1]), g.reshape(-1, width, g.shape[-1])
        trust = choose_trust(factor_input, factor_output, moment.mean.to(factor_input.device), *pair)
    entry = SketchedLayer(
        name=layer.name,
        shape=(layer.rows, layer.columns),
        block=layer.block,
        file=block_file(layer.block),
        second_moment=run.representatives[layer.name],
        tokens=moment.tokens,
        effective_rank_input=effective_rank(factor_input),
        effective_rank_output=effective_rank(factor_output),
        cosine_similarity=_cosine(run, layer, held_out or seen, factor_input, factor_output),
        concentration_input=iteration.concentration_input,
        concentration_output=iteration.concentration_output,
        trust=None if trust is None else SketchTrust(**asdict(trust)),
    )
    own_moment = moment.mean if run.representatives[layer.name] == layer.name else None
    return FreshLayer(entry, factor_input, factor_output, own_moment)


def _cosine(
    run: SketchRun, layer: LinearLayer, pairs: list[Pair], factor_input: torch.Tensor, factor_output: torch.Tensor
) -> float | None:
    wanted = cosine_sequences(layer.rows, layer.columns)
    samples = [pair for pair in pairs[:: run.settings.label_samples] if pair[0].shape[1] > 1]
    # Tokens that were gathered from many sequences give no sequence's gradient.
    count = min(wanted, sum(len(x) for x, _ in samples)) if all(x.shape[1] > 1 for x, _ in pairs) else 0
    if count < 4:
        return None
    rows = ((x[row], g[row]) for x, g in samples for row in range(len(x)))
    gradients = torch.empty(count, layer.rows, layer.columns, device=factor_input.device)
    for gradient, (x, g) in zip(gradients, rows, strict=False):
        # G = gᵀ x [out, in] of one sequence.
        torch.mm(g.float().T, x.float(), out=gradient)
    return estimate_cosine(gradients, factor_input, factor_output)
