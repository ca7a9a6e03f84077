"""What long work reports to, and asks whether it may go on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace


def _no_progress(done: float, total: float) -> None:
    pass


def _no_check() -> None:
    pass


def _no_warning(code: str, message: str) -> None:
    pass


@dataclass(frozen=True)
class Monitor:
    """Progress, interruption and warnings in one; by itself silent, and never in the way.

    Attributes:
        progress: Called with what is done and what there is in all, in the unit of the work at hand.
        check: Called where the work can end without loss; raises to end it.
        warn: Called with a code and a sentence for a person where something was left out or done otherwise.
    """

    progress: Callable[[float, float], None] = _no_progress
    check: Callable[[], None] = _no_check
    warn: Callable[[str, str], None] = _no_warning

    def part(self, before: float, total: float) -> Monitor:
        """The monitor of a part of the work: ``before`` was done when it began, of ``total`` in all."""
        return replace(self, progress=lambda done, _: self.progress(before + done, total))


SILENT = Monitor()
"""Reports nothing and goes on."""
