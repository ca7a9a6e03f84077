"""How a command ends that fails: one place for what is logged, shown and returned."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import TextIO

from yaqa_runner.protocol.failures import RunnerFailure, as_failure

logger = logging.getLogger(__name__)


def exit_code_of(run: Callable[[], int], report: Callable[[RunnerFailure], None]) -> int:
    """What ``run`` returns, or the exit code of its failure, which goes to ``report`` first.

    argparse's own exit passes, as does the end of a generator.
    """
    try:
        return run()
    except (SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        failure = as_failure(error)
        if failure.code == "internal":
            logger.error("the run failed", exc_info=error)
        report(failure)
        return failure.exit_code


def print_failure(failure: RunnerFailure, stream: TextIO) -> None:
    """The failure as the one JSON document of a command with ``--json``."""
    error = {"code": failure.code, "message": failure.message, "remedy": failure.remedy}
    print(json.dumps({"ok": False, "error": error}), file=stream, flush=True)
