"""Tuning scales under the true KL where the model does not fit: a sweep forward and one backward for every step.

Each step runs the quantized model block by block, keeps the hidden states between blocks, takes the loss through the
head alone, and goes back block by block; a block's scales move as soon as their gradients are there. Only one block's
weights, gradients and moments are in memory; scales and moments are files, of which every step writes its own, so that
whoever is killed loses a step at most.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.func import functional_call

from yaqa_runner.grids.grid import FixedGrid
from yaqa_runner.grids.tunable import TunableGrid
from yaqa_runner.model.blocks import BlockwiseModel
from yaqa_runner.model.boundary_store import BoundaryStore
from yaqa_runner.model.swept_logits import SweptLogits
from yaqa_runner.monitor import SILENT, Monitor
from yaqa_runner.rounding.adam import MOMENTS, Moments
from yaqa_runner.rounding.divergence import mean_divergence
from yaqa_runner.rounding.tune import BatchOrder, TunedScales, TuningSteps, TuningTask, decoded_weight, falling_rate

# Tokens that a block sees at once.
_BATCH_TOKENS = 1024
_LOSSES_FILE = "losses.json"

KeepGrid = Callable[[str, FixedGrid], FixedGrid]
"""Called with a parameter's name and its new grid; gives that grid back, in a file if there are many."""


def tune_by_sweeps(
    blockwise: BlockwiseModel,
    tasks: list[TuningTask],
    tokens: torch.Tensor,
    *,
    steps: TuningSteps,
    folder: Path,
    monitor: Monitor = SILENT,
    keep: KeepGrid = lambda name, grid: grid,
) -> TunedScales:
    """What ``tune_scales`` gives, up to rounding, of a model that is run a block at a time.

    Args:
        blockwise: The original model. Not modified.
        tasks: Every quantized linear of its blocks; codes and grids may be views of files.
        tokens: Calibration sequences ``[sequences, length]`` int64.
        steps: How many, on how many sequences each.
        folder: For scales, moments and states between blocks. What an interrupted call with the same arguments left
            there is taken up.
        monitor: Progress in steps.
        keep: What becomes of each new grid.

    Raises:
        ValueError: there are no tasks or sequences.
        FloatingPointError: the loss is not finite.
        BlocksEntangled: the model can only be run whole.
        Interrupted: ``monitor.check`` raised it.
    """
    if not tasks or len(tokens) == 0:
        raise ValueError("tuning needs at least one layer and one sequence")
    tuning = _Tuning(blockwise, _by_block(blockwise, tasks), steps, folder, monitor)
    original = SweptLogits(blockwise, folder / "original")
    done = tuning.finished_steps()
    if done < steps.count:
        original.sweep([tokens], monitor.check)
    order = BatchOrder(len(tokens), steps.seed)
    for number in range(steps.count):
        chosen = order.next(steps.batch)
        if number >= done:
            tuning.step(number, tokens[chosen], original)
        monitor.progress(number + 1, steps.count)
    shutil.rmtree(folder / "original", ignore_errors=True)
    grids: dict[str, FixedGrid] = {}
    for block in tuning.tasks:
        monitor.check()
        for task, grid in zip(tuning.tasks[block], tuning.grids(block, steps.count), strict=True):
            grids[task.parameter] = keep(task.parameter, grid.finished())
    return TunedScales(grids, tuning.losses(steps.count))


@dataclass
class _Tuning:
    blockwise: BlockwiseModel
    tasks: dict[int, list[TuningTask]]
    steps: TuningSteps
    folder: Path
    monitor: Monitor
    prefixes: dict[int, str] = field(init=False)

    def __post_init__(self) -> None:
        names = {id(module): name for name, module in self.blockwise.model.named_modules()}
        self.prefixes = {number: f"{names[id(block)]}." for number, block in enumerate(self.blockwise.blocks)}

    def finished_steps(self) -> int:
        """How many steps an earlier call has finished; what it left of others is gone."""
        done = [number for number in range(1, self.steps.count + 1) if self._is_finished(number)]
        latest = max(done, default=0)
        for path in self.folder.glob("step-*"):
            if path != self._at(latest):
                shutil.rmtree(path)
        return latest

    def step(self, number: int, tokens: torch.Tensor, original: SweptLogits) -> None:
        """Move all scales by what ``tokens`` ``[b, T]`` say."""
        boundaries = self.folder / "boundary"
        shutil.rmtree(boundaries, ignore_errors=True)
        after = self._at(number + 1)
        shutil.rmtree(after, ignore_errors=True)
        after.mkdir(parents=True)
        store = BoundaryStore(len(tokens), boundaries)
        self._forward(number, tokens, store)
        loss = self._through_head(tokens, store, original)
        if not math.isfinite(loss):
            raise FloatingPointError(f"the KL became {loss} in step {number + 1} of the scale tuning")
        (after / _LOSSES_FILE).write_text(json.dumps([*self.losses(number), loss]), encoding="ascii")
        lowest = min(self.tasks)
        for block in reversed(range(lowest, len(self.blockwise))):
            self._backward(number, block, tokens, store, lowest)
        shutil.rmtree(boundaries)
        shutil.rmtree(self._at(number), ignore_errors=True)

    def losses(self, number: int) -> list[float]:
        """Of every step up to ``number``."""
        path = self._at(number) / _LOSSES_FILE
        return json.loads(path.read_text(encoding="ascii")) if number > 0 else []

    def grids(self, block: int, number: int) -> list[TunableGrid]:
        """The grids of the tasks of ``block`` as ``number`` steps left them."""
        device = self.blockwise.device
        grids = [TunableGrid(task.grid, device) for task in self.tasks[block]]
        stored = self._stored(block, number)
        for place, grid in enumerate(grids):
            for key, change in grid.changes.items():
                if stored:
                    change.data.copy_(stored[f"{place}.{key}"])
        return grids

    @torch.no_grad()
    def _forward(self, number: int, tokens: torch.Tensor, store: BoundaryStore) -> None:
        for start, part in _batches(tokens):
            store.put(_hidden(0), start, self.blockwise.enter(part).hidden)
        for block in range(len(self.blockwise)):
            with self.blockwise.weights.block(block):
                grids = self.grids(block, number) if block in self.tasks else []
                within = self._quantized(block, self._decoded(block, grids))
                for start, part in _batches(tokens):
                    self.monitor.check()
                    states = store.get(_hidden(block), start, len(part)).to(self.blockwise.device)
                    store.put(_hidden(block + 1), start, self.blockwise.run_as(within, block, part, states))

    def _through_head(self, tokens: torch.Tensor, store: BoundaryStore, original: SweptLogits) -> float:
        """The mean KL in nats a token; its gradients after the last block are kept."""
        blockwise, last, total = self.blockwise, len(self.blockwise), 0.0
        for start, part in _batches(tokens):
            self.monitor.check()
            hidden = store.get(_hidden(last), start, len(part)).to(blockwise.device)
            exact = original.hidden(part)
            gradient = torch.empty_like(hidden)
            for place in blockwise.slices(part):
                with torch.no_grad():
                    wanted = blockwise.head(part[:, place], exact[:, place])
                with torch.enable_grad():
                    states = hidden[:, place].detach().requires_grad_(True)
                    logits = blockwise.head(part[:, place], states)
                    loss = mean_divergence(logits, wanted) * (part[:, place].numel() / tokens.numel())
                    (gradient[:, place],) = torch.autograd.grad(loss, states)
                total += float(loss.detach())
            store.put(_gradient(last), start, gradient)
        return total

    def _backward(self, number: int, block: int, tokens: torch.Tensor, store: BoundaryStore, lowest: int) -> None:
        """Gradients of the scales of ``block``, by which they move, and the gradients at its input."""
        with self.blockwise.weights.block(block), torch.enable_grad():
            grids = self.grids(block, number) if block in self.tasks else []
            weights = self._decoded(block, grids)
            leaves = {name: weight.detach().requires_grad_(True) for name, weight in weights.items()}
            within = self._quantized(block, leaves)
            for start, part in _batches(tokens):
                self.monitor.check()
                states = store.get(_hidden(block), start, len(part)).to(self.blockwise.device)
                states = states.detach().requires_grad_(block > lowest)
                output = self.blockwise.run_as(within, block, part, states)
                after = store.get(_gradient(block + 1), start, len(part)).to(self.blockwise.device)
                torch.autograd.backward(output, after)
                if block > lowest:
                    assert states.grad is not None
                    store.put(_gradient(block), start, states.grad)
            # Experts that no token reached have none.
            pairs = [(weights[name], leaf.grad) for name, leaf in leaves.items() if leaf.grad is not None]
            if pairs:
                torch.autograd.backward([weight for weight, _ in pairs], [gradient for _, gradient in pairs])
        store.drop(_hidden(block + 1))
        store.drop(_gradient(block + 1))
        if block in self.tasks:
            self._move(number, block, grids)

    def _move(self, number: int, block: int, grids: list[TunableGrid]) -> None:
        """One step of Adam on the scales of one block, from and to files."""
        changes = {f"{place}.{key}": change for place, grid in enumerate(grids) for key, change in grid.changes.items()}
        stored = self._stored(block, number)
        kept: dict[str, torch.Tensor] = {}
        for name, change in changes.items():
            moments = Moments.of({key: stored[f"{name}.{key}"] for key in MOMENTS}) if stored else Moments.none(change)
            if change.grad is not None:
                moments.move(change.data, change.grad, falling_rate(self.steps, number))
            kept |= {name: change.detach()} | {f"{name}.{key}": value for key, value in moments.tensors().items()}
        path = self._file(block, number + 1)
        temporary = path.with_suffix(".tmp")
        save_file({name: value.cpu().contiguous() for name, value in kept.items()}, temporary)
        temporary.rename(path)

    def _decoded(self, block: int, grids: list[TunableGrid]) -> dict[str, torch.Tensor]:
        """Quantized weights by their names within ``block``, differentiable in the changes of ``grids``."""
        module, prefix = self.blockwise.blocks[block], self.prefixes[block]
        weights = {}
        for task, grid in zip(self.tasks.get(block, []), grids, strict=True):
            name = task.parameter.removeprefix(prefix)
            codes = task.codes.to(self.blockwise.device)
            weights[name] = decoded_weight(task, grid, codes, module.get_parameter(name).dtype)
        return weights

    def _quantized(self, block: int, weights: dict[str, torch.Tensor]) -> nn.Module:
        return _Substituted(self.blockwise.blocks[block], weights)

    def _stored(self, block: int, number: int) -> dict[str, torch.Tensor]:
        return load_file(self._file(block, number)) if number > 0 else {}

    def _is_finished(self, number: int) -> bool:
        return all(self._file(block, number).is_file() for block in self.tasks)

    def _file(self, block: int, number: int) -> Path:
        return self._at(number) / f"block-{block:04d}.safetensors"

    def _at(self, number: int) -> Path:
        return self.folder / f"step-{number:04d}"


class _Substituted(nn.Module):
    """A block with other weights in the place of some of its own."""

    def __init__(self, block: nn.Module, weights: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self._block = block
        self._weights = weights

    def forward(self, *values: Any, **named: Any) -> Any:
        """The block's own forward pass."""
        return functional_call(self._block, self._weights, values, named)


def _by_block(blockwise: BlockwiseModel, tasks: list[TuningTask]) -> dict[int, list[TuningTask]]:
    names = {id(module): f"{name}." for name, module in blockwise.model.named_modules()}
    prefixes = [names[id(block)] for block in blockwise.blocks]
    found: dict[int, list[TuningTask]] = {}
    for task in tasks:
        number = next((place for place, prefix in enumerate(prefixes) if task.parameter.startswith(prefix)), None)
        if number is None:
            raise ValueError(f"{task.parameter} is in none of the model's blocks")
        found.setdefault(number, []).append(task)
    return dict(sorted(found.items()))


def _batches(tokens: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
    """First sequence and tokens of each batch of ``tokens`` ``[b, T]``."""
    step = max(1, _BATCH_TOKENS // tokens.shape[1])
    return ((start, tokens[start : start + step]) for start in range(0, len(tokens), step))


def _hidden(block: int) -> str:
    return f"hidden-{block:04d}"


def _gradient(block: int) -> str:
    return f"gradient-{block:04d}"
