"""Sketches of tiny models, taken with a memory plan of one's choice and read to the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from yaqa_runner.calibration.tokens import TokenSet
from yaqa_runner.machine.precision import Precision
from yaqa_runner.model.load import SourceModel
from yaqa_runner.monitor import Monitor
from yaqa_runner.sketches.compute import SketchInputs, compute_sketch
from yaqa_runner.sketches.memory import plan_memory
from yaqa_runner.sketches.settings import SketchSettings
from yaqa_runner.sketches.store import Sketch

PLENTY = 1 << 40


def take(
    source: SourceModel,
    tokens: TokenSet,
    settings: SketchSettings,
    directory: Path,
    budget: int = PLENTY,
    check: Callable[[], None] = lambda: None,
    warn: Callable[[str, str], None] = lambda code, message: None,
    precision: Precision | None = None,
) -> Sketch:
    plan = plan_memory(source.linears, tokens.sequences, tokens.length, settings, budget, torch.device("cpu"))
    inputs = SketchInputs(source, "0" * 64, tokens, settings)
    return compute_sketch(
        inputs, directory=directory, plan=plan, monitor=Monitor(check=check, warn=warn), precision=precision
    )


@dataclass(frozen=True)
class Whole:
    """A linear's factors, read to the end."""

    input: torch.Tensor
    output: torch.Tensor
    second_moment: torch.Tensor

    @classmethod
    def of(cls, sketch: Sketch, name: str) -> Whole:
        factors = sketch.factors(name)
        return cls(factors.input.whole(), factors.output.whole(), factors.second_moment.whole())
