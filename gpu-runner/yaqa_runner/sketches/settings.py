"""What a sketch depends on, and the fingerprint of it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Literal

# Raised whenever the same inputs would give other factors.
SKETCH_CODE_VERSION = 2


@dataclass(frozen=True)
class SketchSettings:
    """How a sketch is taken.

    Attributes:
        kind: ``a`` takes tokens as independent, ``b`` whole sequences.
        iterations: Half steps of the power iteration for ``a``, whole rounds for ``b``.
        seed: Of the labels that are sampled from the model.
        label_samples: Label sets, and so backward passes, for each forward pass.
    """

    kind: Literal["a", "b"]
    iterations: int
    seed: int
    label_samples: int = 1


def sketch_key(source_sha256: str, calibration_sha256: str, settings: SketchSettings) -> str:
    """64 hex digits that are equal exactly when the factors would be: source files, tokens, settings, code."""
    identity = {
        "code": SKETCH_CODE_VERSION,
        "source": source_sha256,
        "calibration": calibration_sha256,
        "kind": settings.kind,
        "iterations": settings.iterations,
        "seed": settings.seed,
        "labelSamples": settings.label_samples,
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
