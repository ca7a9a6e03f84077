"""A job's sketch on several processes of this machine, each with its share of the sequences."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
from pathlib import Path

import torch

from yaqa_runner.model.load import choose_device
from yaqa_runner.pipeline.calibrate import make_splits
from yaqa_runner.pipeline.earlier_sketch import seems_to_serve
from yaqa_runner.pipeline.original import obtain_original
from yaqa_runner.pipeline.run_context import WORK_DIRECTORY, load_run
from yaqa_runner.pipeline.run_monitor import RunMonitor
from yaqa_runner.pipeline.sketch import obtain_sketch
from yaqa_runner.protocol.failures import RunnerFailure
from yaqa_runner.protocol.interrupt import InterruptFlag
from yaqa_runner.protocol.job_spec import JobSpec
from yaqa_runner.protocol.reporter import Reporter
from yaqa_runner.sketches.parallel import joined_ranks, own_device
from yaqa_runner.sketches.store import SKETCH_DIRECTORY, SKETCH_FILE

logger = logging.getLogger(__name__)

INTERRUPT_POLL_SECONDS = 0.2
GRACE_SECONDS = 30.0


def sketch_of_job(spec: JobSpec, output: Path, reporter: Reporter, interrupt: InterruptFlag) -> None:
    """This process's part of the sketch of ``spec``, below ``output``: what ``torchrun`` starts for `spread_sketch`.

    Raises:
        RunnerFailure: with one of the fixed codes.
    """
    # Its processes would link an earlier sketch side by side; the run links one that serves.
    spec = spec.model_copy(update={"sketch": spec.sketch.model_copy(update={"reuse": None})})
    monitor = RunMonitor(reporter, interrupt)
    with joined_ranks(own_device(choose_device(spec.limits.device))) as ranks:
        context = load_run(spec=spec, output=output, monitor=monitor, device=ranks.device)
        splits = make_splits(context=context)
        obtain_sketch(context=context, calibration=splits.calibration, ranks=ranks)


def processes_for(spec: JobSpec, wanted: int | None) -> int:
    """How many processes the sketch is spread over: ``wanted``, or one a GPU that is to be seen."""
    if wanted is not None:
        return wanted
    if spec.limits.device == "cpu" or not torch.cuda.is_available():
        return 1
    return max(1, torch.cuda.device_count())


def spread_sketch(
    spec: JobSpec, spec_path: Path, output: Path, processes: int, reporter: Reporter, interrupt: InterruptFlag
) -> None:
    """Take the sketch of ``spec`` by ``processes`` processes under ``torchrun``; the run then finds it at its place.

    An earlier job's sketch that serves, or one that is finished, leaves nothing to do. A group that fails is warned of;
    what it kept is taken up by the run itself.

    Raises:
        Interrupted: a signal asked for the end.
    """
    is_there = (output / SKETCH_DIRECTORY / SKETCH_FILE).is_file()
    if processes < 2 or spec.source.path is None or is_there:
        return
    if spec.sketch.reuse is not None:
        if seems_to_serve(spec, output / WORK_DIRECTORY):
            return
        reporter.warn("sketch-not-reused", "The earlier sketch is not used: it is of other tokens or settings.")
    if spec.source.base is not None:
        # The whole model is in memory for that: once, not in every process.
        with reporter.stage("load", spec.source.repo):
            obtain_original(spec.source, output / WORK_DIRECTORY)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    run = ["-m", "yaqa_runner", "run", str(spec_path), "--out", str(output), "--sketch-only"]
    with reporter.stage("sketch", f"on {processes} processes"):
        group = subprocess.Popen(
            [sys.executable, *launcher, *run], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        )
        finished = threading.Event()
        watcher = threading.Thread(target=_end_on_interrupt, args=(group, finished, interrupt), daemon=True)
        watcher.start()
        try:
            assert group.stdout is not None
            for line in group.stdout:
                _pass_on(line, reporter)
            code = group.wait()
        finally:
            finished.set()
            watcher.join()
            group.kill()
        interrupt.check()
        if code != 0:
            logger.error("the processes that take the sketch ended with exit code %d", code)
            reporter.warn(
                "sketch-not-spread",
                f"Taking the sketch on {processes} processes failed; one goes on with what they kept.",
            )


def _pass_on(line: str, reporter: Reporter) -> None:
    """Progress and warnings of the group's leader become the run's own; its stages are one of the run's."""
    try:
        event = json.loads(line)
        if event["event"] == "progress" and event["stage"] == "sketch":
            reporter.progress("sketch", float(event["done"]), float(event["total"]), str(event["unit"]))
        elif event["event"] == "warning":
            reporter.warn(str(event["code"]), str(event["message"]))
    except (json.JSONDecodeError, KeyError, TypeError, ValueError):
        print(line.rstrip("\n"), file=sys.stderr, flush=True)


def _end_on_interrupt(group: subprocess.Popen[str], finished: threading.Event, interrupt: InterruptFlag) -> None:
    while not finished.wait(INTERRUPT_POLL_SECONDS):
        try:
            interrupt.check()
        except RunnerFailure:
            # torchrun passes it on to its processes, which stop at their next safe point.
            group.terminate()
            if not finished.wait(GRACE_SECONDS):
                group.kill()
            return
