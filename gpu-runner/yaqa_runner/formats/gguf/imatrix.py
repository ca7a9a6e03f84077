"""The importance matrix that llama-quantize takes: mean squares of every linear's inputs, under the file's own names.

What ``llama-imatrix`` would gather on the same tokens. Sums and counts are stored (``in_sum2``, ``counts``), from which
llama.cpp takes the means.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import torch

from yaqa_runner.formats.gguf.converter import layout_of
from yaqa_runner.formats.gguf.file_plan import FilePlan, Part
from yaqa_runner.formats.source import SourceSnapshot


@dataclass(frozen=True)
class InputMoment:
    """What is known of a linear's inputs.

    Attributes:
        mean_square: Float32 ``[in]``.
        tokens: How many it was taken over.
    """

    mean_square: torch.Tensor
    tokens: int


@dataclass(frozen=True)
class CalibrationTokens:
    """What the moments were taken on: a name for it, its sequences and their length."""

    name: str
    sequences: int
    length: int


def write_imatrix(
    path: Path,
    source: Path,
    linears: Collection[str],
    moment: Callable[[str], InputMoment],
    calibration: CalibrationTokens,
) -> None:
    """Write the importance matrix of ``linears`` of the snapshot ``source``. Equal arguments give equal bytes.

    Raises:
        ExportError: llama.cpp has no form for the model.
    """
    snapshot = SourceSnapshot(source)
    plan = FilePlan(snapshot, layout_of(snapshot), linears)
    writer = gguf.GGUFWriter(path=None, arch="")
    # The writer names an architecture, which such a file has none of.
    writer.kv_data[0].pop(gguf.Keys.General.ARCHITECTURE, None)
    writer.add_string(gguf.Keys.General.TYPE, "imatrix")
    writer.add_array("imatrix.datasets", [calibration.name])
    writer.add_uint32("imatrix.chunk_count", calibration.sequences)
    writer.add_uint32("imatrix.chunk_size", calibration.length)
    for name, parts in sorted(plan.quantized.items()):
        matrices = _matrices(parts)
        rows = [_ordered(moment(linear), parts[linear]) for linear in matrices]
        counts = np.array([[float(tokens)] for _, tokens in rows], dtype=np.float32)
        writer.add_tensor(f"{name}.in_sum2", np.stack([mean.numpy() for mean, _ in rows]) * counts)
        writer.add_tensor(f"{name}.counts", counts)
    writer.write_header_to_file(path)
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _matrices(parts: Mapping[str, Part]) -> list[str]:
    """The linears whose inputs the tensor tells apart: all experts in order; one of joined ones, which share theirs."""
    if all(".experts." in name for name in parts):
        return sorted(parts, key=lambda name: int(parts[name].places[0]))
    return [next(iter(parts))]


def _ordered(moment: InputMoment, part: Part) -> tuple[torch.Tensor, int]:
    mean = moment.mean_square if part.column is None else moment.mean_square[part.column]
    return mean.to(torch.float32).contiguous(), moment.tokens
