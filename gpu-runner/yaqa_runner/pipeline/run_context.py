"""What all stages of a job share: its spec, its source, its monitor."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from yaqa_runner.machine.cores import available_cores
from yaqa_runner.model.load import SourceModel, choose_device, load_source_model
from yaqa_runner.model.snapshot import Snapshot
from yaqa_runner.pipeline.original import Original, obtain_original
from yaqa_runner.pipeline.run_monitor import RunMonitor
from yaqa_runner.protocol.job_spec import JobSpec
from yaqa_runner.sketches.launched import launched_processes
from yaqa_runner.sketches.settings import SketchSettings

WORK_DIRECTORY = ".work"


@dataclass(frozen=True)
class RunContext:
    """One job under way.

    Attributes:
        spec: What is asked for.
        output: Where finished folders go.
        original: What is quantized: its files, and where they come from.
        source: The model, loaded.
        sketch_settings: How the sketch is taken.
        threads: Cores that the job may use.
        monitor: Progress, interruption and warnings.
    """

    spec: JobSpec
    output: Path
    original: Original
    source: SourceModel
    sketch_settings: SketchSettings
    threads: int
    monitor: RunMonitor

    @property
    def snapshot(self) -> Snapshot:
        """The original's files, with plain weights."""
        return self.original.snapshot

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
        original = obtain_original(spec.source, output / WORK_DIRECTORY)
        source = load_source_model(
            original.snapshot, device or choose_device(spec.limits.device), spec.limits.memory_bytes
        )
    monitor.check()
    settings = SketchSettings(spec.sketch.kind, spec.sketch.iterations, spec.calibration.seed, label_samples)
    return RunContext(spec, output, original, source, settings, threads, monitor)
