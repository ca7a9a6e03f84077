"""What the Python API returns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from yaqa_runner.protocol.manifest import Manifest, Metrics
    from yaqa_runner.sketches.store import Sketch


@dataclass(frozen=True)
class QuantizedVariant:
    """One recipe's finished folder.

    Attributes:
        recipe: Its canonical name.
        folder: What the recipe's loader opens as it stands, with ``manifest.json``.
        manifest: The record of it: files and hashes, KL with standard errors, evidence for every layer.
    """

    recipe: str
    folder: Path
    manifest: Manifest

    @property
    def metrics(self) -> Metrics:
        """What the published files measured on the report texts: ``metrics.kl_nats.mean`` and its company."""
        rows = {row.quantizer: row.report for row in self.manifest.evaluation.measured}
        return rows[self.manifest.quantizer]


@dataclass(frozen=True)
class RefusedRecipe:
    """A recipe that cannot hold the model, with the reason and what to do."""

    recipe: str
    message: str
    remedy: str


@dataclass(frozen=True)
class Quantized:
    """What :func:`yaqa_runner.quantize` made.

    Attributes:
        output: The folder of it all.
        variants: One for each recipe that holds the model, in their order.
        refused: The recipes that cannot.
        sketch: The sketch, in ``output / "sketch"``.
    """

    output: Path
    variants: list[QuantizedVariant]
    refused: list[RefusedRecipe]
    sketch: Sketch
