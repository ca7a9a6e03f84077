"""The importance matrix that GGUF variants carry: llama-quantize takes it, with the sketch's own calibration tokens."""

from __future__ import annotations

import shutil
from pathlib import Path

from yaqa_runner.formats import ExportError
from yaqa_runner.formats.gguf.container import GgufContainer
from yaqa_runner.formats.gguf.imatrix import CalibrationTokens, InputMoment, write_imatrix
from yaqa_runner.model.snapshot import file_sha256
from yaqa_runner.pipeline.planned_recipe import PlannedRecipe
from yaqa_runner.pipeline.publish_folder import IMPORTANCE_FOLDER
from yaqa_runner.pipeline.run_context import RunContext
from yaqa_runner.sketches.store import Sketch

_DIGITS = 8


def write_importance(path: Path, source: Path, sketch: Sketch) -> None:
    """Write the importance matrix of all linears of ``sketch``, which is of the snapshot ``source``.

    Raises:
        ExportError: llama.cpp has no form for the model.
        SketchUnreadable: the sketch lacks what it names.
    """
    calibration = sketch.record.calibration

    def moment(name: str) -> InputMoment:
        return InputMoment(sketch.factors(name).second_moment.diagonal(), sketch.layers[name].tokens)

    tokens = CalibrationTokens(f"sha256:{calibration.sha256}", calibration.sequences, calibration.length)
    write_imatrix(path, source, list(sketch.layers), moment, tokens)


def add_importance(*, context: RunContext, sketch: Sketch, plan: PlannedRecipe, folder: Path) -> None:
    """Put the importance matrix into ``folder``, a GGUF variant's; others have no use for it.

    It is made once a job. Its name tells its content, since runs of other calibration texts publish to the same repo.
    """
    if not isinstance(plan.container, GgufContainer):
        return
    made = context.work / "imatrix.gguf"
    if not made.is_file():
        partial = made.with_suffix(".part")
        try:
            write_importance(partial, context.linked, sketch)
        except ExportError as error:
            context.monitor.warn("imatrix-left-out", f"There is no importance matrix of this model: {error}")
            return
        partial.replace(made)
    digest = file_sha256(made, context.monitor.check)[:_DIGITS]
    (folder / IMPORTANCE_FOLDER).mkdir()
    shutil.copyfile(made, folder / IMPORTANCE_FOLDER / f"imatrix-{digest}.gguf")
