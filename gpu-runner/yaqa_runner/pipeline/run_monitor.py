"""A job's monitor: progress, interruption and warnings of every stage, reported as the job's events."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from yaqa_runner.monitor import Monitor
from yaqa_runner.protocol.events import StageName
from yaqa_runner.protocol.interrupt import InterruptFlag
from yaqa_runner.protocol.reporter import Reporter


@dataclass(frozen=True)
class RunMonitor:
    """What the stages of one job report to.

    Attributes:
        reporter: Emits the job's events, and knows what every stage took.
        interrupt: Set by a signal.
    """

    reporter: Reporter
    interrupt: InterruptFlag

    def check(self) -> None:
        """Raise where the run can safely end.

        Raises:
            Interrupted: a signal came since the start.
        """
        self.interrupt.check()

    def warn(self, code: str, message: str) -> None:
        """Report something a person should know."""
        self.reporter.warn(code, message)

    def within(self, stage: StageName, unit: str) -> Monitor:
        """The monitor of work in ``stage`` whose progress counts in ``unit``."""

        def progress(done: float, total: float) -> None:
            self.reporter.progress(stage, round(done, 2), total, unit)

        return Monitor(progress, self.check, self.warn)

    @contextmanager
    def stage(self, stage: StageName, unit: str, detail: str | None = None) -> Iterator[Monitor]:
        """Bracket a stage. One that raises is not reported finished."""
        with self.reporter.stage(stage, detail):
            yield self.within(stage, unit)
