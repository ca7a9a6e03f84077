"""The sketch stage: one left by an interrupted run, an earlier job's, or taken now."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from yaqa_runner.calibration.tokens import TokenSet
from yaqa_runner.pipeline.earlier_sketch import sketch_folder
from yaqa_runner.pipeline.run_context import RunContext
from yaqa_runner.sketches.compute import SketchInputs
from yaqa_runner.sketches.parallel import ALONE, Ranks
from yaqa_runner.sketches.store import SKETCH_DIRECTORY, SKETCH_FILE, Sketch, SketchUnreadable, link_sketch, open_sketch
from yaqa_runner.sketches.take import plan_sketch

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ObtainedSketch:
    """A job's sketch, and whether it is an earlier job's."""

    sketch: Sketch
    reused: bool


def obtain_sketch(
    *, context: RunContext, calibration: TokenSet, target: Path | None = None, ranks: Ranks = ALONE
) -> ObtainedSketch:
    """The sketch of the job's source on ``calibration``, at ``target`` or its place in the output.

    An earlier one that does not fit is warned of and not used. With ``ranks``, every process of them calls this.
    """
    target = context.output / SKETCH_DIRECTORY if target is None else target
    inputs = SketchInputs(context.source, context.original.sha256, calibration, context.sketch_settings)
    found = _finished_before(context, target, inputs.key) or _earlier(context, target, inputs.key)
    return found or ObtainedSketch(_taken(context, inputs, target, ranks), reused=False)


def _finished_before(context: RunContext, target: Path, key: str) -> ObtainedSketch | None:
    if not (target / SKETCH_FILE).is_file():
        return None
    try:
        finished = open_sketch(target, key)
    except SketchUnreadable as error:
        logger.info("the sketch at %s is not used: %s", target, error)
        return None
    context.monitor.reporter.skip("sketch", "it was finished before")
    return ObtainedSketch(finished, reused=False)


def _earlier(context: RunContext, target: Path, key: str) -> ObtainedSketch | None:
    if context.spec.sketch.reuse is None:
        return None
    try:
        earlier = open_sketch(sketch_folder(Path(context.spec.sketch.reuse)), key)
        if {layer.name for layer in context.source.linears} != set(earlier.layers):
            raise SketchUnreadable("it is of other linears")
        linked = link_sketch(earlier, target)
    except SketchUnreadable as error:
        context.monitor.warn("sketch-not-reused", f"The earlier sketch is not used: {error}.")
        return None
    context.monitor.reporter.skip("sketch", "an earlier job's sketch serves")
    return ObtainedSketch(linked, reused=True)


def _taken(context: RunContext, inputs: SketchInputs, target: Path, ranks: Ranks) -> Sketch:
    settings = inputs.settings
    planned = plan_sketch(inputs, directory=target, memory_bytes=context.spec.limits.memory_bytes)
    detail = f"{settings.kind}, {settings.iterations} iterations; {planned.describe()}"
    with context.monitor.stage("sketch", "sequences", detail) as monitor:
        return planned.take(directory=target, monitor=monitor, ranks=ranks)
