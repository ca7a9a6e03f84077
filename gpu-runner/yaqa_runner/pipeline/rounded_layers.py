"""Which linears an interrupted rounding has finished, and what came of them."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from yaqa_runner.model.linears import LinearLayer
from yaqa_runner.pipeline.codes_file import GridDescription
from yaqa_runner.pipeline.planned_recipe import PlannedRecipe
from yaqa_runner.protocol.manifest import ProxyError, QuantizerName
from yaqa_runner.rounding.settings import RoundingSettings
from yaqa_runner.sketches.store import Sketch
from yaqa_runner.version import __version__
from yaqa_runner.wire_model import WireModel

_KEY_FILE = "key"


class FinishedJob(WireModel):
    """One linear on one grid, rounded by every quantizer; codes and grids are in files named by ``number``.

    Attributes:
        number: Of the job among all.
        recipes: Canonical names of those that share it.
        errors: Its proxy errors.
        sigma_input: Damping of its input factor.
        sigma_output: Damping of its output factor; 0 without one.
        grids: Of every quantizer.
    """

    number: int
    recipes: list[str]
    errors: ProxyError
    sigma_input: float
    sigma_output: float
    grids: dict[QuantizerName, GridDescription]


class FinishedLayer(WireModel):
    """All jobs of one linear."""

    name: str
    jobs: list[FinishedJob]


class RoundedLayers:
    """Records of finished linears, a file each, beside their codes."""

    def __init__(self, folder: Path, key: str) -> None:
        """Take up what is in ``folder`` where it was rounded under the same ``key``; it is emptied else."""
        self.folder = folder
        if not (folder / _KEY_FILE).is_file() or (folder / _KEY_FILE).read_text(encoding="ascii") != key:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            (folder / _KEY_FILE).write_text(key, encoding="ascii")

    def finished(self, place: int, name: str) -> FinishedLayer | None:
        """What came of the linear ``name`` at ``place`` among all, or ``None`` where it is to be rounded."""
        try:
            found = FinishedLayer.model_validate_json(self._file(place).read_bytes())
        except (OSError, ValueError):
            return None
        return found if found.name == name else None

    def keep(self, place: int, layer: FinishedLayer) -> None:
        """Record ``layer``, all of whose codes are in files."""
        temporary = self._file(place).with_suffix(".tmp")
        temporary.write_text(layer.model_dump_json(by_alias=True), encoding="utf-8")
        temporary.rename(self._file(place))

    def _file(self, place: int) -> Path:
        return self.folder / f"layer-{place:06d}.json"


def rounding_key(
    plans: list[PlannedRecipe], layers: list[LinearLayer], sketch: Sketch, settings: RoundingSettings
) -> str:
    """Equal where the codes of ``layers`` are."""
    digest = hashlib.sha256(f"{__version__} {sketch.key} {settings.sigma_input} {settings.sigma_output}".encode())
    for plan in plans:
        digest.update(f"{plan.recipe.canonical} {plan.fitted_group}\n".encode())
        for layer in layers:
            if layer.name in plan.linears:
                kind = plan.container.grid(layer.name).type_of(layer.rows, layer.columns)
                digest.update(f"{layer.name} {kind}\n".encode())
    return digest.hexdigest()
