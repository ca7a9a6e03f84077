"""A recipe's codes and grids, one set for every quantizer."""

from __future__ import annotations

from dataclasses import dataclass, field

from yaqa_runner.formats.container import QuantizedLinear
from yaqa_runner.protocol.manifest import LayerEvidence, QuantizerName

ROUNDED: tuple[QuantizerName, ...] = ("rtn", "one-sided", "two-sided-cautious", "two-sided")
QUANTIZERS: tuple[QuantizerName, ...] = (*ROUNDED, "two-sided-tuned")
"""The simplest first."""


@dataclass
class RoundedRecipe:
    """Every quantizer's codes and grids of one recipe, and what is known of each linear."""

    linears: dict[QuantizerName, dict[str, QuantizedLinear]] = field(
        default_factory=lambda: {quantizer: {} for quantizer in ROUNDED}
    )
    evidence: list[LayerEvidence] = field(default_factory=list)

    @property
    def quantizers(self) -> tuple[QuantizerName, ...]:
        """What there is of this recipe, the simplest first."""
        return tuple(quantizer for quantizer in QUANTIZERS if quantizer in self.linears)
