"""The write stage: a variant's files, once for every quantizer."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from yaqa_runner.pipeline.planned_recipe import PlannedRecipe
from yaqa_runner.pipeline.publish_folder import published_bytes
from yaqa_runner.pipeline.rounded_recipe import RoundedRecipe
from yaqa_runner.pipeline.run_context import RunContext
from yaqa_runner.protocol.failures import RunnerFailure
from yaqa_runner.protocol.manifest import QuantizerName


@dataclass(frozen=True)
class WrittenVariant:
    """A variant's files under every quantizer.

    Attributes:
        plan: The recipe that was written.
        rounded: What was written.
        folder: Holds a folder for each quantizer.
        size: Bytes of the files, the same for all quantizers.
        seconds: What writing took.
    """

    plan: PlannedRecipe
    rounded: RoundedRecipe
    folder: Path
    size: int
    seconds: float

    def of(self, quantizer: QuantizerName) -> Path:
        """The folder of ``quantizer``."""
        return self.folder / quantizer


def write_variant(*, context: RunContext, plan: PlannedRecipe, rounded: RoundedRecipe, folder: Path) -> WrittenVariant:
    """Write ``rounded`` by the container of ``plan``, every quantizer into a folder of its own below ``folder``.

    Raises:
        ExportError: the container refuses the model or a grid.
        RunnerFailure: the quantizers' files differ in size.
        Interrupted: a signal came.
    """
    started = time.monotonic()
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    with context.monitor.stage("export", "files", plan.recipe.canonical) as monitor:
        for number, quantizer in enumerate(rounded.quantizers, start=1):
            monitor.check()
            plan.container.write(context.linked, rounded.linears[quantizer], folder / quantizer)
            monitor.progress(number, len(rounded.quantizers))
    seconds = time.monotonic() - started
    sizes = {quantizer: published_bytes(folder / quantizer) for quantizer in rounded.quantizers}
    if len(set(sizes.values())) != 1:
        raise RunnerFailure(
            "internal", f"The quantizers' files differ in size: {sizes}.", "This is a bug in the container."
        )
    return WrittenVariant(plan, rounded, folder, next(iter(sizes.values())), seconds)
