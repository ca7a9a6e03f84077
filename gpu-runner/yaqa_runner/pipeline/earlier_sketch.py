"""Whether an earlier job's sketch will serve, found out before the model is loaded."""

from __future__ import annotations

from pathlib import Path

from yaqa_runner.calibration.splits import calibration_without_model
from yaqa_runner.model.load import load_config, load_tokenizer, maximum_length
from yaqa_runner.model.snapshot import inspect_snapshot
from yaqa_runner.pipeline.original import obtain_original
from yaqa_runner.protocol.failures import RunnerFailure
from yaqa_runner.protocol.job_spec import JobSpec, TextCalibration
from yaqa_runner.sketches.settings import SKETCH_CODE_VERSION
from yaqa_runner.sketches.store import SKETCH_DIRECTORY, SKETCH_FILE, SketchUnreadable, open_sketch


def sketch_folder(path: Path) -> Path:
    """Where the sketch lies that a spec names: ``path`` itself, or its folder in a job's output."""
    return path if (path / SKETCH_FILE).is_file() else path / SKETCH_DIRECTORY


def seems_to_serve(spec: JobSpec, work: Path) -> bool:
    """Whether the sketch that ``spec`` names is of the settings and, for texts, the tokens of this job.

    What has to be made of the source for that lies below ``work``.

    The weights are not looked at: they are read once, by the run, which checks the whole key. Nor is a model that the
    run will refuse refused here.
    """
    try:
        record = open_sketch(sketch_folder(Path(spec.sketch.reuse or "")), verify=False).record
        taken = (record.kind, record.iterations, record.seed, record.code_version)
        if taken != (spec.sketch.kind, spec.sketch.iterations, spec.calibration.seed, SKETCH_CODE_VERSION):
            return False
        if not isinstance(spec.calibration, TextCalibration):
            return True
        snapshot = (
            inspect_snapshot(Path(spec.source.path or ""))
            if spec.source.base is None
            else obtain_original(spec.source, work).snapshot
        )
        tokenizer = load_tokenizer(snapshot)
        if tokenizer is None:
            return True
        length = maximum_length(load_config(snapshot))
        tokens = calibration_without_model(spec.calibration, spec.evaluation, tokenizer, length)
        return tokens.sha256 == record.calibration.sha256
    except SketchUnreadable:
        return False
    except RunnerFailure:
        return True
