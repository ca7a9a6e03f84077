"""Finished folders against their original, apart from any job."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from yaqa_runner.calibration.overlap import HeldOut
from yaqa_runner.calibration.splits import EvaluationSet, EvaluationSize, capped_length, evaluation_sets
from yaqa_runner.evaluate.measure import measure
from yaqa_runner.evaluate.reference import OriginalReference
from yaqa_runner.evaluate.statistics import Comparison, summarize
from yaqa_runner.formats import container_for
from yaqa_runner.model.load import choose_device, load_source_model
from yaqa_runner.model.snapshot import inspect_snapshot
from yaqa_runner.pipeline.publish_folder import read_manifest
from yaqa_runner.pipeline.run_monitor import RunMonitor
from yaqa_runner.protocol.job_spec import EvaluationText
from yaqa_runner.protocol.manifest import Metrics
from yaqa_runner.protocol.recipes import parse_recipe


@dataclass(frozen=True)
class MeasuringJob:
    """What is measured: ``folders``, against the snapshot in ``source``, on ``texts`` or on sampled sequences."""

    source: Path
    folders: list[Path]
    texts: list[EvaluationText]
    size: EvaluationSize
    device: Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True)
class MeasuredFolder:
    """One finished folder against its original.

    Attributes:
        folder: The folder.
        recipe: What it was made by.
        metrics: KL, top-1 agreement and perplexity over all texts.
        by_domain: The same for each text.
    """

    folder: Path
    recipe: str
    metrics: Metrics
    by_domain: dict[str, Metrics]

    def to_wire(self) -> dict[str, Any]:
        """For JSON."""
        by_domain = {domain: metrics.to_wire() for domain, metrics in self.by_domain.items()}
        return {
            "folder": str(self.folder),
            "recipe": self.recipe,
            "report": self.metrics.to_wire(),
            "byDomain": by_domain,
        }


def measure_folders(*, job: MeasuringJob, monitor: RunMonitor) -> list[MeasuredFolder]:
    """Measure every folder of ``job``, loaded by its format's own library.

    Raises:
        InvalidSpec: a folder holds no variant, or a text cannot be read.
        SourceRefused: the original cannot be loaded.
        Interrupted: a signal came.
    """
    recipes = [read_manifest(folder).recipe for folder in job.folders]
    with monitor.stage("load", "files", str(job.source)):
        source = load_source_model(inspect_snapshot(job.source), choose_device(job.device))
    with monitor.stage("calibrate", "sequences") as quiet:
        size = replace(job.size, length=capped_length(job.size.length, source.maximum_length, monitor.warn))
        sets = evaluation_sets(source, "report", job.texts, size, HeldOut(), quiet)
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        reference = OriginalReference(source, Path(scratch))
        with monitor.stage("evaluate", "sequences", "original") as progress:
            reference.prepare(sets, progress)
        for folder, recipe in zip(job.folders, recipes, strict=True):
            model = container_for(parse_recipe(recipe)).load(folder, source.device.type, job.source)
            total, done = sum(item.tokens.sequences for item in sets), 0
            comparisons: list[Comparison] = []
            with monitor.stage("evaluate", "sequences", recipe) as progress:
                for item in sets:
                    comparisons.append(measure(model, item, reference, progress.part(done, total)))
                    done += item.tokens.sequences
            found.append(_summary(folder, recipe, sets, comparisons))
            del model
    return found


def _summary(folder: Path, recipe: str, sets: list[EvaluationSet], comparisons: list[Comparison]) -> MeasuredFolder:
    by_domain = {item.domain: summarize([found]) for item, found in zip(sets, comparisons, strict=True)}
    return MeasuredFolder(folder, recipe, summarize(comparisons), by_domain)
