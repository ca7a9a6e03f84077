"""Where the weights of a model's blocks are: there at all times, or brought one block at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class BlockWeights(Protocol):
    """Brings the weights of single blocks."""

    @property
    def whole(self) -> bool:
        """Whether all weights are there at any time."""

    @contextmanager
    def block(self, number: int) -> Iterator[None]:
        """The weights of block ``number`` are there for as long as this lasts."""

    @contextmanager
    def everything(self) -> Iterator[None]:
        """The weights of all blocks are there for as long as this lasts, if they fit."""


class ResidentWeights:
    """Weights that are there already."""

    whole = True

    @contextmanager
    def block(self, number: int) -> Iterator[None]:
        """Nothing to do."""
        yield

    @contextmanager
    def everything(self) -> Iterator[None]:
        """Nothing to do."""
        yield
