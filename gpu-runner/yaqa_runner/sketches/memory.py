"""Planning a sketch: what is held at once, and how many passes over the calibration set that costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from yaqa_runner.config import read_list
from yaqa_runner.machine.host_memory import host_memory
from yaqa_runner.model.linears import LinearLayer
from yaqa_runner.sketches.settings import SketchSettings

# Of the host's memory, and of what the model leaves of a GPU's (not of what is free now: a plan must come out the same
# twice on one machine). A batch's activations may take as much again, and logits and their gradients come on top.
BUDGET_SHARE = 0.15
# Pinned memory cannot be swapped out; what is left serves the loader, the containers and everybody else.
PINNED_SHARE = 0.6
GIB = 1024**3
_TABLE = read_list("memory.json")
GPU_BUDGET_SHARE: float = _TABLE["sweep"]["gpuShare"]
# Tokens of a batch: past this a CPU gains nothing and logits [tokens, vocabulary] grow. The bot plans machines by this
# and by the squares below.
BATCH_TOKENS: dict[str, int] = _TABLE["batchTokens"]
# Float32 squares of a linear's two sides: the factor and the sum that is being gathered for it, and of the input the
# second moment.
SQUARES: dict[str, int] = _TABLE["sketchSquares"]


@dataclass(frozen=True)
class MemoryPlan:
    """How a sketch is taken.

    Attributes:
        mode: ``cached`` keeps a window's activations and gradients and iterates on them; ``streaming`` recomputes
            them for every half step and keeps only the factors.
        place: Where factors are kept: on the device, or in pinned host memory, with the GPU copying from and to it.
        recompute: Whether the backward pass computes the blocks' activations anew instead of keeping them.
        windows: Lists of linears that are sketched together.
        batch: Sequences a forward pass.
        passes: Forward passes over the calibration set in all.
        window_bytes: The largest window's bytes.
        activation_bytes: Activations that a batch keeps for its backward pass, roughly.
        budget_bytes: What the plan may use.
    """

    mode: Literal["cached", "streaming"]
    place: Literal["device", "pinned"]
    recompute: bool
    windows: tuple[tuple[LinearLayer, ...], ...]
    batch: int
    passes: int
    window_bytes: int
    activation_bytes: int
    budget_bytes: int

    def describe(self) -> str:
        """One line for people."""
        kept = {"cached": "activations and gradients kept, one pass a window", "streaming": "one pass a half step"}
        windows = "all linears at once" if len(self.windows) == 1 else f"{len(self.windows)} windows of linears"
        where = "" if self.place == "device" else ", factors in pinned host memory"
        anew = ", activations recomputed in the backward pass" if self.recompute else ""
        return (
            f"memory plan: {kept[self.mode]}, {windows} of up to {self.window_bytes / GIB:.2f} GiB{where} "
            f"(budget {self.budget_bytes / GIB:.2f} GiB), {self.passes} pass(es), batches of {self.batch} with about "
            f"{self.activation_bytes / GIB:.2f} GiB of activations{anew}"
        )


def memory_budget(device: torch.device, memory_bytes: int | None, model_bytes: int) -> int:
    """Bytes that a sketch may hold on ``device`` beside the model's ``model_bytes``."""
    if device.type == "cuda":
        left = torch.cuda.get_device_properties(device).total_memory - model_bytes
        return max(0, int(left * GPU_BUDGET_SHARE))
    return int(host_memory(memory_bytes) * BUDGET_SHARE)


def pinned_budget(device: torch.device) -> int:
    """Bytes of host memory that may be pinned for a GPU's factors; 0 where there is no GPU."""
    return int(host_memory() * PINNED_SHARE) if device.type == "cuda" else 0


def plan_memory(
    layers: list[LinearLayer],
    sequences: int,
    length: int,
    settings: SketchSettings,
    budget: int,
    device: torch.device,
    pinned: int = 0,
) -> MemoryPlan:
    """The plan with the fewest forward passes that fits ``budget``. Windows are whole blocks, at least one each.

    Factors that do not fit on the device go to host memory, up to ``pinned`` bytes; beyond that, to windows.
    """
    tokens = sequences * length
    cached = _windows(
        layers, budget, lambda layer: 4 * (tokens * (layer.columns + settings.label_samples * layer.rows))
    )
    streaming = _windows(layers, budget, streaming_bytes)
    steps = settings.iterations
    a_sequence = 4 * length * sum(layer.columns + layer.rows for layer in layers)
    affordable = max(1, budget // a_sequence)
    batch = max(1, min(sequences, BATCH_TOKENS.get(device.type, BATCH_TOKENS["cpu"]) // length, affordable))
    recompute = a_sequence > budget
    blocks = len({layer.block for layer in layers})
    activations = batch * (a_sequence // blocks if recompute else a_sequence)
    cached_fits = max(size for _, size in cached) <= budget
    if cached_fits and len(cached) <= len(streaming) * steps:
        mode: Literal["cached", "streaming"] = "cached"
        place: Literal["device", "pinned"] = "device"
        windows, passes = cached, len(cached)
    else:
        mode, windows, place = "streaming", streaming, "device"
        whole = sum(map(streaming_bytes, layers))
        if len(streaming) > 1 and whole <= pinned:
            windows, place = [(tuple(layers), whole)], "pinned"
        passes = len(windows) * steps
    return MemoryPlan(
        mode=mode,
        place=place,
        recompute=recompute,
        windows=tuple(window for window, _ in windows),
        batch=batch,
        passes=passes,
        window_bytes=max(size for _, size in windows),
        activation_bytes=activations,
        budget_bytes=budget,
    )


def streaming_bytes(layer: LinearLayer) -> int:
    """Bytes of one linear's factors while their half steps are gathered."""
    return 4 * (SQUARES["input"] * layer.columns**2 + SQUARES["output"] * layer.rows**2)


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
