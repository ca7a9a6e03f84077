"""How a model's sketch is taken: by one sweep over its blocks, or by passes of the whole model where it has to be."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

from yaqa_runner.model.blocks import BlocksEntangled, BlockwiseModel, check_against_whole
from yaqa_runner.monitor import Monitor
from yaqa_runner.sketches.compute import SketchInputs, compute_sketch
from yaqa_runner.sketches.memory import MemoryPlan, memory_budget, pinned_budget, plan_memory
from yaqa_runner.sketches.parallel import ALONE, Ranks
from yaqa_runner.sketches.store import Sketch
from yaqa_runner.sketches.sweep import sweep_sketch
from yaqa_runner.sketches.sweep_plan import SweepPlan, plan_sweep, sweep_budget

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PlannedSketch:
    """A sketch that is about to be taken.

    Attributes:
        inputs: Of what, and how.
        sweep: The plan of a sweep, and the model to run block by block; ``None`` where it can only be run whole.
        memory_bytes: Host memory to plan for; all of the machine's when ``None``.
    """

    inputs: SketchInputs
    sweep: tuple[SweepPlan, BlockwiseModel] | None
    memory_bytes: int | None

    def describe(self) -> str:
        """One line for people."""
        return self._whole_plan().describe() if self.sweep is None else self.sweep[0].describe()

    def take(self, *, directory: Path, monitor: Monitor, ranks: Ranks = ALONE) -> Sketch:
        """Take the sketch and store it at ``directory``; what an interrupted call left is taken up.

        Raises:
            Interrupted: ``monitor.check`` raised it; what is finished stays.
            RuntimeError: memory ran out with a batch of one.
        """
        if self.sweep is not None:
            plan, blockwise = self.sweep
            try:
                return sweep_sketch(
                    self.inputs, blockwise=blockwise, directory=directory, plan=plan, monitor=monitor, ranks=ranks
                )
            except BlocksEntangled as entangled:
                if not self.inputs.source.weights.whole:
                    raise _too_large(entangled) from entangled
                logger.warning("the model is run whole after all: %s", entangled)
        return compute_sketch(self.inputs, directory=directory, plan=self._whole_plan(), monitor=monitor, ranks=ranks)

    def _whole_plan(self) -> MemoryPlan:
        source, tokens = self.inputs.source, self.inputs.tokens
        budget = memory_budget(source.device, self.memory_bytes, source.parameter_bytes)
        return plan_memory(
            source.linears,
            tokens.sequences,
            tokens.length,
            self.inputs.settings,
            budget,
            source.device,
            pinned_budget(source.device),
        )


def plan_sketch(inputs: SketchInputs, *, directory: Path, memory_bytes: int | None = None) -> PlannedSketch:
    """The plan of a sketch that goes to ``directory``, on a host with ``memory_bytes`` or all that it has."""
    blockwise = _blockwise(inputs)
    if blockwise is None:
        return PlannedSketch(inputs, None, memory_bytes)
    source, tokens = inputs.source, inputs.tokens
    hidden = blockwise.enter(tokens.tokens[:1]).hidden
    plan = plan_sweep(
        source.linears,
        blocks=len(blockwise),
        token_bytes=hidden.nbytes // tokens.length,
        sequences=tokens.sequences,
        length=tokens.length,
        settings=inputs.settings,
        budget=sweep_budget(source.device, memory_bytes, source.parameter_bytes),
        device=source.device,
        disk_bytes=_free_bytes(directory),
    )
    return PlannedSketch(inputs, (plan, blockwise), memory_bytes)


def _blockwise(inputs: SketchInputs) -> BlockwiseModel | None:
    source = inputs.source
    try:
        blockwise = source.blockwise()
        check_against_whole(blockwise, inputs.tokens.tokens)
    except BlocksEntangled as entangled:
        if not source.weights.whole:
            raise _too_large(entangled) from entangled
        logger.info("the model is run whole: %s", entangled)
        return None
    return blockwise


def _too_large(entangled: BlocksEntangled) -> MemoryError:
    return MemoryError(f"the model does not fit and cannot be run block by block: {entangled}")


def _free_bytes(directory: Path) -> int:
    """Free where ``directory`` will be."""
    existing = next(folder for folder in (directory, *directory.absolute().parents) if folder.exists())
    return shutil.disk_usage(existing).free
