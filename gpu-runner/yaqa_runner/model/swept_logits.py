"""Logits of a model that is run block by block: one sweep for all the texts that are known, then its head alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from yaqa_runner.model.blocks import BlockwiseModel
from yaqa_runner.model.boundary_store import BoundaryStore

# Tokens a block sees at once.
_BATCH_TOKENS = 4096


class SweptLogits:
    """Hidden states after the last block, by sequence, and the logits that follow from them.

    Every weight is read once for all sequences of a sweep. Their hidden states are a hundredth of their logits.
    """

    def __init__(self, blockwise: BlockwiseModel, folder: Path | None = None) -> None:
        """States are kept in ``folder``, or in memory without."""
        self._blockwise = blockwise
        self._folder = folder
        self._places: dict[bytes, tuple[BoundaryStore, int]] = {}
        self._stores = 0

    @torch.no_grad()
    def sweep(self, texts: Sequence[torch.Tensor], check: Callable[[], None] = lambda: None) -> None:
        """Run all blocks on ``texts``, each ``[S, T]``; ``check`` runs before every batch and may raise.

        Raises:
            BlocksEntangled: the model can only be run whole.
        """
        blockwise = self._blockwise
        batches: list[tuple[BoundaryStore, int, torch.Tensor]] = []
        for tokens in texts:
            store = BoundaryStore(len(tokens), None if self._folder is None else self._folder / str(self._stores))
            self._stores += 1
            step = max(1, _BATCH_TOKENS // tokens.shape[1])
            batches += [(store, start, tokens[start : start + step]) for start in range(0, len(tokens), step)]
        for store, start, tokens in batches:
            check()
            store.put(_LEVEL, start, blockwise.enter(tokens).hidden)
        for number in range(len(blockwise)):
            with blockwise.weights.block(number):
                for store, start, tokens in batches:
                    check()
                    hidden = store.get(_LEVEL, start, len(tokens)).to(blockwise.device)
                    store.put(_LEVEL, start, blockwise.run(number, tokens, hidden))
        for store, start, tokens in batches:
            self._places.update((_key(row), (store, start + place)) for place, row in enumerate(tokens))

    @torch.inference_mode()
    def logits(self, tokens: torch.Tensor) -> torch.Tensor:
        """``[b, T, V]`` of ``tokens`` ``[b, T]``, where the model is; sequences of no sweep get one of their own.

        Raises:
            BlocksEntangled: the model can only be run whole.
        """
        hidden = self.hidden(tokens)
        parts = self._blockwise.slices(tokens)
        return torch.cat([self._blockwise.head(tokens[:, part], hidden[:, part]) for part in parts], dim=1)

    @torch.no_grad()
    def hidden(self, tokens: torch.Tensor) -> torch.Tensor:
        """States after the last block ``[b, T, …]`` of ``tokens``, where the model is; as :meth:`logits`.

        Raises:
            BlocksEntangled: the model can only be run whole.
        """
        if any(_key(row) not in self._places for row in tokens):
            alone = SweptLogits(self._blockwise)
            alone.sweep([tokens])
            return alone.hidden(tokens)
        places = [self._places[_key(row)] for row in tokens]
        return torch.cat([store.get(_LEVEL, row, 1) for store, row in places]).to(self._blockwise.device)


_LEVEL = "hidden"


def _key(row: torch.Tensor) -> bytes:
    return row.cpu().contiguous().numpy().tobytes()
