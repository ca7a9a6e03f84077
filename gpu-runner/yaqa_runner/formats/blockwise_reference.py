"""A finished file's model, run block by block, each block decoded from the file while it is wanted."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import PretrainedConfig

from yaqa_runner.formats.container import ReferenceModel
from yaqa_runner.formats.source import ExportError
from yaqa_runner.formats.torch_reference import model_with_weights
from yaqa_runner.model.auto_class import auto_class
from yaqa_runner.model.blocks import BlockwiseModel
from yaqa_runner.model.mapped_weights import MappedWeights, empty_model
from yaqa_runner.model.stored_tensors import StoredTensors
from yaqa_runner.model.swept_logits import SweptLogits
from yaqa_runner.protocol.failures import SourceRefused


class DecodedTensors:
    """A finished file's tensors by the checkpoint's names, decoded when they are asked for."""

    def __init__(self, names: Collection[str], reader: Callable[[], Callable[[str], torch.Tensor]]) -> None:
        """``reader`` is called for every block, and gives what decodes a tensor by its name."""
        self.names = names
        self._reader = reader

    @contextmanager
    def opened(self) -> Iterator[Callable[[str], torch.Tensor]]:
        """Decodes a tensor by its name."""
        yield self._reader()

    def fetch(self, names: Collection[str]) -> None:
        """Decoding takes far longer than reading."""


class BlockwiseReferenceModel:
    """Log-probabilities of a causal language model whose weights are decoded a block at a time, in float32."""

    def __init__(self, config: PretrainedConfig, tensors: StoredTensors, device: str = "cpu") -> None:
        """The architecture of ``config`` with the weights of ``tensors``.

        Raises:
            ExportError: weights outside of the blocks are missing or misshapen.
            BlocksEntangled: the model can only be run whole.
        """
        if auto_class(config) is None:
            raise ExportError(f"{config.model_type!r} is no language model that transformers has built in.")
        place = torch.device(device)
        try:
            model = empty_model(config, torch.float32, place)
            self._weights = MappedWeights(model, tensors, torch.float32, place)
        except (SourceRefused, ValueError) as error:
            raise ExportError(f"The finished file does not hold the model's weights: {error}") from error
        output, embedding = model.get_output_embeddings(), model.get_input_embeddings()
        vocabulary = int((output if output is not None else embedding).weight.shape[0])
        self._blockwise = BlockwiseModel(model, self._weights, vocabulary, place)
        self._swept = SweptLogits(self._blockwise)

    def sweep(self, texts: Sequence[torch.Tensor], folder: Path, check: Callable[[], None]) -> None:
        """Run all blocks on ``texts``, each ``[S, T]``, so that their log-probabilities take the head alone.

        Hidden states are kept in ``folder``. ``check`` runs before every batch and may raise.

        Raises:
            ExportError: the file does not hold the model's weights.
            BlocksEntangled: the model can only be run whole.
        """
        swept = SweptLogits(self._blockwise, folder)
        try:
            swept.sweep(texts, check)
        except SourceRefused as error:
            raise ExportError(f"The finished file does not hold the model's weights: {error}") from error
        if self._weights.unused:
            names = ", ".join(sorted(self._weights.unused)[:3])
            raise ExportError(f"The finished file does not hold the model's weights: unexpected {names}.")
        self._swept = swept

    def log_probabilities(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Float32 ``[sequences, length, vocabulary]`` on the CPU for ``input_ids`` ``[sequences, length]`` int64."""
        return self._swept.logits(input_ids).to(torch.float32).log_softmax(dim=-1).cpu()


def decoded_model(config: PretrainedConfig, tensors: DecodedTensors, *, device: str, by_blocks: bool) -> ReferenceModel:
    """The architecture of ``config`` in float32 with ``tensors``, whole or a block at a time.

    Raises:
        ExportError: they are not the model's weights.
    """
    if by_blocks:
        return BlockwiseReferenceModel(config, tensors, device)
    with tensors.opened() as give:
        return model_with_weights(config, {name: give(name) for name in tensors.names}, device)
