"""Events: one JSON object a line on stdout. Mirrors ``src/protocol/events.ts``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from yaqa_runner.protocol.failures import FailureCode, RunnerFailure
from yaqa_runner.protocol.manifest import Estimate, ProxyError, QuantizerName, SplitName
from yaqa_runner.wire_model import WireModel

NIL_JOB = "00000000-0000-0000-0000-000000000000"
"""Of events that belong to no job."""

StageName = Literal["load", "calibrate", "sketch", "round", "tune", "export", "evaluate", "gate", "finish"]
STAGES: tuple[StageName, ...] = ("load", "calibrate", "sketch", "round", "tune", "export", "evaluate", "gate", "finish")


class _Event(WireModel):
    job: str
    fence: int
    at: str


class StageEvent(_Event):
    """A stage began, ended (with ``seconds``) or was not needed."""

    event: Literal["stage"] = "stage"
    stage: StageName
    status: Literal["started", "finished", "skipped"]
    seconds: Annotated[float, Field(ge=0)] | None = None
    detail: Annotated[str, StringConstraints(max_length=1000)] | None = None


class ProgressEvent(_Event):
    """How far a stage is."""

    event: Literal["progress"] = "progress"
    stage: StageName
    done: Annotated[float, Field(ge=0)]
    total: Annotated[float, Field(ge=0)]
    unit: Annotated[str, StringConstraints(max_length=32)]
    eta_seconds: Annotated[float, Field(ge=0)] | None


class LayerEvent(_Event):
    """One linear was rounded under one recipe."""

    event: Literal["layer"] = "layer"
    name: Annotated[str, StringConstraints(max_length=512)]
    recipe: Annotated[str, StringConstraints(max_length=200)]
    proxy_error: ProxyError


class MetricEvent(_Event):
    """One quantizer's finished files were measured."""

    event: Literal["metric"] = "metric"
    recipe: Annotated[str, StringConstraints(max_length=200)]
    quantizer: QuantizerName
    split: SplitName
    kl_nats: Estimate


class WarningEvent(_Event):
    """Something a person should know; the run goes on."""

    event: Literal["warning"] = "warning"
    code: Annotated[str, StringConstraints(max_length=64)]
    message: Annotated[str, StringConstraints(max_length=4000)]


class ResultVariant(WireModel):
    """A finished variant; ``directory`` is relative to the staging directory."""

    id: str
    recipe: str
    directory: str


class ResultRefusal(WireModel):
    """A variant that cannot be made, beside those that were: why, and what to do."""

    id: str
    recipe: str
    message: Annotated[str, StringConstraints(max_length=4000)]
    remedy: Annotated[str, StringConstraints(max_length=4000)]


class ResultSketch(WireModel):
    """The sketch that was made or reused; ``directory`` is relative to the staging directory."""

    key: str
    directory: str


class SuccessEvent(_Event):
    """The last line of a run that worked."""

    event: Literal["result"] = "result"
    ok: Literal[True] = True
    variants: list[ResultVariant]
    refused: list[ResultRefusal]
    sketch: ResultSketch
    verification: str


class FailureDetail(WireModel):
    """Why a run failed, and what to do."""

    code: FailureCode
    message: Annotated[str, StringConstraints(max_length=4000)]
    remedy: Annotated[str, StringConstraints(max_length=4000)]


class FailureEvent(_Event):
    """The last line of a run that did not work."""

    event: Literal["result"] = "result"
    ok: Literal[False] = False
    error: FailureDetail


RunnerEvent = StageEvent | ProgressEvent | LayerEvent | MetricEvent | WarningEvent | SuccessEvent | FailureEvent


def timestamp(now: datetime | None = None) -> str:
    """An ISO 8601 instant in UTC with milliseconds, ending in ``Z``."""
    moment = (now or datetime.now(UTC)).astimezone(UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def event_to_wire(event: RunnerEvent) -> dict[str, Any]:
    """Plain data for JSON. ``seconds`` and ``detail`` of a stage are left out when absent, as the schema wants."""
    data = event.to_wire()
    if isinstance(event, StageEvent):
        for key in ("seconds", "detail"):
            if data[key] is None:
                del data[key]
    return data


def failure_event(failure: RunnerFailure, job: str, fence: int) -> FailureEvent:
    """The result line that reports ``failure``."""
    return FailureEvent(
        job=job,
        fence=fence,
        at=timestamp(),
        error=FailureDetail(code=failure.code, message=failure.message, remedy=failure.remedy),
    )
