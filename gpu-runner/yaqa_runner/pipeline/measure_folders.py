"""Finished files, ours or anybody's, against their original, apart from any job."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from yaqa_runner.calibration.overlap import HeldOut
from yaqa_runner.calibration.splits import EvaluationSet, EvaluationSize, capped_length, evaluation_sets
from yaqa_runner.evaluate.finished_model import is_measured_by_blocks, open_finished
from yaqa_runner.evaluate.measure import measure
from yaqa_runner.evaluate.reference import OriginalReference
from yaqa_runner.evaluate.statistics import Comparison, summarize
from yaqa_runner.formats import ExportError, container_for
from yaqa_runner.formats.decoded_original import decoded_original
from yaqa_runner.formats.finished_files import FinishedFiles, find_finished_files, parameters_of
from yaqa_runner.model.load import choose_device, load_source_model
from yaqa_runner.model.snapshot import inspect_snapshot
from yaqa_runner.pipeline.publish_folder import MANIFEST_NAME, own_files, read_manifest
from yaqa_runner.pipeline.run_monitor import RunMonitor
from yaqa_runner.protocol.failures import InvalidSpec
from yaqa_runner.protocol.job_spec import EvaluationText
from yaqa_runner.protocol.manifest import Metrics
from yaqa_runner.protocol.recipes import parse_recipe

_WEIGHT_FILE = r"\.(gguf|onnx|safetensors)$|\.onnx_data(_\d+)?$"


@dataclass(frozen=True)
class MeasuringJob:
    """What is measured: ``files``, against the snapshot in ``source``, on ``texts`` or on sampled sequences.

    Each is a folder that a run of ours left, a GGUF file, an ONNX graph, or a folder with somebody's quantized model.
    """

    source: Path
    files: list[Path]
    texts: list[EvaluationText]
    size: EvaluationSize
    device: Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True)
class MeasuredFolder:
    """One quantized model against its original.

    Attributes:
        folder: The folder, or the file.
        recipe: What it was made by, or says that it is.
        size: Bytes of the files that hold its weights.
        bits_per_weight: The same in bits, over the weights of the original.
        metrics: KL, top-1 agreement and perplexity over all texts.
        by_domain: The same for each text.
    """

    folder: Path
    recipe: str
    size: int
    bits_per_weight: float
    metrics: Metrics
    by_domain: dict[str, Metrics]

    def to_wire(self) -> dict[str, Any]:
        """For JSON."""
        by_domain = {domain: metrics.to_wire() for domain, metrics in self.by_domain.items()}
        return {
            "folder": str(self.folder),
            "recipe": self.recipe,
            "bytes": self.size,
            "bitsPerWeight": round(self.bits_per_weight, 4),
            "report": self.metrics.to_wire(),
            "byDomain": by_domain,
        }


def measure_folders(*, job: MeasuringJob, monitor: RunMonitor) -> list[MeasuredFolder]:
    """Measure everything that ``job`` names, loaded by its format's own library.

    Raises:
        InvalidSpec: a file cannot be opened, or is of another model; or a text cannot be read.
        SourceRefused: the original cannot be loaded.
        Interrupted: a signal came.
    """
    wanted = [_found(path) for path in job.files]
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        with monitor.stage("load", "files", str(job.source)):
            snapshot = decoded_original(inspect_snapshot(job.source), Path(scratch) / "decoded")
            source = load_source_model(snapshot, choose_device(job.device))
        with monitor.stage("calibrate", "sequences") as quiet:
            size = replace(job.size, length=capped_length(job.size.length, source.maximum_length, monitor.warn))
            sets = evaluation_sets(source, "report", job.texts, size, HeldOut(), quiet)
        reference = OriginalReference(source, Path(scratch))
        with monitor.stage("evaluate", "sequences", "original") as progress:
            reference.prepare(sets, progress)
        for files in wanted:
            try:
                model = open_finished(
                    partial(files.load, source.device.type, snapshot.directory),
                    by_blocks=is_measured_by_blocks(source),
                    texts=[item.tokens.tokens for item in sets],
                    folder=Path(scratch) / "finished",
                    check=monitor.check,
                )
            except ExportError as error:
                raise _unusable(files.path, error) from error
            total, done = sum(item.tokens.sequences for item in sets), 0
            comparisons: list[Comparison] = []
            with monitor.stage("evaluate", "sequences", files.label) as progress:
                for item in sets:
                    comparisons.append(measure(model, item, reference, progress.part(done, total)))
                    done += item.tokens.sequences
            found.append(_summary(files, parameters_of(source.model), sets, comparisons))
            del model
    return found


def _found(path: Path) -> FinishedFiles:
    if (path / MANIFEST_NAME).is_file():
        recipe = read_manifest(path).recipe
        container = container_for(parse_recipe(recipe))
        weights = tuple(file for file in own_files(path) if re.search(_WEIGHT_FILE, file.name))
        return FinishedFiles(path, recipe, weights, partial(container.load, path))
    try:
        return find_finished_files(path)
    except ExportError as error:
        raise _unusable(path, error) from error


def _unusable(path: Path, error: ExportError) -> InvalidSpec:
    return InvalidSpec(
        f"{path} cannot be measured: {error}",
        "Give a GGUF file, an ONNX graph, or a folder with a quantized model, of this very original.",
    )


def _summary(
    files: FinishedFiles, parameters: int, sets: list[EvaluationSet], comparisons: list[Comparison]
) -> MeasuredFolder:
    by_domain = {item.domain: summarize([found]) for item, found in zip(sets, comparisons, strict=True)}
    size = files.size
    return MeasuredFolder(files.path, files.label, size, 8 * size / parameters, summarize(comparisons), by_domain)
