"""What all stages of a job share: its spec, its source, its monitor."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from yaqa_runner.formats.decoded_original import decoded_original
from yaqa_runner.machine.cores import available_cores
from yaqa_runner.model.fetch import fetch_snapshot
from yaqa_runner.model.load import SourceModel, choose_device, load_source_model
from yaqa_runner.model.snapshot import Snapshot, fingerprint_files, inspect_snapshot
from yaqa_runner.pipeline.run_monitor import RunMonitor
from yaqa_runner.protocol.job_spec import JobSpec
from yaqa_runner.sketches.launched import launched_processes, number_on_this_machine
from yaqa_runner.sketches.settings import SketchSettings

WORK_DIRECTORY = ".work"


@dataclass(frozen=True)
class RunContext:
    """One job under way.

    Attributes:
        spec: What is asked for.
        output: Where finished folders go.
        snapshot: The source's files; decoded ones, where the original is released quantized.
        source: The model, loaded.
        source_sha256: Of the source's files as they are stored.
        stored: The form they are stored in, where they are not plain.
        sketch_settings: How the sketch is taken.
        threads: Cores that the job may use.
        monitor: Progress, interruption and warnings.
    """

    spec: JobSpec
    output: Path
    snapshot: Snapshot
    source: SourceModel
    source_sha256: str
    stored: Literal["float8", "mxfp4"] | None
    sketch_settings: SketchSettings
    threads: int
    monitor: RunMonitor

    @property
    def work(self) -> Path:
        """What the job needs on its way; removed at its end."""
        return self.output / WORK_DIRECTORY

    @property
    def linked(self) -> Path:
        """The snapshot's folder of links. Containers name files after it, so it is named after the model."""
        return self.work / "source" / self.spec.source.repo.partition("/")[2]


def load_run(
    *,
    spec: JobSpec,
    output: Path,
    monitor: RunMonitor,
    label_samples: int = 1,
    device: torch.device | None = None,
) -> RunContext:
    """Fetch, inspect and load the source of ``spec``, on ``device`` or the one that its limits choose.

    Raises:
        SourceRefused: the source cannot be had, or is unsafe or broken.
        UnsupportedModel: nothing in it can be quantized, or the device is not there.
    """
    # Processes of one torchrun group share the machine's cores.
    threads = max(1, (spec.limits.threads or available_cores()) // launched_processes())
    torch.set_num_threads(threads)
    torch.manual_seed(spec.calibration.seed)
    with monitor.stage("load", "files", spec.source.repo):
        folder, _ = fetch_snapshot(spec.source.repo, spec.source.revision, spec.source.path)
        stored = inspect_snapshot(folder)
        # Each process of a group has its own copy; an interrupted run's is written over.
        decoded = output / WORK_DIRECTORY / f"decoded-{number_on_this_machine()}"
        snapshot = decoded_original(stored, decoded / spec.source.repo.partition("/")[2])
        source = load_source_model(snapshot, device or choose_device(spec.limits.device), spec.limits.memory_bytes)
        source_sha256 = fingerprint_files(stored)
    monitor.check()
    settings = SketchSettings(spec.sketch.kind, spec.sketch.iterations, spec.calibration.seed, label_samples)
    form = None if stored.form is None else stored.form.name
    return RunContext(spec, output, snapshot, source, source_sha256, form, settings, threads, monitor)
