"""The sketch stage: an earlier job's sketch where it serves, else a new one."""

from __future__ import annotations

import logging
from pathlib import Path

from yaqa_runner.calibration.splits import Splits
from yaqa_runner.model.load import SourceModel
from yaqa_runner.monitor import Monitor
from yaqa_runner.pipeline.earlier_sketch import sketch_folder
from yaqa_runner.protocol.interrupt import InterruptFlag
from yaqa_runner.protocol.job_spec import JobSpec
from yaqa_runner.protocol.reporter import Reporter
from yaqa_runner.sketch.compute import SketchInputs, compute_sketch
from yaqa_runner.sketch.memory import memory_budget, pinned_budget, plan_memory
from yaqa_runner.sketch.parallel import ALONE, Ranks
from yaqa_runner.sketch.settings import SketchSettings
from yaqa_runner.sketch.store import SKETCH_FILE, Sketch, SketchUnreadable, link_sketch, open_sketch

logger = logging.getLogger(__name__)


def obtain_sketch(
    spec: JobSpec,
    source: SourceModel,
    source_sha256: str,
    splits: Splits,
    target: Path,
    reporter: Reporter,
    interrupt: InterruptFlag,
    label_samples: int = 1,
    ranks: Ranks = ALONE,
) -> tuple[Sketch, bool]:
    """The sketch at ``target``: left by an interrupted run, an earlier job's, or taken now.

    The second result says whether it is an earlier job's. One that does not fit is told of and not used.
    """
    settings = SketchSettings(spec.sketch.kind, spec.sketch.iterations, spec.calibration.seed, label_samples)
    inputs = SketchInputs(source, source_sha256, splits.calibration, settings)
    key = inputs.key
    wanted = {layer.name for layer in source.linears}
    if (target / SKETCH_FILE).is_file():
        try:
            finished = open_sketch(target, key)
            reporter.skip("sketch", "it was finished before")
            return finished, False
        except SketchUnreadable as error:
            logger.info("the sketch at %s is not used: %s", target, error)
    if spec.sketch.reuse is not None:
        try:
            earlier = open_sketch(sketch_folder(Path(spec.sketch.reuse)), key)
            if wanted != set(earlier.layers):
                raise SketchUnreadable("it is of other linears")
            linked = link_sketch(earlier, target)
            reporter.skip("sketch", "an earlier job's sketch serves")
            return linked, True
        except SketchUnreadable as error:
            reporter.warn("sketch-not-reused", f"The earlier sketch is not used: {error}.")
    plan = plan_memory(
        source.linears,
        splits.calibration.sequences,
        splits.calibration.length,
        settings,
        memory_budget(source.device, spec.limits.memory_bytes, source.parameter_bytes),
        source.device,
        pinned_budget(source.device),
    )
    with reporter.stage("sketch", f"{settings.kind}, {settings.iterations} iterations; {plan.describe()}"):
        monitor = Monitor(
            lambda done, total: reporter.progress("sketch", round(done, 2), total, "sequences"),
            interrupt.check,
            reporter.warn,
        )
        sketch = compute_sketch(inputs, directory=target, plan=plan, monitor=monitor, ranks=ranks)
    return sketch, False
