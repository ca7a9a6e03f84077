"""Loading finished files to be measured beside their original: whole where both fit, block by block where not."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from yaqa_runner.config import read_list
from yaqa_runner.formats.blockwise_reference import BlockwiseReferenceModel
from yaqa_runner.formats.container import ReferenceModel
from yaqa_runner.machine.host_memory import host_memory
from yaqa_runner.model.blocks import BlocksEntangled
from yaqa_runner.model.load import SourceModel

logger = logging.getLogger(__name__)

_TABLE = read_list("memory.json")
# Of a device's memory, for the original and a finished model beside it.
MEASURED_SHARE: float = _TABLE["measuredShare"]
PROCESS_BYTES: int = _TABLE["processBytes"]


def is_measured_by_blocks(source: SourceModel, memory_bytes: int | None = None) -> bool:
    """Whether a finished model of ``source``, whole in float32, is too large beside it.

    On a GPU that is its memory; on a host, ``memory_bytes`` or all that it has.
    """
    if not source.weights.whole:
        return True
    if source.device.type == "cuda":
        available = int(torch.cuda.get_device_properties(source.device).total_memory)
    else:
        available = host_memory(memory_bytes) - PROCESS_BYTES
    finished = 4 * sum(parameter.numel() for parameter in source.model.parameters())
    return source.parameter_bytes + finished > MEASURED_SHARE * available


def open_finished(
    load: Callable[[bool], ReferenceModel],
    *,
    by_blocks: bool,
    texts: Sequence[torch.Tensor],
    folder: Path,
    check: Callable[[], None] = lambda: None,
) -> ReferenceModel:
    """What ``load`` gives, whole or ``by_blocks``; then with all blocks run on ``texts``, each ``[S, T]``.

    ``folder`` takes their hidden states. ``check`` runs before every batch and may raise.

    Raises:
        ExportError: the files do not hold the model.
    """
    if not by_blocks:
        return load(False)
    try:
        model = load(True)
        if isinstance(model, BlockwiseReferenceModel):
            model.sweep(texts, folder, check)
        return model
    except BlocksEntangled as entangled:
        logger.warning("the finished model is run whole after all: %s", entangled)
    return load(False)
