"""Reporting: turns what the pipeline does into events, with stage times and ETAs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from yaqa_runner.protocol.events import (
    LayerEvent,
    MetricEvent,
    ProgressEvent,
    ResultRefusal,
    ResultSketch,
    ResultVariant,
    RunnerEvent,
    StageEvent,
    StageName,
    SuccessEvent,
    WarningEvent,
    event_to_wire,
    failure_event,
    timestamp,
)
from yaqa_runner.protocol.failures import RunnerFailure
from yaqa_runner.protocol.manifest import Estimate, ProxyError, QuantizerName, SplitName

EventSink = Callable[[RunnerEvent], None]

# Ten lines a second are plenty for a bar, and keep a long run's event log small.
PROGRESS_INTERVAL_SECONDS = 0.1


def json_line_sink(stream: TextIO) -> EventSink:
    """A sink that writes one JSON object a line to ``stream`` and flushes each."""

    def write(event: RunnerEvent) -> None:
        stream.write(json.dumps(event_to_wire(event), ensure_ascii=True, allow_nan=False, separators=(",", ":")) + "\n")
        stream.flush()

    return write


class Reporter:
    """Emits the events of one job attempt."""

    def __init__(self, sink: EventSink, job: str, fence: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._sink = sink
        self._job = job
        self._fence = fence
        self._clock = clock
        self._stage_started: dict[StageName, float] = {}
        self._last_progress = float("-inf")
        self.seconds: dict[str, float] = {}
        """Wall-clock seconds of every stage so far; a stage entered several times adds up."""

    @contextmanager
    def stage(self, stage: StageName, detail: str | None = None) -> Iterator[None]:
        """Brackets a stage. A stage that raises is not reported finished."""
        started = self._clock()
        self._stage_started[stage] = started
        self._last_progress = float("-inf")
        self._emit_stage(stage, "started", None, detail)
        yield
        seconds = max(0.0, self._clock() - started)
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
        self._emit_stage(stage, "finished", seconds, detail)

    def skip(self, stage: StageName, detail: str) -> None:
        """Says that a stage was not needed."""
        self._emit_stage(stage, "skipped", None, detail)

    def progress(self, stage: StageName, done: float, total: float, unit: str) -> None:
        """Reports ``done`` of ``total``; the ETA assumes an even pace since the stage began. Rate limited."""
        now = self._clock()
        if done < total and now - self._last_progress < PROGRESS_INTERVAL_SECONDS:
            return
        self._last_progress = now
        elapsed = now - self._stage_started.get(stage, now)
        eta = elapsed * (total - done) / done if done > 0 else None
        self._sink(
            ProgressEvent(
                job=self._job,
                fence=self._fence,
                at=timestamp(),
                stage=stage,
                done=done,
                total=total,
                unit=unit,
                eta_seconds=None if eta is None else max(0.0, round(eta, 1)),
            )
        )

    def layer(self, name: str, recipe: str, proxy_error: ProxyError) -> None:
        """Reports a rounded linear."""
        self._sink(
            LayerEvent(
                job=self._job,
                fence=self._fence,
                at=timestamp(),
                name=name[:512],
                recipe=recipe,
                proxy_error=proxy_error,
            )
        )

    def metric(self, recipe: str, quantizer: QuantizerName, split: SplitName, kl_nats: Estimate) -> None:
        """Reports a measured quantizer."""
        self._sink(
            MetricEvent(
                job=self._job,
                fence=self._fence,
                at=timestamp(),
                recipe=recipe,
                quantizer=quantizer,
                split=split,
                kl_nats=Estimate(mean=kl_nats.mean, standard_error=kl_nats.standard_error),
            )
        )

    def warn(self, code: str, message: str) -> None:
        """Reports something a person should know."""
        self._sink(
            WarningEvent(job=self._job, fence=self._fence, at=timestamp(), code=code[:64], message=message[:4000])
        )

    def succeed(
        self,
        variants: list[ResultVariant],
        refused: list[ResultRefusal],
        sketch: ResultSketch,
        verification: str,
    ) -> None:
        """The last line of a run that worked."""
        self._sink(
            SuccessEvent(
                job=self._job,
                fence=self._fence,
                at=timestamp(),
                variants=variants,
                refused=refused,
                sketch=sketch,
                verification=verification,
            )
        )

    def fail(self, failure: RunnerFailure) -> None:
        """The last line of a run that did not work."""
        self._sink(failure_event(failure, self._job, self._fence))

    def _emit_stage(self, stage: StageName, status: str, seconds: float | None, detail: str | None) -> None:
        self._sink(
            StageEvent.model_validate(
                {
                    "job": self._job,
                    "fence": self._fence,
                    "at": timestamp(),
                    "stage": stage,
                    "status": status,
                    "seconds": None if seconds is None else round(seconds, 3),
                    "detail": None if detail is None else detail[:1000],
                }
            )
        )
