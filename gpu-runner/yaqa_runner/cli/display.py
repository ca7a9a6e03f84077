"""What a person sees: bars on a terminal, plain lines elsewhere, a table at the end."""

from __future__ import annotations

import sys
import time

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from yaqa_runner.evaluate.tasks import TaskScore
from yaqa_runner.pipeline.measure_folders import MeasuredFolder
from yaqa_runner.protocol.events import (
    FailureEvent,
    LayerEvent,
    MetricEvent,
    ProgressEvent,
    RunnerEvent,
    StageEvent,
    SuccessEvent,
    WarningEvent,
)
from yaqa_runner.protocol.manifest import Manifest

PLAIN_INTERVAL_SECONDS = 10.0
LABEL_CHARACTERS = 32


class _CountColumn(ProgressColumn):
    """How much of how much. A stage has no total before its first progress event."""

    def render(self, task: Task) -> Text:
        if task.total is None:
            return Text()
        return Text(f"{task.completed:.0f}/{task.total:.0f} {task.fields['unit']}")


class Display:
    """An event sink for people, on stderr."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._stage = ""
        self._last_line = 0.0
        if self.console.is_terminal:
            self._progress = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(),
                _CountColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=self.console,
                transient=True,
            )
            self._progress.start()

    def close(self) -> None:
        """Take the bars away."""
        if self._progress is not None:
            self._progress.stop()

    def __call__(self, event: RunnerEvent) -> None:
        """Show one event."""
        match event:
            case StageEvent():
                self._show_stage(event)
            case ProgressEvent():
                self._show_progress(event)
            case MetricEvent():
                if event.split == "report":
                    estimate = event.kl_nats
                    self._line(
                        f"  {event.recipe} {event.quantizer}: "
                        f"KL {estimate.mean:.5f} ± {estimate.standard_error:.5f} nats"
                    )
            case WarningEvent():
                self._line(f"warning: {event.message}", "yellow")
            case FailureEvent():
                self._line(f"{event.error.code}: {event.error.message}\n{event.error.remedy}", "red")
            case LayerEvent() | SuccessEvent():
                pass

    def _show_stage(self, event: StageEvent) -> None:
        detail = f" ({event.detail})" if event.detail else ""
        if event.status == "finished":
            told = "" if event.stage == "sketch" else detail
            self._line(f"{event.stage}{told}: {event.seconds:.1f} s", "green")
        elif event.status == "skipped":
            self._line(f"{event.stage}: skipped{detail}")
        elif event.stage == "sketch" and detail:
            self._line(f"sketch{detail}")
        if event.status == "started" and self._progress is not None:
            if self._task is not None:
                self._progress.remove_task(self._task)
            # A long description leaves no room for the bar; the sketch's stands above as a line of its own.
            label = event.stage if event.stage == "sketch" else f"{event.stage}{detail}"
            self._task = self._progress.add_task(escape(label[:LABEL_CHARACTERS]), total=None, unit="")
        self._last_line = time.monotonic()

    def _show_progress(self, event: ProgressEvent) -> None:
        if self._progress is not None:
            if self._task is not None:
                self._progress.update(self._task, completed=event.done, total=event.total, unit=event.unit)
            return
        now = time.monotonic()
        if now - self._last_line >= PLAIN_INTERVAL_SECONDS:
            self._last_line = now
            eta = "" if event.eta_seconds is None else f", about {event.eta_seconds:.0f} s left"
            self._line(f"  {event.stage}: {event.done:.0f}/{event.total:.0f} {event.unit}{eta}")

    def _line(self, text: str, style: str | None = None) -> None:
        if self._progress is not None:
            self._progress.console.print(text, style=style, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)


def print_scores(console: Console, scores: dict[str, list[TaskScore]]) -> None:
    """The table of tasks, a column for every model."""
    table = Table(title="Tasks, by log-likelihood")
    table.add_column("task")
    table.add_column("metric")
    for name in scores:
        table.add_column(escape(name), justify="right")
    for row in zip(*scores.values(), strict=True):
        cells = [
            f"{score.value:.4f}" + ("" if score.standard_error is None else f" ± {score.standard_error:.4f}")
            for score in row
        ]
        table.add_row(escape(row[0].task), row[0].metric, *cells)
    console.print(table)


def print_summary(console: Console, manifests: list[Manifest]) -> None:
    """The table of what was made."""
    table = Table(title="KL(original ‖ quantized), nats a token, report texts", box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("recipe", "published", "KL ± error", "one-sided", "round to nearest", "top-1", "perplexity", "MiB"):
        table.add_column(heading, justify="left" if heading in ("recipe", "published") else "right", overflow="fold")
    for manifest in manifests:
        rows = {row.quantizer: row for row in manifest.evaluation.measured}
        own = rows[manifest.quantizer]
        kl = own.report.kl_nats
        table.add_row(
            manifest.recipe,
            manifest.quantizer,
            f"{kl.mean:.5f} ± {kl.standard_error:.5f}",
            f"{rows['one-sided'].report.kl_nats.mean:.5f}",
            f"{rows['rtn'].report.kl_nats.mean:.5f}",
            f"{100 * own.report.top_one_agreement:.1f} %",
            f"{own.report.perplexity.original:.2f} → {own.report.perplexity.quantized:.2f}",
            f"{own.bytes / 2**20:.1f}",
        )
    console.print(table)


def print_measured(console: Console, rows: list[MeasuredFolder]) -> None:
    """The table of what was measured."""
    table = Table(title="KL(original ‖ quantized), nats a token", box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("file", "type", "MiB", "bits", "KL ± error", "p99", "top-1", "ppl ×"):
        is_text = heading in ("file", "type")
        table.add_column(heading, justify="left" if is_text else "right", overflow="fold", no_wrap=not is_text)
    for row in rows:
        kl = row.metrics.kl_nats
        table.add_row(
            escape(row.folder.name),
            escape(row.recipe),
            f"{row.size / 2**20:.1f}",
            f"{row.bits_per_weight:.2f}",
            f"{kl.mean:.5f} ± {kl.standard_error:.5f}",
            f"{kl.p99:.5f}",
            f"{100 * row.metrics.top_one_agreement:.1f} %",
            f"{row.metrics.perplexity.ratio:.4f}",
        )
    console.print(table)
