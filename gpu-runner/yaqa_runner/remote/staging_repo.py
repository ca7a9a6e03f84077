"""The private repo between the control plane and a run elsewhere."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from yaqa_runner.protocol.failures import Interrupted, InvalidSpec, RunnerFailure

logger = logging.getLogger(__name__)

SPEC_FILE = "job.json"
INPUTS = "inputs"
CLAIM_FILE = "claim.json"
EVENTS_FILE = "events.jsonl"
RESULT_FILE = "result.json"
OUTPUT = "out"

ATTEMPTS = 6
FIRST_PAUSE_SECONDS = 1.0

Answer = TypeVar("Answer")


class StagingRepo:
    """One run's staging repo, opened with the token that can write there and nowhere else."""

    def __init__(self, repo: str, token: str, sleep: Callable[[float], None] = time.sleep) -> None:
        # Imported late: the command line's help needs no Hub client.
        from huggingface_hub import HfApi

        self._repo = repo
        self._token = token
        self._api = HfApi(token=token)
        self._sleep = sleep

    def download_spec(self, directory: Path) -> str:
        """Bring the spec and its inputs into ``directory``; answers the commit they are of.

        Raises:
            InvalidSpec: the repo cannot be read with this token, or holds no spec.
            RunnerFailure: the Hub cannot be reached.
        """
        from huggingface_hub import snapshot_download

        def fetch() -> str:
            head = str(self._api.repo_info(self._repo).sha)
            snapshot_download(
                self._repo,
                revision=head,
                local_dir=directory,
                allow_patterns=[SPEC_FILE, f"{INPUTS}/**"],
                token=self._token,
            )
            return head

        head = self._patiently("read the job", fetch)
        if not (directory / SPEC_FILE).is_file():
            raise InvalidSpec(f"{self._repo} holds no {SPEC_FILE}.", "Let the control plane start the run.")
        return head

    def claim(self, head: str, run: str) -> None:
        """Make this run the one that carries the attempt out. Of two that were started, one gets here first.

        Raises:
            Interrupted: another run has the attempt.
            RunnerFailure: the Hub cannot be reached.
        """
        from huggingface_hub import CommitOperationAdd
        from huggingface_hub.errors import HfHubHTTPError

        content = json.dumps({"run": run}).encode()
        for _ in range(3):
            holder = self._claim_holder()
            if holder == run:
                return
            if holder is not None:
                raise Interrupted("Another run carries this attempt out already.")
            parent = head

            def commit(parent: str = parent) -> None:
                self._api.create_commit(
                    self._repo,
                    [CommitOperationAdd(CLAIM_FILE, content)],
                    commit_message="Claim the attempt",
                    parent_commit=parent,
                )

            try:
                self._patiently("claim the attempt", commit, conflicts_pass=True)
                return
            except HfHubHTTPError:
                # Somebody else committed, or our own commit was made and its answer lost: the claim itself tells.
                head = self._patiently("look at the staging repo", lambda: str(self._api.repo_info(self._repo).sha))
        raise RunnerFailure("internal", "The attempt could not be claimed.", "Retry the job.")

    def put_events(self, events: bytes) -> None:
        """Replace the events that were uploaded so far. Whatever goes wrong is only logged: the next call has more."""
        from huggingface_hub import CommitOperationAdd

        try:
            self._api.create_commit(
                self._repo, [CommitOperationAdd(EVENTS_FILE, events)], commit_message="Events so far"
            )
        except Exception as error:
            logger.warning("events could not be uploaded: %s", type(error).__name__)

    def deliver(self, output: Path | None, events: bytes, result: dict[str, Any]) -> None:
        """Upload the files below ``output``, the events and the result, in one commit: all of it or nothing.

        Raises:
            RunnerFailure: the Hub refuses or cannot be reached.
        """
        from huggingface_hub import CommitOperationAdd

        def commit() -> None:
            operations = [
                CommitOperationAdd(EVENTS_FILE, events),
                CommitOperationAdd(RESULT_FILE, json.dumps(result).encode()),
            ]
            for path in sorted(output.rglob("*")) if output is not None else []:
                name = path.relative_to(output or path)
                if path.is_symlink() or not path.is_file() or name.parts[0].startswith("."):
                    continue
                operations.append(CommitOperationAdd(f"{OUTPUT}/{name.as_posix()}", path))
            self._api.create_commit(self._repo, operations, commit_message="Deliver the result")

        self._patiently("deliver the result", commit)

    def _claim_holder(self) -> str | None:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import RemoteEntryNotFoundError

        def read() -> str | None:
            try:
                path = hf_hub_download(self._repo, CLAIM_FILE, token=self._token, force_download=True)
            except RemoteEntryNotFoundError:
                return None
            return str(json.loads(Path(path).read_text(encoding="utf-8"))["run"])

        return self._patiently("look for a claim", read)

    def _patiently(self, what: str, call: Callable[[], Answer], conflicts_pass: bool = False) -> Answer:
        """Call until it works, with growing pauses, as long as asking again may help."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return call()
            except Exception as error:
                if not _is_hub_trouble(error):
                    raise
                status = getattr(getattr(error, "response", None), "status_code", None)
                if conflicts_pass and status in (409, 412):
                    raise
                if status in (401, 403, 404):
                    raise InvalidSpec(
                        f"The Hub answered {status} when the run wanted to {what} in {self._repo}.",
                        "The operator checks the staging token: it must write to the staging namespace and be valid.",
                    ) from error
                final = attempt == ATTEMPTS or (status is not None and status < 500 and status not in (408, 429))
                logger.warning("could not %s (%s, attempt %d)", what, status or type(error).__name__, attempt)
                if final:
                    raise RunnerFailure(
                        "internal", f"The run could not {what}: {type(error).__name__}.", "Retry the job."
                    ) from error
                self._sleep(FIRST_PAUSE_SECONDS * 2 ** (attempt - 1))
        raise AssertionError("unreachable")


def _is_hub_trouble(error: Exception) -> bool:
    """Whether the Hub or the way to it failed, whichever HTTP library this version of the client brings."""
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    known = (HfHubHTTPError, LocalEntryNotFoundError, ConnectionError, TimeoutError)
    return isinstance(error, known) or type(error).__module__.startswith("httpx")
