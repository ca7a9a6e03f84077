"""Specs of small jobs, runs of them in this process, and the schemas that both must fit."""

from __future__ import annotations

import io
import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from yaqa_runner.api.quantize import Quantized, quantize
from yaqa_runner.pipeline.finish import JobOutcome
from yaqa_runner.pipeline.run_job import run_job
from yaqa_runner.protocol.interrupt import InterruptFlag
from yaqa_runner.protocol.job_spec import parse_job_spec
from yaqa_runner.protocol.recipes import parse_recipe
from yaqa_runner.protocol.reporter import Reporter, json_line_sink

CONFIG = Path(__file__).parents[2] / "config"
JOB = "6f0c9f0e-1a70-4b5e-9d7b-0d8f6f4f9b11"


def schema(name: str) -> dict[str, Any]:
    path = CONFIG / name
    if not path.is_file():
        pytest.skip("skipped: the checkout's config folder is not beside this package")
    return json.loads(path.read_text(encoding="utf-8"))


def spec_document(**changes: Any) -> dict[str, Any]:
    document: dict[str, Any] = {
        "protocol": 1,
        "job": JOB,
        "fence": 1,
        "source": {"repo": "demo/tiny", "revision": "0" * 40, "path": "/models/tiny"},
        "calibration": {"kind": "self", "sequences": 4, "length": 16, "seed": 1},
        "evaluation": {"selection": [], "report": [], "sequences": 2, "length": 16, "verificationSequences": 1},
        "sketch": {"kind": "a", "iterations": 2, "sigmaInput": 0.01, "sigmaOutput": 0.1},
        "variants": [{"id": JOB, "recipe": parse_recipe("gguf:q4_0").to_wire()}],
        "staging": {"kind": "directory", "path": "/staging"},
        "limits": {"threads": 1},
    }
    return {**document, **changes}


def document(model: Path, output: Path, *recipes: str, **changes: Any) -> dict[str, Any]:
    variants = [{"id": str(uuid.uuid4()), "recipe": parse_recipe(recipe).to_wire()} for recipe in recipes]
    source = {"repo": "demo/tiny", "revision": "0" * 40, "path": str(model)}
    staging = {"kind": "directory", "path": str(output)}
    return spec_document(source=source, variants=variants, staging=staging, **changes)


def run(
    spec: dict[str, Any], output: Path, flag: InterruptFlag | None = None
) -> tuple[JobOutcome, list[dict[str, Any]]]:
    parsed = parse_job_spec(json.dumps(spec))
    stream = io.StringIO()
    reporter = Reporter(json_line_sink(stream), parsed.job, parsed.fence)
    outcome = run_job(parsed, output, reporter, flag or InterruptFlag())
    return outcome, [json.loads(line) for line in stream.getvalue().splitlines()]


def quantized(model: Path, recipe: str, output: Path) -> Quantized:
    """The model by the Python API, on so little that it takes a second."""
    return quantize(
        model,
        recipe,
        output=output,
        sequences=2,
        length=16,
        evaluation_sequences=2,
        iterations=1,
        threads=1,
    )
