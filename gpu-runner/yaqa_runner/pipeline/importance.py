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
    # A job that goes on with another sketch makes another one.
    mark = f"imatrix-{sketch.key[:16]}"
    made = next(context.work.glob(f"{mark}-*.gguf"), None)
    if made is None:
        partial = context.work / f"{mark}.part"
        try:
            write_importance(partial, context.linked, sketch)
        except ExportError as error:
            context.monitor.warn("imatrix-left-out", f"There is no importance matrix of this model: {error}")
            return
        made = partial.replace(context.work / f"{mark}-{file_sha256(partial, context.monitor.check)[:_DIGITS]}.gguf")
    (folder / IMPORTANCE_FOLDER).mkdir()
    shutil.copyfile(made, folder / IMPORTANCE_FOLDER / f"imatrix-{made.stem[-_DIGITS:]}.gguf")
