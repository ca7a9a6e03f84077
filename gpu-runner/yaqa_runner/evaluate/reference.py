"""The original model's log-probabilities on the evaluation texts, computed once where the disk allows."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from yaqa_runner.calibration.splits import EvaluationSet
from yaqa_runner.model.load import SourceModel
from yaqa_runner.model.swept_logits import SweptLogits
from yaqa_runner.monitor import SILENT, Monitor

logger = logging.getLogger(__name__)

# Share of the free disk that cached log-probabilities may take.
DISK_SHARE = 0.25
# Log-probabilities of a batch [b, T, V] in memory.
BATCH_BYTES = 128 * 1024 * 1024


def evaluation_batch(length: int, vocabulary: int) -> int:
    """Sequences at once, so that their float32 log-probabilities take about 128 MiB."""
    return max(1, BATCH_BYTES // (4 * length * vocabulary))


@dataclass(frozen=True)
class _Cached:
    values: np.memmap[tuple[int, ...], np.dtype[np.float32]]


class OriginalReference:
    """Log-probabilities of the original model, by text and sequence."""

    def __init__(self, source: SourceModel, directory: Path) -> None:
        self._source = source
        self._directory = directory
        self._cached: dict[int, _Cached] = {}
        self._swept: SweptLogits | None = None

    @property
    def vocabulary(self) -> int:
        """Size of the output distribution."""
        return self._source.vocabulary

    def prepare(self, sets: list[EvaluationSet], monitor: Monitor = SILENT) -> None:
        """Compute and keep what fits on the disk; the rest is computed again whenever it is asked for.

        Of a model that is run block by block, what is kept are the states that its head alone is left to be run on.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        if not self._source.weights.whole:
            self._sweep([item.tokens.tokens for item in sets], monitor)
            return
        total = sum(item.tokens.sequences for item in sets)
        done = 0
        for number, item in enumerate(sets):
            shape = (item.tokens.sequences, item.tokens.length, self.vocabulary)
            size = 4 * shape[0] * shape[1] * shape[2]
            if size > DISK_SHARE * shutil.disk_usage(self._directory).free:
                logger.info("reference of %s/%s is not cached: %d bytes", item.split, item.domain, size)
                done += item.tokens.sequences
                continue
            values = np.memmap(self._directory / f"{number}.f32", dtype=np.float32, mode="w+", shape=shape)
            for start, found in self._batches(item.tokens.tokens, monitor):
                values[start : start + len(found)] = found.numpy()
                done += len(found)
                monitor.progress(done, total)
            self._cached[id(item)] = _Cached(values)

    def log_probabilities(self, item: EvaluationSet, start: int, stop: int) -> torch.Tensor:
        """Float32 ``[stop − start, length, V]`` on the CPU."""
        cached = self._cached.get(id(item))
        if cached is not None:
            return torch.from_numpy(np.array(cached.values[start:stop]))
        tokens = item.tokens.tokens[start:stop]
        return _log_probabilities(self._source.logits(tokens) if self._swept is None else self._swept.logits(tokens))

    def _sweep(self, texts: Sequence[torch.Tensor], monitor: Monitor) -> None:
        self._swept = SweptLogits(self._source.blockwise(), self._directory / "states")
        self._swept.sweep(texts, monitor.check)
        total = sum(map(len, texts))
        monitor.progress(total, total)

    def _batches(self, tokens: torch.Tensor, monitor: Monitor) -> Iterator[tuple[int, torch.Tensor]]:
        """First sequence and log-probabilities of batches."""
        step = evaluation_batch(tokens.shape[1], self.vocabulary)
        for start in range(0, len(tokens), step):
            monitor.check()
            yield start, _log_probabilities(self._source.logits(tokens[start : start + step]))


def _log_probabilities(logits: torch.Tensor) -> torch.Tensor:
    return logits.float().log_softmax(dim=-1).cpu()
