"""Reports a run's progress to the control plane."""

from __future__ import annotations

import logging
from typing import Any
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from yaqa_runner.protocol.job_spec import Progress

logger = logging.getLogger(__name__)

TIMEOUT_SECONDS = 10.0
MOST_BYTES = 512 * 1024


class _NoRedirects(HTTPRedirectHandler):
    """An address that points elsewhere is not followed: the token is for one place."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


class ProgressReporter:
    """Sends events in order, from the first that was not taken; what fails is sent again by the next call."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._opener = build_opener(_NoRedirects)
        self._taken = 0
        self._refused = False

    def report(self, events: bytes) -> bool:
        """Send what of ``events``, every line so far, is new. ``True``: the other side has all of it."""
        while not self._refused and self._taken < len(events):
            batch = events[self._taken : self._taken + MOST_BYTES]
            end = batch.rfind(b"\n") + 1
            if end == 0:
                # One line alone is too long to send.
                self._refused = True
                break
            request = Request(
                self._progress.url,
                data=batch[:end],
                headers={"Authorization": f"Bearer {self._progress.token}", "Content-Type": "application/x-ndjson"},
                method="POST",
            )
            try:
                with self._opener.open(request, timeout=TIMEOUT_SECONDS):
                    self._taken += end
            except HTTPError as error:
                # The attempt is over there, or the token is: asking again helps nobody.
                self._refused = error.code in (401, 403, 404, 410, 413)
                logger.warning("the control plane answered %d to progress", error.code)
                return False
            except OSError as error:
                logger.warning("the control plane could not be sent progress: %s", type(error).__name__)
                return False
        return not self._refused
