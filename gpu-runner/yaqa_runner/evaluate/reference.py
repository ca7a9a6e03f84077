"""The original model's log-probabilities on the evaluation texts, computed once where the disk allows."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from yaqa_runner.calibration.splits import EvaluationSet
from yaqa_runner.model.load import SourceModel
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

    @property
    def vocabulary(self) -> int:
        """Size of the output distribution."""
        return self._source.vocabulary

    def prepare(self, sets: list[EvaluationSet], monitor: Monitor = SILENT) -> None:
        """Compute and keep what fits on the disk; the rest is computed again whenever it is asked for."""
        self._directory.mkdir(parents=True, exist_ok=True)
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
            step = evaluation_batch(item.tokens.length, self.vocabulary)
            for start in range(0, item.tokens.sequences, step):
                monitor.check()
                batch = item.tokens.tokens[start : start + step]
                values[start : start + len(batch)] = self._compute(batch).numpy()
                done += len(batch)
                monitor.progress(done, total)
            self._cached[id(item)] = _Cached(values)

    def log_probabilities(self, item: EvaluationSet, start: int, stop: int) -> torch.Tensor:
        """Float32 ``[stop − start, length, V]`` on the CPU."""
        cached = self._cached.get(id(item))
        if cached is not None:
            return torch.from_numpy(np.array(cached.values[start:stop]))
        return self._compute(item.tokens.tokens[start:stop])

    @torch.inference_mode()
    def _compute(self, tokens: torch.Tensor) -> torch.Tensor:
        logits = self._source.model(input_ids=tokens.to(self._source.device), use_cache=False).logits
        return logits.float().log_softmax(dim=-1).cpu()  # type: ignore[no-any-return]
