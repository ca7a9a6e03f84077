"""Planning a sweep: where hidden states between blocks are kept, and which of a block's linears are taken together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from yaqa_runner.config import read_list
from yaqa_runner.machine.host_memory import host_memory
from yaqa_runner.model.linears import LinearLayer
from yaqa_runner.sketches.memory import BATCH_TOKENS, GIB, GPU_BUDGET_SHARE, streaming_bytes
from yaqa_runner.sketches.settings import SketchSettings

# The bot plans machines by these shares too, and by the arithmetic below: test/contract/sweep-plans.json holds both.
_SHARES: dict[str, float] = read_list("memory.json")["sweep"]
# Python with its libraries, before any model is there: 0.46 GB were measured.
PROCESS_BYTES: int = read_list("memory.json")["processBytes"]
# Of what is left of the host's memory when the process and the model's resident weights are in it.
SWEEP_SHARE = _SHARES["hostShare"]
# Of the budget: boundary store, pairs or factors of a block, and activations of a batch. The rest is a linear's work.
STORE_SHARE = _SHARES["storeShare"]
PAIRS_SHARE = _SHARES["pairsShare"]
ACTIVATIONS_SHARE = _SHARES["activationsShare"]
# A block's activations are more than the inputs and outputs of its linears: norms, attention, the gated product.
ACTIVATIONS_BESIDES = _SHARES["activationsBesides"]
# Of what a disk has free.
DISK_SHARE = _SHARES["diskShare"]


@dataclass(frozen=True)
class BlockWindow:
    """Linears of one block that are sketched together.

    Attributes:
        layers: The linears.
        mode: ``cached`` keeps their inputs and gradients for all half steps; ``streaming`` computes them anew for each.
    """

    layers: tuple[LinearLayer, ...]
    mode: Literal["cached", "streaming"]


@dataclass(frozen=True)
class SweepPlan:
    """How a sweep is made.

    Attributes:
        store: Where hidden states between blocks are kept.
        store_bytes: What they take with the gradients there.
        batch: Sequences at once.
        activation_bytes: What a batch keeps of one block for its backward pass, roughly.
        pairs_bytes: What inputs, gradients and factors of a block may take at once.
        budget_bytes: What the plan may use in all.
        blocks: Blocks of the model.
        tokens: Calibration tokens.
        settings: How the sketch is taken.
    """

    store: Literal["memory", "disk"]
    store_bytes: int
    batch: int
    activation_bytes: int
    pairs_bytes: int
    budget_bytes: int
    blocks: int
    tokens: int
    settings: SketchSettings

    def windows(self, layers: list[LinearLayer], representatives: Mapping[str, str]) -> list[BlockWindow]:
        """The fewest passes over one block that take all its ``layers``.

        Linears of one input stay together, but where their factors do not fit at once.
        """
        groups: dict[str, list[LinearLayer]] = {}
        for layer in layers:
            groups.setdefault(representatives[layer.name], []).append(layer)
        members = list(groups.values())
        cached = _parts(members, self._pair_bytes, self.pairs_bytes)
        streaming = _parts(self._apart_where_large(members), _factor_bytes, self.pairs_bytes)
        fits = all(sum(map(self._pair_bytes, part)) <= self.pairs_bytes for part in cached)
        if fits and len(cached) <= len(streaming) * self.settings.iterations:
            return [BlockWindow(tuple(layer for group in part for layer in group), "cached") for part in cached]
        return [BlockWindow(tuple(layer for group in part for layer in group), "streaming") for part in streaming]

    def _apart_where_large(self, groups: list[list[LinearLayer]]) -> list[list[LinearLayer]]:
        return [
            part
            for group in groups
            for part in ([group] if _factor_bytes(group) <= self.pairs_bytes else [[layer] for layer in group])
        ]

    def _pair_bytes(self, group: list[LinearLayer]) -> int:
        rows = sum(layer.rows for layer in group)
        return 4 * self.tokens * (group[0].columns + self.settings.label_samples * rows)

    def describe(self) -> str:
        """One line for people."""
        between = (
            f"{self.store_bytes / GIB:.2f} GiB between blocks {'in memory' if self.store == 'memory' else 'on disk'}"
        )
        return (
            f"memory plan: one sweep over {self.blocks} blocks, {between}, "
            f"up to {self.pairs_bytes / GIB:.2f} GiB of a block's inputs and gradients "
            f"(budget {self.budget_bytes / GIB:.2f} GiB), batches of {self.batch} with about "
            f"{self.activation_bytes / GIB:.2f} GiB of activations"
        )


def sweep_budget(device: torch.device, memory_bytes: int | None, resident_bytes: int) -> int:
    """Bytes that a sweep may hold on ``device`` beside the model's ``resident_bytes``."""
    if device.type == "cuda":
        left = torch.cuda.get_device_properties(device).total_memory - resident_bytes
        return max(0, int(left * GPU_BUDGET_SHARE))
    return max(0, int((host_memory(memory_bytes) - PROCESS_BYTES - resident_bytes) * SWEEP_SHARE))


def plan_sweep(
    layers: list[LinearLayer],
    *,
    blocks: int,
    token_bytes: int,
    sequences: int,
    length: int,
    settings: SketchSettings,
    budget: int,
    device: torch.device,
    disk_bytes: int,
) -> SweepPlan:
    """The plan for a model of ``blocks`` blocks with hidden states of ``token_bytes`` a token.

    ``disk_bytes`` are free where the sketch is written.
    """
    tokens = sequences * length
    # Hidden states before every block; gradients after the block at hand, and before it.
    store_bytes = tokens * token_bytes * (blocks + 2 * settings.label_samples)
    in_memory = store_bytes <= budget * STORE_SHARE or store_bytes > disk_bytes * DISK_SHARE
    widest = max(
        sum(layer.columns + layer.rows for layer in layers if layer.block == block)
        for block in {layer.block for layer in layers}
    )
    a_sequence = int(4 * length * widest * ACTIVATIONS_BESIDES)
    affordable = max(1, int(budget * ACTIVATIONS_SHARE) // a_sequence)
    batch = max(1, min(sequences, BATCH_TOKENS.get(device.type, BATCH_TOKENS["cpu"]) // length, affordable))
    return SweepPlan(
        store="memory" if in_memory else "disk",
        store_bytes=store_bytes,
        batch=batch,
        activation_bytes=batch * a_sequence,
        pairs_bytes=int(budget * PAIRS_SHARE),
        budget_bytes=budget,
        blocks=blocks,
        tokens=tokens,
        settings=settings,
    )


def _factor_bytes(group: list[LinearLayer]) -> int:
    return sum(map(streaming_bytes, group))


def _parts(
    groups: list[list[LinearLayer]], size_of: Callable[[list[LinearLayer]], int], budget: int
) -> list[list[list[LinearLayer]]]:
    """``groups`` in order, as many to a part as ``budget`` holds, one at least."""
    parts: list[list[list[LinearLayer]]] = []
    size = 0
    for group in groups:
        more = size_of(group)
        if parts and size + more <= budget:
            parts[-1].append(group)
            size += more
        else:
            parts.append([group])
            size = more
    return parts
