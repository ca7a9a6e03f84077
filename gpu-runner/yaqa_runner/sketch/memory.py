"""Planning a sketch: what is held at once, and how many passes over the calibration set that costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil
import torch

from yaqa_runner.model.linears import LinearLayer
from yaqa_runner.sketch.settings import SketchSettings

# Of the machine's memory (not of what is free now: a plan must come out the same twice on one machine).
BUDGET_SHARE = 0.15
GIB = 1024**3
# Tokens of a batch: past this a CPU gains nothing and logits [tokens, vocabulary] grow.
BATCH_TOKENS = {"cpu": 4096, "cuda": 16_384}


@dataclass(frozen=True)
class MemoryPlan:
    """How a sketch is taken.

    Attributes:
        mode: ``cached`` keeps a window's activations and gradients and iterates on them; ``streaming`` recomputes
            them for every half step and keeps only the factors.
        windows: Lists of linears that are sketched together.
        batch: Sequences a forward pass.
        passes: Forward passes over the calibration set in all.
        window_bytes: The largest window's bytes.
        budget_bytes: What the plan may use.
    """

    mode: Literal["cached", "streaming"]
    windows: tuple[tuple[LinearLayer, ...], ...]
    batch: int
    passes: int
    window_bytes: int
    budget_bytes: int

    def describe(self) -> str:
        """One line for the log."""
        return (
            f"sketch plan: {self.mode}, {len(self.windows)} window(s) of up to {self.window_bytes / GIB:.2f} GiB "
            f"(budget {self.budget_bytes / GIB:.2f} GiB), {self.passes} pass(es), batch of {self.batch}"
        )


def memory_budget(device: torch.device, memory_bytes: int | None) -> int:
    """Bytes that a sketch may hold on ``device``."""
    total = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else _host_memory()
    if memory_bytes is not None and device.type == "cpu":
        total = min(total, memory_bytes)
    return int(total * BUDGET_SHARE)


def _host_memory() -> int:
    total = int(psutil.virtual_memory().total)
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
        return min(total, int(limit)) if limit.isdigit() else total
    except OSError:
        return total


def plan_memory(
    layers: list[LinearLayer],
    sequences: int,
    length: int,
    settings: SketchSettings,
    budget: int,
    device: torch.device,
) -> MemoryPlan:
    """The plan with the fewest forward passes that fits ``budget``. Windows are whole blocks, at least one each."""
    tokens = sequences * length
    cached = _windows(
        layers, budget, lambda layer: 4 * (tokens * (layer.columns + settings.label_samples * layer.rows))
    )
    streaming = _windows(
        layers, budget, lambda layer: 4 * 2 * (layer.columns**2 + layer.rows**2) + 4 * layer.columns**2
    )
    steps = settings.iterations
    batch = max(1, min(sequences, BATCH_TOKENS.get(device.type, 4096) // length))
    cached_fits = max(size for _, size in cached) <= budget
    if cached_fits and len(cached) <= len(streaming) * steps:
        return MemoryPlan(
            "cached", tuple(window for window, _ in cached), batch, len(cached), max(size for _, size in cached), budget
        )
    return MemoryPlan(
        "streaming",
        tuple(window for window, _ in streaming),
        batch,
        len(streaming) * steps,
        max(size for _, size in streaming),
        budget,
    )


def _windows(
    layers: list[LinearLayer], budget: int, size_of: Callable[[LinearLayer], int]
) -> list[tuple[tuple[LinearLayer, ...], int]]:
    windows: list[tuple[tuple[LinearLayer, ...], int]] = []
    current: list[LinearLayer] = []
    current_size = 0
    for block in sorted({layer.block for layer in layers}):
        members = [layer for layer in layers if layer.block == block]
        size = sum(size_of(layer) for layer in members)
        if current and current_size + size > budget:
            windows.append((tuple(current), current_size))
            current, current_size = [], 0
        current.extend(members)
        current_size += size
    windows.append((tuple(current), current_size))
    return windows
