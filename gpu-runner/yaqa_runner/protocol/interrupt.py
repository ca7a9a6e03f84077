"""Signals: SIGTERM and SIGINT ask the run to stop at its next safe point."""

from __future__ import annotations

import signal
import threading
from types import FrameType

from yaqa_runner.protocol.failures import Interrupted


class InterruptFlag:
    """Set by a signal, looked at between batches and layers."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        """Ask for the stop."""
        self._event.set()

    def check(self) -> None:
        """Raise where the run can safely end.

        Raises:
            Interrupted: a signal came since the start.
        """
        if self._event.is_set():
            raise Interrupted()


def install_signal_handlers(flag: InterruptFlag) -> None:
    """SIGTERM and SIGINT set ``flag``; a second one ends the process at once."""

    def handle(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        flag.set()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)
