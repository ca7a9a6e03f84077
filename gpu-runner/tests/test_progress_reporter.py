"""Telling the control plane of progress."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from yaqa_runner.protocol.job_spec import Progress
from yaqa_runner.remote import progress_reporter
from yaqa_runner.remote.progress_reporter import ProgressReporter


class Listener:
    """A control plane that keeps what is reported and answers as the test says."""

    def __init__(self) -> None:
        self.status = 204
        self.bodies: list[bytes] = []
        self.tokens: list[str] = []
        listener = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                listener.tokens.append(self.headers["Authorization"])
                if listener.status == 204:
                    listener.bodies.append(body)
                self.send_response(listener.status)
                if listener.status == 302:
                    self.send_header("Location", f"http://127.0.0.1:{listener.port}/elsewhere")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def reporter(self) -> ProgressReporter:
        return ProgressReporter(Progress(url=f"http://127.0.0.1:{self.port}/api/runs/j/1/events", token="p1.1.t"))


@pytest.fixture
def listener() -> Iterator[Listener]:
    listener = Listener()
    yield listener
    listener.server.shutdown()
    listener.server.server_close()


def test_every_line_is_reported_once_in_order(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_reporter, "MOST_BYTES", 12)
    reporter = listener.reporter()
    assert reporter.report(b"one\ntwo\nthree\n") is True
    assert listener.bodies == [b"one\ntwo\n", b"three\n"]
    assert reporter.report(b"one\ntwo\nthree\n") is True
    assert reporter.report(b"one\ntwo\nthree\nfour\n") is True
    assert listener.bodies[2:] == [b"four\n"]
    assert set(listener.tokens) == {"Bearer p1.1.t"}


def test_a_failure_is_made_up_for_and_a_refusal_is_final(listener: Listener) -> None:
    reporter = listener.reporter()
    for status in (503, 302):
        listener.status = status
        assert reporter.report(b"one\n") is False
    listener.status = 204
    assert reporter.report(b"one\ntwo\n") is True
    assert listener.bodies == [b"one\ntwo\n"]
    listener.status = 410
    assert reporter.report(b"one\ntwo\nthree\n") is False
    listener.status = 204
    asked = len(listener.tokens)
    assert reporter.report(b"one\ntwo\nthree\n") is False
    assert len(listener.tokens) == asked


def test_nobody_there_is_no_failure_of_the_run() -> None:
    assert ProgressReporter(Progress(url="http://127.0.0.1:9/", token="t")).report(b"one\n") is False
