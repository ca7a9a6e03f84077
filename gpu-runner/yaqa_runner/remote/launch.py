"""``yaqa-runner remote``: everything of a remote run that needs a network or a token, around a child that has neither.

The process here reads the source and writes the staging repo and never opens a model; its child loads the model,
offline, without a token in its environment, kept from everything else as far as the machine allows
(``child_isolation``), and cannot read this process's memory.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yaqa_runner.machine.exhaustion import is_disk_full
from yaqa_runner.protocol.events import event_to_wire, failure_event
from yaqa_runner.protocol.failures import InvalidSpec, RunnerFailure, as_failure
from yaqa_runner.protocol.interrupt import InterruptFlag
from yaqa_runner.protocol.job_spec import JobSpec, Progress, StoredSketch, read_job_spec
from yaqa_runner.remote.child_isolation import Places, measure_child_isolation, wrapped
from yaqa_runner.remote.progress_reporter import ProgressReporter
from yaqa_runner.remote.staging_repo import INPUTS, SPEC_FILE, StagingRepo

logger = logging.getLogger(__name__)

STAGING_TOKEN_VARIABLE = "YAQA_STAGING_TOKEN"
READ_TOKEN_VARIABLE = "HF_TOKEN"

KERNELS_VARIABLE = "NUMBA_CACHE_DIR"
"""Where compiled kernels are that the child gets a copy of. What it writes goes with it: later runs load such code."""

PASSED_ON = (
    "PATH",
    "LANG",
    "LC_ALL",
    "TZ",
    "LD_LIBRARY_PATH",
    "CUDA_VISIBLE_DEVICES",
    "CUDA_HOME",
    "CUDA_DEVICE_ORDER",
    "NVIDIA_VISIBLE_DEVICES",
    "NVIDIA_DRIVER_CAPABILITIES",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
)
"""What the child sees of our environment: where programs and devices are, never a token."""

PR_SET_DUMPABLE = 4
INTERRUPT_POLL_SECONDS = 0.2
REPORT_SECONDS = 2.0
"""How often the control plane gets progress."""


@dataclass(frozen=True)
class RemoteRun:
    """Which attempt to carry out, and where its spec is. ``push_events`` is in seconds, 0 for never."""

    staging: str
    job: str
    fence: int
    push_events: float = 0


class EventRelay:
    """Numbers the child's events, keeps them, and prints them; the result is held back until it was delivered."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: list[bytes] = []
        self.result: dict[str, Any] | None = None

    def take(self, line: str) -> None:
        """One line of the child's stdout. What is no event is a stray print and goes to stderr."""
        try:
            event = json.loads(line)
        except json.JSONDecodeError:
            event = None
        if not isinstance(event, dict) or not isinstance(event.get("event"), str):
            print(line.rstrip("\n"), file=sys.stderr, flush=True)
            return
        with self._lock:
            event["number"] = len(self._lines) + 1
            text = json.dumps(event, separators=(",", ":"))
            self._lines.append(text.encode() + b"\n")
        if event["event"] == "result":
            self.result = event
        else:
            print(text, flush=True)

    def fail(self, failure: RunnerFailure, run: RemoteRun) -> None:
        """End the events with ``failure``, whatever result there was."""
        with self._lock:
            if self.result is not None:
                self._lines.pop()
        self.result = None
        self.take(json.dumps(event_to_wire(failure_event(failure, run.job, run.fence))))

    def bytes(self) -> bytes:
        """Every event so far, one JSON object a line."""
        with self._lock:
            return b"".join(self._lines)


def launch(run: RemoteRun, program: list[str], interrupt: InterruptFlag) -> int:
    """Fetch, run ``program`` as the child, deliver; answers the exit code of the protocol.

    The result's line is printed, and stands in the staging repo, only once everything was uploaded.
    """
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
    for name in ("httpx", "httpx2"):
        logging.getLogger(name).setLevel(logging.WARNING)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    staging_token = os.environ.pop(STAGING_TOKEN_VARIABLE, "")
    read_token = os.environ.pop(READ_TOKEN_VARIABLE, "") or None
    shut_memory()
    relay = EventRelay()
    with tempfile.TemporaryDirectory(prefix="yaqa-run-") as folder:
        work = Path(folder)
        output = work / "out"
        staging: StagingRepo | None = None
        claimed = False
        try:
            if staging_token == "":
                raise InvalidSpec(
                    f"{STAGING_TOKEN_VARIABLE} is not set.", "Hand the staging token to the run as a secret."
                )
            staging = StagingRepo(run.staging, staging_token)
            head = staging.download_spec(work / "staging")
            spec = _checked_spec(run, read_job_spec(work / "staging" / SPEC_FILE))
            staging.claim(head, _run_name())
            claimed = True
            # Imported late: it brings the model code's imports along.
            from yaqa_runner.remote.fetch_source import fetch_source

            source, base = fetch_source(spec.source, read_token)
            placed = place_spec(spec, work / "staging", source, output, base)
            placed["sketch"].pop("stored", None)
            if spec.sketch.stored is not None:
                sketch = fetch_sketch(spec.sketch.stored, work / "stored", read_token)
                if sketch is not None:
                    placed["sketch"]["reuse"] = str(sketch)
            spec_path = work / SPEC_FILE
            # What loads the model gets no token, this one neither.
            placed.pop("progress", None)
            spec_path.write_text(json.dumps(placed), encoding="utf-8")
            with _EventPusher(staging, relay, run.push_events, spec.progress):
                code = _run_child(
                    _kept_apart(
                        [*program, "run", str(spec_path), "--out", str(output), "--processes", "auto"],
                        work,
                        _files_of(placed, spec_path),
                    ),
                    work,
                    relay,
                    interrupt,
                )
            if relay.result is None:
                raise RunnerFailure(
                    "internal", f"The run ended with exit code {code} and no result.", "See the run's log."
                )
        except BaseException as error:
            if isinstance(error, (SystemExit, GeneratorExit)):
                raise
            failure = as_failure(error)
            logger.error("the run failed: %s %s", failure.message, failure.remedy, exc_info=failure.code == "internal")
            relay.fail(failure, run)
            code = failure.exit_code
        if staging is not None and claimed and relay.result is not None:
            try:
                staging.deliver(output if relay.result.get("ok") is True else None, relay.bytes(), relay.result)
            except Exception as error:
                failure = as_failure(error)
                logger.error("the result could not be delivered: %s", failure.message)
                relay.fail(failure, run)
                code = failure.exit_code
        # A run that has not got the attempt says nothing in its name.
        if claimed or staging is None:
            print(json.dumps(relay.result, separators=(",", ":")), flush=True)
        return code


def shut_memory() -> None:
    """Bar other processes of this user from this one's memory and environment: the child must not find the tokens."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def place_spec(spec: JobSpec, staging: Path, source: Path, output: Path, base: Path | None = None) -> dict[str, Any]:
    """The spec as the child gets it: every path on this machine, the source in ``source``, its base in ``base``.

    Raises:
        InvalidSpec: a path is not below ``inputs/``, or nothing lies there.
    """
    inputs = (staging / INPUTS).resolve()

    def place(path: str) -> str:
        placed = (staging / path).resolve()
        if not path.startswith(f"{INPUTS}/") or not placed.is_relative_to(inputs) or not placed.exists():
            raise InvalidSpec(
                f"The spec names {path}, which is not in the staging repo.", "Let the control plane start the run."
            )
        return str(placed)

    document = spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    document["source"]["path"] = str(source)
    if base is not None:
        document["source"]["base"]["path"] = str(base)
    document["staging"] = {"kind": "directory", "path": str(output)}
    if "files" in document["calibration"]:
        document["calibration"]["files"] = [place(path) for path in document["calibration"]["files"]]
    for split in ("selection", "report"):
        for text in document["evaluation"][split]:
            text["path"] = place(text["path"])
    if "reuse" in document["sketch"]:
        document["sketch"]["reuse"] = place(document["sketch"]["reuse"])
    return document


def fetch_sketch(stored: StoredSketch, directory: Path, token: str | None) -> Path | None:
    """Bring a stored sketch below ``directory``; ``None``, with the reason in the log, when it cannot be had.

    A sketch that is taken anew costs time, a run that fails for want of an old one costs more.
    """
    from huggingface_hub import snapshot_download

    try:
        snapshot_download(
            stored.repo,
            repo_type="dataset",
            revision=stored.revision,
            allow_patterns=[f"{stored.path}/*.json", f"{stored.path}/*.safetensors"],
            local_dir=directory,
            token=token or False,
        )
    except Exception as error:
        if is_disk_full(error):
            raise
        logger.warning("the stored sketch cannot be fetched: %s", type(error).__name__)
        return None
    folder = directory / stored.path
    if not folder.is_dir():
        logger.warning("the stored sketch is not there")
        return None
    return folder


def child_environment(work: Path) -> dict[str, str]:
    """What the child sees: no token, no network client that would go online, a home of its own."""
    home = work / "home"
    temporary = work / "tmp"
    home.mkdir(exist_ok=True)
    temporary.mkdir(exist_ok=True)
    compiled, kernels = os.environ.get(KERNELS_VARIABLE), home / "numba"
    if compiled is not None and Path(compiled).is_dir() and not kernels.exists():
        shutil.copytree(compiled, kernels)
    return {
        **{name: os.environ[name] for name in PASSED_ON if name in os.environ},
        "HOME": str(home),
        "TMPDIR": str(temporary),
        KERNELS_VARIABLE: str(kernels),
        "TRITON_CACHE_DIR": str(home / "triton"),
        "HF_HOME": str(home / "huggingface"),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYTHONUNBUFFERED": "1",
    }


def _checked_spec(run: RemoteRun, spec: JobSpec) -> JobSpec:
    if spec.job != run.job or spec.fence != run.fence:
        raise InvalidSpec(
            f"{run.staging} holds the spec of another attempt.", "Let the control plane start a run of its own."
        )
    if spec.staging.kind != "hub" or spec.staging.repo != run.staging:
        raise InvalidSpec("The spec names another staging place.", "Let the control plane start a run of its own.")
    return spec


def _files_of(placed: dict[str, Any], spec_path: Path) -> tuple[Path, ...]:
    """What the child reads."""
    snapshots = [Path(part["path"]) for part in (placed["source"], placed["source"].get("base")) if part is not None]
    # In the Hub client's cache a snapshot's files are links to what lies two folders above.
    paths = [spec_path]
    paths += [source.parent.parent if source.parent.name == "snapshots" else source for source in snapshots]
    paths += [Path(path) for path in placed["calibration"].get("files", [])]
    paths += [Path(text["path"]) for split in ("selection", "report") for text in placed["evaluation"][split]]
    if "reuse" in placed["sketch"]:
        paths.append(Path(placed["sketch"]["reuse"]))
    return tuple(path.resolve() for path in paths)


def _kept_apart(program: list[str], work: Path, read: tuple[Path, ...]) -> list[str]:
    """``program`` in as much isolation as this machine allows."""
    output, home, temporary = work / "out", work / "home", work / "tmp"
    for folder in (output, home, temporary):
        folder.mkdir(exist_ok=True)
    # Another account goes through it to what it may read.
    work.chmod(0o711)
    places = Places(read, (output, home, temporary))
    level, reason = measure_child_isolation(places)
    logger.info("isolation of what loads the model: %s%s", level, "" if reason is None else f" ({reason})")
    return wrapped(level, places, program)


def _run_name() -> str:
    """What tells this run from another one of the same attempt."""
    for name in ("JOB_ID", "GITHUB_RUN_ID"):
        if name in os.environ:
            return f"{os.environ[name]}.{os.environ.get('GITHUB_RUN_ATTEMPT', '1')}"
    return str(uuid.uuid4())


def _run_child(command: list[str], work: Path, relay: EventRelay, interrupt: InterruptFlag) -> int:
    child = subprocess.Popen(
        command,
        cwd=work,
        env=child_environment(work),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    finished = threading.Event()

    def pass_interrupt_on() -> None:
        while not finished.wait(INTERRUPT_POLL_SECONDS):
            try:
                interrupt.check()
            except RunnerFailure:
                child.send_signal(signal.SIGTERM)
                return

    watcher = threading.Thread(target=pass_interrupt_on, daemon=True)
    watcher.start()
    try:
        assert child.stdout is not None
        for line in child.stdout:
            relay.take(line)
        return child.wait()
    except BaseException:
        child.kill()
        child.wait()
        raise
    finally:
        finished.set()
        watcher.join()


class _EventPusher:
    """Reports the run's progress while the block runs.

    The control plane gets it within seconds, where the job says how. Where it does not, or nobody answers, the events
    so far are uploaded to the staging repo every ``seconds`` (0: never).
    """

    def __init__(self, staging: StagingRepo, relay: EventRelay, seconds: float, progress: Progress | None) -> None:
        self._staging = staging
        self._relay = relay
        self._seconds = seconds
        self._reporter = None if progress is None else ProgressReporter(progress)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> None:
        if self._seconds > 0 or self._reporter is not None:
            self._thread = threading.Thread(target=self._push, daemon=True)
            self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _push(self) -> None:
        uploaded = b""
        reported_at = time.monotonic()
        pause = REPORT_SECONDS if self._reporter is not None else self._seconds
        if self._seconds > 0:
            pause = min(pause, self._seconds)
        while not self._stop.wait(pause):
            events = self._relay.bytes()
            if self._reporter is not None and self._reporter.report(events):
                reported_at = time.monotonic()
                continue
            is_late = self._seconds > 0 and time.monotonic() - reported_at >= self._seconds
            if is_late and events != uploaded:
                self._staging.put_events(events)
                uploaded = events
                reported_at = time.monotonic()
