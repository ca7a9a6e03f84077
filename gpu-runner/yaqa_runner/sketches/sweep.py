"""The sketch as one sweep: forward block by block, then backward, with every half step of a block's linears inside it.

The original's weights do not change while its sketch is taken. What a block's linears need is the block's input and the
loss gradient at its output for every calibration token; given these two, all half steps are local to the block. So each
block's weights are needed twice, whatever the number of half steps, and one block's alone at any time.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from yaqa_runner.machine.exhaustion import is_out_of_memory
from yaqa_runner.machine.precision import Precision
from yaqa_runner.model.blocks import BlockwiseModel
from yaqa_runner.model.boundary_store import BoundaryStore
from yaqa_runner.model.linears import LinearLayer
from yaqa_runner.monitor import Monitor
from yaqa_runner.sketches.capture import Visit, VisitInput, visiting_gradients, visiting_inputs
from yaqa_runner.sketches.compute import (
    SketchInputs,
    SketchRun,
    cached_window,
    factor_place,
    finished_sketch,
    halve_batch,
    joint_writer,
    representatives_of,
    streaming_window,
)
from yaqa_runner.sketches.labels import sampled_label_gradient
from yaqa_runner.sketches.parallel import ALONE, Ranks
from yaqa_runner.sketches.settings import SketchSettings
from yaqa_runner.sketches.store import FreshLayer, Sketch, SketchWriter
from yaqa_runner.sketches.sweep_plan import SweepPlan
from yaqa_runner.sketches.trust import held_out_sequences

logger = logging.getLogger(__name__)

BOUNDARY_DIRECTORY = "boundary"
_PROGRESS_FILE = "progress.json"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# Work, in passes over the calibration set: forward, and all that is done on the way back.
_FORWARD_WORK = 1.0
_BACKWARD_WORK = 3.0


@dataclass
class BlockPasses:
    """Inputs and gradients of the linears of block ``number``, from its hidden states and its output's gradients.

    Gradients at the block's input are kept as they are found, for the block before.
    """

    blockwise: BlockwiseModel
    store: BoundaryStore
    settings: SketchSettings
    rows: Rows
    lowest: int
    number: int = 0
    recomputes = False

    def inputs(self, layers: list[LinearLayer], tokens: torch.Tensor, first: int, visit: VisitInput) -> None:
        """The block forward."""
        with visiting_inputs(layers, visit), torch.no_grad():
            self.blockwise.run(self.number, tokens, self._hidden(first, len(tokens)))

    def gradients(
        self, layers: list[LinearLayer], tokens: torch.Tensor, first: int, recompute: bool, visit: Visit
    ) -> None:
        """The block forward, and backward once a label sample."""
        row, samples = self.rows.of(first), self.settings.label_samples
        hidden = self._hidden(first, len(tokens)).detach().requires_grad_(True)
        with torch.enable_grad(), visiting_gradients(layers, visit):
            output = self.blockwise.run(self.number, tokens, hidden)
            after = self._gradients_after(tokens, first, output.detach())
            for sample, gradient in enumerate(after):
                (before,) = torch.autograd.grad(output, hidden, gradient, retain_graph=sample + 1 < samples)
                if self.number > self.lowest:
                    self.store.put(_gradient_level(self.number, sample), row, before)

    def complete(self, batches: Iterator[tuple[int, torch.Tensor]]) -> None:
        """Find the gradients at the block's input on ``batches`` where no pass has found them."""
        if self.number <= self.lowest:
            return
        level = _gradient_level(self.number, self.settings.label_samples - 1)
        for first, tokens in batches:
            if not self.store.has(level, self.rows.of(first), len(tokens)):
                self.gradients([], tokens, first, False, lambda layer, x, g: None)

    def forget(self) -> None:
        """Free what only this block needed."""
        self.store.drop(_hidden_level(self.number))
        for sample in range(self.settings.label_samples):
            self.store.drop(_gradient_level(self.number + 1, sample))

    def _hidden(self, first: int, count: int) -> torch.Tensor:
        return self.store.get(_hidden_level(self.number), self.rows.of(first), count).to(self.blockwise.device)

    def _gradients_after(self, tokens: torch.Tensor, first: int, output: torch.Tensor) -> list[torch.Tensor]:
        """The loss gradients at the block's ``output`` ``[b, T, …]``, one a label sample."""
        levels = [_gradient_level(self.number + 1, sample) for sample in range(self.settings.label_samples)]
        row = self.rows.of(first)
        if not self.store.has(levels[-1], row, len(tokens)):
            # After the last block only; other blocks' were found by the block after them.
            for level, gradient in zip(levels, self._head_gradients(tokens, first, output), strict=True):
                self.store.put(level, row, gradient)
        return [self.store.get(level, row, len(tokens)).to(self.blockwise.device) for level in levels]

    def _head_gradients(self, tokens: torch.Tensor, first: int, output: torch.Tensor) -> list[torch.Tensor]:
        """Through norm and output layer, a slice of the tokens at a time."""
        samples = self.settings.label_samples
        found = [torch.empty_like(output) for _ in range(samples)]
        for part in self.blockwise.slices(tokens):
            states = output[:, part].detach().requires_grad_(True)
            logits = self.blockwise.head(tokens[:, part], states)
            for sample in range(samples):
                gradient = sampled_label_gradient(logits.detach(), self.settings.seed, first, sample, part.start)
                (found[sample][:, part],) = torch.autograd.grad(
                    logits, states, gradient, retain_graph=sample + 1 < samples
                )
        return found


@dataclass(frozen=True)
class Rows:
    """Which rows of the boundary store are which sequences: a share of them, then those held out.

    Attributes:
        start: First sequence of this process's share.
        stop: The one after its last.
        held_out: First sequence of those that are in no factor.
        sequences: In all.
    """

    start: int
    stop: int
    held_out: int
    sequences: int

    @property
    def count(self) -> int:
        """Rows in all."""
        return self.stop - self.start + self.sequences - self.held_out

    def of(self, sequence: int) -> int:
        """The row of ``sequence``."""
        return sequence - self.start if sequence < self.stop else sequence - self.held_out + self.stop - self.start


@dataclass
class _Sweep:
    run: SketchRun
    passes: BlockPasses
    plan: SweepPlan
    by_block: dict[int, list[LinearLayer]]
    folder: Path | None
    levels: dict[str, tuple[tuple[int, ...], str]] = field(default_factory=dict)

    @property
    def blockwise(self) -> BlockwiseModel:
        return self.passes.blockwise

    def batches(self) -> Iterator[tuple[int, torch.Tensor]]:
        """First sequence and tokens of all batches, those held out included."""
        rows = self.passes.rows
        for start, stop in ((rows.start, rows.stop), (rows.held_out, rows.sequences)):
            while start < stop:
                self.run.monitor.check()
                end = min(start + self.run.batch, stop)
                yield start, self.run.tokens.tokens[start:end]
                start = end


def sweep_sketch(
    inputs: SketchInputs,
    *,
    blockwise: BlockwiseModel,
    directory: Path,
    plan: SweepPlan,
    monitor: Monitor,
    ranks: Ranks = ALONE,
    precision: Precision | None = None,
) -> Sketch:
    """Take the sketch of every linear of the source by one sweep over its blocks, and store it at ``directory``.

    Equal, up to rounding, to what ``compute_sketch`` gives. Finished blocks are kept beside ``directory``, and so are
    half steps of blocks whose inputs and gradients do not fit; with hidden states on disk, the next call with the same
    fingerprint goes on at the next block, otherwise it sweeps again and leaves finished blocks out. With ``ranks``,
    every process calls this with the same arguments and takes its share of the sequences. ``precision`` is that of
    large products and, on a CPU, of the model's own passes; without it bfloat16 on a GPU and float32 elsewhere.

    Raises:
        Interrupted: ``monitor.check`` raised it; what is finished stays.
        BlocksEntangled: the model can only be run whole after all.
        RuntimeError: memory ran out with a batch of one.
    """
    logger.info("%s", plan.describe())
    writer = joint_writer(directory, inputs.key, ranks)
    sweep = _started(inputs, blockwise, writer, plan, monitor, ranks)
    sweep.run.place = factor_place(inputs.source.device, precision=precision)
    run, passes = sweep.run, sweep.passes
    left = _resume(sweep)
    if left is None:
        _forward(sweep)
        left = len(blockwise)
        _keep_progress(sweep, left)
    run.done = run.total * (_FORWARD_WORK + _BACKWARD_WORK * (1 - left / len(blockwise))) / _all_work()
    for number in reversed(range(passes.lowest, left)):
        passes.number = number
        with blockwise.weights.block(number):
            layers = sweep.by_block.get(number, [])
            if layers and not ranks.agree(run.writer.has_block(number)):
                _sketch_block(sweep, number, layers)
            with run.multiplying():
                passes.complete(sweep.batches())
        _keep_progress(sweep, number)
        passes.forget()
        run.done = run.total * (_FORWARD_WORK + _BACKWARD_WORK * (1 - number / len(blockwise))) / _all_work()
        run.share_of_work = 1.0
        run.advance(0.0)
    if sweep.folder is not None:
        shutil.rmtree(sweep.folder, ignore_errors=True)
    return finished_sketch(inputs, directory, run.writer, ranks)


def _all_work() -> float:
    return _FORWARD_WORK + _BACKWARD_WORK


def _started(
    inputs: SketchInputs,
    blockwise: BlockwiseModel,
    writer: SketchWriter,
    plan: SweepPlan,
    monitor: Monitor,
    ranks: Ranks,
) -> _Sweep:
    source, tokens = inputs.source, inputs.tokens
    held_out = held_out_sequences(tokens.sequences)
    start, stop = ranks.share(tokens.sequences - held_out)
    # The leader alone looks at what is held out, one batch of it.
    kept = min(held_out, plan.batch) if ranks.leads else 0
    rows = Rows(start, stop, tokens.sequences - kept, tokens.sequences)
    folder = writer.partial / f"{BOUNDARY_DIRECTORY}-{ranks.rank}" if plan.store == "disk" else None
    by_block: dict[int, list[LinearLayer]] = {}
    for layer in source.linears:
        by_block.setdefault(layer.block, []).append(layer)
    passes = BlockPasses(blockwise, BoundaryStore(rows.count, folder), inputs.settings, rows, min(by_block))
    run = SketchRun(
        source=source,
        passes=passes,
        tokens=tokens,
        settings=inputs.settings,
        writer=writer,
        representatives={},
        batch=plan.batch,
        recompute=False,
        place=factor_place(source.device),
        ranks=ranks,
        monitor=monitor,
        total=float(_all_work() * (stop - start)),
        kept_at=time.monotonic(),
    )
    return _Sweep(run, passes, plan, by_block, folder)


@torch.no_grad()
def _forward(sweep: _Sweep) -> None:
    """Keep every batch's hidden states before every block. The last block is run on the way back only."""
    run, blockwise, store, rows = sweep.run, sweep.blockwise, sweep.passes.store, sweep.passes.rows
    for first, tokens in sweep.batches():
        store.put(_hidden_level(0), rows.of(first), blockwise.enter(tokens).hidden)
    run.share_of_work = _FORWARD_WORK / max(1, len(blockwise) - 1)
    for number in range(len(blockwise) - 1):

        def through(tokens: torch.Tensor, first: int, number: int = number) -> None:
            hidden = store.get(_hidden_level(number), rows.of(first), len(tokens)).to(blockwise.device)
            with run.multiplying():
                output = blockwise.run(number, tokens, hidden)
            store.put(_hidden_level(number + 1), rows.of(first), output)

        with blockwise.weights.block(number):
            for first, tokens in sweep.batches():
                _in_halves(run, tokens, first, through)
                if first < rows.stop:
                    run.advance(len(tokens))
        if number < sweep.passes.lowest:
            store.drop(_hidden_level(number))


def _in_halves(run: SketchRun, tokens: torch.Tensor, first: int, work: Callable[[torch.Tensor, int], None]) -> None:
    """``work`` on ``tokens`` and the number of their first sequence; on halves of them where memory runs out."""
    try:
        return work(tokens, first)
    except Exception as error:
        if not is_out_of_memory(error) or len(tokens) == 1:
            raise
    halve_batch(run, len(tokens))
    middle = len(tokens) // 2
    _in_halves(run, tokens[:middle], first, work)
    _in_halves(run, tokens[middle:], first + middle, work)


def _sketch_block(sweep: _Sweep, number: int, layers: list[LinearLayer]) -> None:
    """All half steps of the block's linears; the leader writes them."""
    run = sweep.run
    agreed = _agreed_representatives(sweep, layers)
    windows = sweep.plan.windows(layers, agreed)
    units = sum(2 if window.mode == "cached" else run.settings.iterations for window in windows)
    run.share_of_work = _BACKWARD_WORK / len(sweep.blockwise) / units
    fresh: dict[str, FreshLayer] = {}
    for place, window in enumerate(windows):
        members = list(window.layers)
        run.representatives = _within(members, agreed)
        if window.mode == "cached":
            found = cached_window(run, members)
        else:
            found = streaming_window(run, members, number * len(layers) + place)
        # A GPU holds one window's factors, not those of a block: of a mixture's they would fill it many times over.
        fresh.update((layer.entry.name, layer.packed()) for layer in found)
    if run.ranks.leads:
        run.writer.write_block(number, [fresh[layer.name] for layer in layers])


def _agreed_representatives(sweep: _Sweep, layers: list[LinearLayer]) -> dict[str, str]:
    """As the leader finds them on its first sequence: processes without any must sum in the same order."""
    run, rows = sweep.run, sweep.passes.rows
    places = torch.zeros(len(layers), dtype=torch.float64)
    if run.ranks.leads:
        first = rows.start if rows.start < rows.stop else rows.held_out
        tokens = run.tokens.tokens[first : first + 1]
        with run.multiplying():
            found = representatives_of(layers, lambda visit: sweep.passes.inputs(layers, tokens, first, visit))
        names = [layer.name for layer in layers]
        places = torch.tensor([names.index(found[name]) for name in names], dtype=torch.float64)
    agreed = run.ranks.add_up(places)
    return {layer.name: layers[int(place)].name for layer, place in zip(layers, agreed, strict=True)}


def _within(members: list[LinearLayer], representatives: dict[str, str]) -> dict[str, str]:
    """``representatives`` of ``members`` among these alone: a window has the moments of its own inputs only."""
    first: dict[str, str] = {}
    return {layer.name: first.setdefault(representatives[layer.name], layer.name) for layer in members}


def _keep_progress(sweep: _Sweep, left: int) -> None:
    """Note that blocks below ``left`` are to be done, with what they need in the boundary store's folder."""
    if sweep.folder is None:
        return
    passes = sweep.passes
    names = [_hidden_level(number) for number in range(passes.lowest, left)]
    if passes.lowest < left < len(sweep.blockwise):
        names += [_gradient_level(left, sample) for sample in range(passes.settings.label_samples)]
    levels = {name: passes.store.describe(name) for name in names}
    progress = {"left": left, "rows": passes.rows.count, "boot": _boot(), "levels": levels}
    temporary = sweep.folder / f"{_PROGRESS_FILE}.tmp"
    temporary.write_text(json.dumps(progress), encoding="ascii")
    temporary.rename(sweep.folder / _PROGRESS_FILE)


def _resume(sweep: _Sweep) -> int | None:
    """How many blocks an interrupted sweep left to do, its hidden states taken up; ``None`` where it starts anew."""
    if sweep.folder is None or sweep.run.ranks.count > 1:
        return None
    passes = sweep.passes
    try:
        progress = json.loads((sweep.folder / _PROGRESS_FILE).read_text(encoding="ascii"))
        # What was not yet on the disk when the machine stopped is not there; files do not show it.
        if progress["boot"] != _boot() or progress["rows"] != passes.rows.count:
            return None
        left, levels = int(progress["left"]), progress["levels"]
        done = [number for number in range(left, len(sweep.blockwise)) if number in sweep.by_block]
        if not all(sweep.run.writer.has_block(number) for number in done):
            return None
        if not all(passes.store.adopt(name, tuple(shape), dtype) for name, (shape, dtype) in levels.items()):
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    logger.info("resuming the sketch with %d of %d blocks left", left, len(sweep.blockwise))
    return left


def _boot() -> str:
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _hidden_level(number: int) -> str:
    """Hidden states before block ``number``."""
    return f"hidden-{number:04d}"


def _gradient_level(number: int, sample: int) -> str:
    """Gradients before block ``number``, or after the last one."""
    return f"gradient-{number:04d}-{sample}"
