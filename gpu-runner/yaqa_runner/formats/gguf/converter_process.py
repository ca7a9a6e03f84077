"""The process that llama.cpp's converter runs in: started once, a fork for every model.

``python -m yaqa_runner.formats.gguf.converter_process FOLDER`` loads the converter of ``FOLDER`` and answers requests,
a JSON object a line: ``{"snapshot": …, "output": …}``, with ``{"ok": true}``, or with ``{"error": …, "kind": …}`` where
kind is ``refused`` (the model cannot be written) or ``broken`` (the converter did not do what it should). A fork holds
no token, opens no connection and runs no code of a model: one that is killed takes nothing else with it.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

# Slow to import, and every fork would do it again.
import transformers.modeling_utils
import transformers.tokenization_utils_tokenizers  # noqa: F401

from yaqa_runner.formats.gguf.conversion import convert
from yaqa_runner.formats.gguf.upstream import load_upstream
from yaqa_runner.formats.source import ExportError

_MAXIMUM_MESSAGE = 2000


def main() -> None:
    """Serve until the input ends."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    # What libraries print must not be taken for an answer.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    logging.basicConfig(level=os.environ.get("YAQA_CONVERTER_LOG", "ERROR"))
    try:
        upstream = load_upstream(Path(sys.argv[1]))
        upstream.load_all()
    except Exception as error:
        answers.write(json.dumps({"error": f"{type(error).__name__}: {error}", "kind": "broken"}) + "\n")
        answers.flush()
        return
    answers.write(json.dumps({"ok": True}) + "\n")
    answers.flush()
    for line in sys.stdin:
        request = json.loads(line)
        answers.write(json.dumps(_answer(upstream, request)) + "\n")
        answers.flush()


def _answer(upstream: Any, request: dict[str, str]) -> dict[str, Any]:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _work(upstream, request, writing)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as stream:
        text = stream.read()
    _, status = os.waitpid(child, 0)
    if not text:
        return {"error": f"it ended by {_how_it_ended(status)}", "kind": "broken"}
    answer: dict[str, Any] = json.loads(text)
    return answer


def _work(upstream: Any, request: dict[str, str], writing: int) -> NoReturn:
    answer: dict[str, Any]
    try:
        socket.socket = _refuse_connection  # type: ignore[assignment,misc]
        convert(upstream, Path(request["snapshot"]), Path(request["output"]))
        answer = {"ok": True}
    except ExportError as error:
        answer = {"error": str(error)[:_MAXIMUM_MESSAGE], "kind": "refused"}
    except BaseException as error:
        traceback.print_exc()
        answer = {"error": f"{type(error).__name__}: {error}"[:_MAXIMUM_MESSAGE], "kind": "broken"}
    with os.fdopen(writing, "w", encoding="utf-8") as stream:
        stream.write(json.dumps(answer))
    # Not sys.exit: what the parent process registered to run at its end is not this fork's.
    os._exit(0)


def _refuse_connection(*_: object, **__: object) -> NoReturn:
    raise OSError("the converter may not open connections")


def _how_it_ended(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"signal {os.WTERMSIG(status)}"
    return f"exit code {os.waitstatus_to_exitcode(status)}"


if __name__ == "__main__":
    main()
