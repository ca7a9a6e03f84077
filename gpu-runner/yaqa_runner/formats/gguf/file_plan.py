"""Which tensors of a GGUF file are made of which linears of the checkpoint."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from transformers.pytorch_utils import Conv1D

from yaqa_runner.formats.gguf.layout import Layout, LayoutTensor
from yaqa_runner.formats.source import ExportError, SourceSnapshot
from yaqa_runner.formats.torch_reference import empty_model


@dataclass(frozen=True)
class Part:
    """The rows of a tensor of the file that are a linear's.

    Attributes:
        places: Indices of the tensor's rows, int64.
        rows: The linear's output of each, int64.
        column: Order of the linear's inputs in the file; ``None`` where they stay.
    """

    places: torch.Tensor
    rows: torch.Tensor
    column: torch.Tensor | None


class FilePlan:
    """Which tensors of the file are made of which linears.

    Attributes:
        parts: Of every tensor, by its name, the parts that are linears'.
        quantized: Those of them that are made of linears' rows alone, each linear being in such tensors whole.
        heights: Outputs of every linear.
    """

    def __init__(self, snapshot: SourceSnapshot, layout: Layout, linears: Collection[str]) -> None:
        transposed = _transposed_modules(snapshot)
        by_source: dict[str, list[_StoredRows]] = {}
        self.heights: dict[str, int] = {}
        for name in linears:
            found_rows = _stored_rows(snapshot, name, transposed)
            if found_rows is not None:
                by_source.setdefault(found_rows.tensor, []).append(found_rows)
                self.heights[name] = found_rows.stop - found_rows.start
        self.parts: dict[str, dict[str, Part]] = {}
        whole: dict[str, dict[str, Part]] = {}
        covered = dict.fromkeys(self.heights, 0)
        for tensor in layout.tensors:
            found = _parts_of(tensor, by_source)
            if found:
                self.parts[tensor.name] = found
            rows = sum(len(part.places) for part in found.values())
            if found and not tensor.full and rows == math.prod(tensor.shape[:-1]):
                whole[tensor.name] = found
                for name, part in found.items():
                    covered[name] += len(part.rows)
        complete = {name for name, rows in covered.items() if rows == self.heights[name]}
        # A tensor that has to stay takes its linears with it, and those the other tensors that they are in.
        while True:
            staying = {name for name, found in whole.items() if not complete.issuperset(found)}
            if not staying:
                break
            for name in staying:
                complete -= set(whole.pop(name))
        self.quantized = whole

    def require_own_tensors(self) -> None:
        """Raise :class:`ExportError` where linears share a tensor, and so a type."""
        for name, found in self.quantized.items():
            if len(found) > 1:
                raise ExportError(
                    f"{len(found)} linears share the tensor {name}, so that they cannot have types of their own. "
                    "Ask for one type, for example gguf:q4_k_m."
                )


@dataclass(frozen=True)
class _StoredRows:
    """Where a linear's weight is in the checkpoint: rows of a tensor whose ``axis`` runs along the columns."""

    linear: str
    tensor: str
    axis: int
    start: int
    stop: int


_EXPERT = re.compile(r"(?P<experts>.+\.experts)\.(?P<number>\d+)\.(?P<part>gate_proj|up_proj|down_proj)")


def _stored_rows(snapshot: SourceSnapshot, linear: str, transposed: set[str]) -> _StoredRows | None:
    stored = snapshot.stored_name(f"{linear}.weight")
    if stored is not None:
        axis = 0 if linear in transposed else 1
        return _StoredRows(linear, stored, axis, 0, snapshot.stored_shape(stored)[1 - axis])
    # An expert of fused tensors: gates on top of ups, [experts, 2 inner, hidden], and downs, [experts, hidden, inner].
    expert = _EXPERT.fullmatch(linear)
    if expert is None:
        return None
    part = expert["part"]
    stored = snapshot.stored_name(f"{expert['experts']}.{'down_proj' if part == 'down_proj' else 'gate_up_proj'}")
    if stored is None or len(snapshot.stored_shape(stored)) != 3:
        return None
    height = snapshot.stored_shape(stored)[1]
    start = int(expert["number"]) * height
    if part == "down_proj":
        return _StoredRows(linear, stored, 2, start, start + height)
    inner = height // 2
    start += inner if part == "up_proj" else 0
    return _StoredRows(linear, stored, 2, start, start + inner)


def _parts_of(tensor: LayoutTensor, by_source: Mapping[str, list[_StoredRows]]) -> dict[str, Part]:
    arrangement = tensor.arrangement
    if arrangement is None:
        return {}
    found = {}
    for number, source in enumerate(arrangement.sources):
        every = arrangement.rows_of(number)
        rows = arrangement.row[every]
        for stored in by_source.get(source, []):
            if stored.axis != arrangement.axis:
                continue
            inside = (rows >= stored.start) & (rows < stored.stop)
            if bool(inside.any()):
                found[stored.linear] = Part(every[inside], rows[inside] - stored.start, arrangement.column)
    return found


def _transposed_modules(snapshot: SourceSnapshot) -> set[str]:
    """Modules whose weight the checkpoint keeps as ``[in, out]``."""
    return {name for name, module in empty_model(snapshot.config).named_modules() if isinstance(module, Conv1D)}
