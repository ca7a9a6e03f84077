"""A command that a person runs: events on stderr as they come, the result on stdout."""

from __future__ import annotations

import argparse
import json
from typing import Any

from rich.console import Console

from yaqa_runner.cli.display import Display
from yaqa_runner.cli.failing import print_failure
from yaqa_runner.cli.streams import claim_stdout, configure_logging
from yaqa_runner.protocol.events import NIL_JOB, RunnerEvent, failure_event
from yaqa_runner.protocol.failures import RunnerFailure


class Person:
    """Where a command's words go, by its ``--json`` and ``--verbose``."""

    def __init__(self, options: argparse.Namespace, is_silent: bool = False) -> None:
        self._stdout = claim_stdout()
        configure_logging(options.verbose)
        self._display = Display()
        self._is_silent = is_silent
        self._wants_json: bool = options.json

    def show(self, event: RunnerEvent) -> None:
        """Show one event, unless another process of the group speaks."""
        if not self._is_silent:
            self._display(event)

    def close(self) -> None:
        """Take the bars away."""
        self._display.close()

    def fail(self, failure: RunnerFailure) -> None:
        """Show why the command ends without a result."""
        self.show(failure_event(failure, NIL_JOB, 1))
        self.close()
        if self._wants_json:
            print_failure(failure, self._stdout)

    def print(self, text: str) -> None:
        """A line of the result, broken at spaces where a terminal is narrower; whole where something else reads it."""
        console = self.console()
        if console.is_terminal:
            console.print(text, markup=False, highlight=False)
        else:
            print(text, file=self._stdout, flush=True)

    def print_json(self, document: dict[str, Any]) -> None:
        """The result as one JSON document."""
        print(json.dumps(document), file=self._stdout, flush=True)

    def console(self) -> Console:
        """For tables of the result."""
        return Console(file=self._stdout)
