"""``job.json``: what the control plane hands to the runner. Mirrors ``src/protocol/job-spec.ts``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, ValidationError

from yaqa_runner.protocol.failures import InvalidSpec
from yaqa_runner.protocol.recipes import Recipe
from yaqa_runner.wire_model import StrictWireModel

PROTOCOL_VERSION = 1
MAXIMUM_SPEC_BYTES = 4 * 1024 * 1024

UuidText = Annotated[
    str,
    StringConstraints(
        pattern=r"^([0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[1-8][0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}"
        r"|00000000-0000-0000-0000-000000000000|ffffffff-ffff-ffff-ffff-ffffffffffff)$"
    ),
]
AbsolutePath = Annotated[str, StringConstraints(min_length=1, max_length=4096)]
RepoName = Annotated[
    str, StringConstraints(max_length=193, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$")
]
CommitSha = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]
Domain = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,32}$")]
SequenceLength = Annotated[int, Field(ge=8, le=131_072)]
# JSON numbers above 2^53 do not survive JavaScript.
Seed = Annotated[int, Field(ge=0, le=2**53 - 1)]


class EvaluationText(StrictWireModel):
    """One text that figures are measured on; ``domain`` names it on the card."""

    domain: Domain
    path: AbsolutePath


class TextCalibration(StrictWireModel):
    """Calibration tokens from text files."""

    kind: Literal["text"]
    files: Annotated[list[AbsolutePath], Field(min_length=1, max_length=64)]
    sequences: Annotated[int, Field(ge=1, le=1_000_000)]
    length: SequenceLength
    seed: Seed


class SelfCalibration(StrictWireModel):
    """Calibration tokens sampled from the model itself."""

    kind: Literal["self"]
    sequences: Annotated[int, Field(ge=1, le=1_000_000)]
    length: SequenceLength
    seed: Seed


Calibration = Annotated[TextCalibration | SelfCalibration, Field(discriminator="kind")]


class Evaluation(StrictWireModel):
    """Held-out texts. ``sequences`` counts each text's; an empty list means text sampled from the model."""

    selection: Annotated[list[EvaluationText], Field(max_length=16)]
    report: Annotated[list[EvaluationText], Field(max_length=16)]
    sequences: Annotated[int, Field(ge=2, le=100_000)]
    length: SequenceLength
    verification_sequences: Annotated[int, Field(ge=1, le=64)]


class StoredSketch(StrictWireModel):
    """A folder of a Hub data set repo at one commit."""

    repo: RepoName
    revision: CommitSha
    path: Annotated[
        str, StringConstraints(max_length=400, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*$")
    ]


class SketchSpec(StrictWireModel):
    """``iterations`` counts half steps for kind ``a`` and rounds for kind ``b``; ``reuse`` is an earlier sketch.

    Without ``sigma_input`` or ``sigma_output`` each linear is damped as held-out calibration tokens choose.

    ``stored`` says where one is on the Hub; ``yaqa-runner remote`` fetches it and sets ``reuse``.
    """

    kind: Literal["a", "b"]
    iterations: Annotated[int, Field(ge=1, le=16)]
    sigma_input: Annotated[float, Field(ge=0, le=10)] | None = None
    sigma_output: Annotated[float, Field(ge=0, le=10)] | None = None
    reuse: AbsolutePath | None = None
    stored: StoredSketch | None = None


class TuningSettings(StrictWireModel):
    """How long recipes with ``tune=on`` are tuned: passes over the calibration text, 0 for not at all."""

    passes: Annotated[int, Field(ge=0, le=64)] = 4


class RepoSnapshot(StrictWireModel):
    """A Hub model repo at one commit; ``path`` holds the snapshot, else it is downloaded from the read side."""

    repo: RepoName
    revision: CommitSha
    path: AbsolutePath | None = None


class Source(RepoSnapshot):
    """What is quantized: a model, or, with ``base``, an adapter that is merged onto that model first."""

    base: RepoSnapshot | None = None


class VariantRequest(StrictWireModel):
    """One variant to make."""

    id: UuidText
    recipe: Recipe


class DirectoryStaging(StrictWireModel):
    """Finished folders stay on this machine."""

    kind: Literal["directory"]
    path: AbsolutePath


class HubStaging(StrictWireModel):
    """Finished folders go to a private repo, which also holds the spec and, below ``inputs/``, every file it names."""

    kind: Literal["hub"]
    repo: RepoName


Staging = Annotated[DirectoryStaging | HubStaging, Field(discriminator="kind")]


class Progress(StrictWireModel):
    """Where a run elsewhere reports its progress, and the token that lets it; both end with the attempt."""

    url: Annotated[str, StringConstraints(max_length=1000, pattern=r"^https?://")]
    token: Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{1,200}$")]


class Limits(StrictWireModel):
    """What the run may use."""

    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    memory_bytes: Annotated[int, Field(ge=1)] | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"


class JobSpec(StrictWireModel):
    """One job at one attempt (``fence``)."""

    protocol: Literal[1]
    job: UuidText
    fence: Annotated[int, Field(ge=1)]
    source: Source
    calibration: Calibration
    evaluation: Evaluation
    sketch: SketchSpec
    tuning: TuningSettings = TuningSettings()
    variants: Annotated[list[VariantRequest], Field(min_length=1, max_length=64)]
    staging: Staging
    progress: Progress | None = None
    limits: Limits


def describe_validation(error: ValidationError, limit: int = 5) -> str:
    """The first problems of ``error``, as ``path: problem``, without echoing the input."""
    problems = [
        f"{'.'.join(str(part) for part in problem['loc']) or 'spec'}: {problem['msg']}"
        for problem in error.errors(include_url=False, include_input=False)
    ]
    more = "" if len(problems) <= limit else f" (and {len(problems) - limit} more)"
    return "; ".join(problems[:limit]) + more


def parse_job_spec(text: str) -> JobSpec:
    """Parse ``job.json``.

    Raises:
        InvalidSpec: not JSON, not protocol 1, or a field that does not fit.
    """
    try:
        data = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise InvalidSpec(
            f"The job spec is not JSON: {error}", "Write the spec by config/job-spec.schema.json."
        ) from error
    try:
        return JobSpec.model_validate(data)
    except ValidationError as error:
        raise InvalidSpec(
            f"The job spec does not fit: {describe_validation(error)}", "Write the spec by config/job-spec.schema.json."
        ) from error


def read_job_spec(path: Path) -> JobSpec:
    """Read and parse ``job.json``.

    Raises:
        InvalidSpec: the file cannot be read, is larger than 4 MiB, or does not fit.
    """
    try:
        if path.stat().st_size > MAXIMUM_SPEC_BYTES:
            raise InvalidSpec(f"{path} is larger than {MAXIMUM_SPEC_BYTES} bytes.", "Hand in a job spec.")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSpec(
            f"The job spec cannot be read: {error}", "Check the path and its encoding (UTF-8)."
        ) from error
    return parse_job_spec(text)
