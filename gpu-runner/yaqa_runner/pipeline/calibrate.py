"""The tokens of a job: what the sketch is taken on, and what figures are measured on."""

from __future__ import annotations

from yaqa_runner.calibration.overlap import HeldOut
from yaqa_runner.calibration.splits import Splits, build_calibration, build_splits
from yaqa_runner.calibration.tokens import TokenSet
from yaqa_runner.pipeline.run_context import RunContext


def make_splits(*, context: RunContext) -> Splits:
    """Calibration, selection and report tokens, disjoint from each other.

    Raises:
        InvalidSpec: a text cannot be read, splits repeat each other, or texts are given and there is no tokenizer.
    """
    with context.monitor.stage("calibrate", "sequences") as monitor:
        return build_splits(context.source, context.spec.calibration, context.spec.evaluation, monitor)


def make_calibration(*, context: RunContext) -> TokenSet:
    """Calibration tokens alone, for a sketch that nothing is measured with.

    Raises:
        InvalidSpec: a text cannot be read, or texts are given and there is no tokenizer.
    """
    with context.monitor.stage("calibrate", "sequences") as monitor:
        return build_calibration(context.source, context.spec.calibration, HeldOut(), monitor)
