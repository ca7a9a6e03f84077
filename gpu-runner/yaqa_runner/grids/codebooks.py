"""Codebooks of GGUF's IQ2 and IQ3 types: which levels neighbouring columns may have together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

SIGN_COLUMNS = 8
"""Neighbours whose signs a file stores together, all of them or all but one."""


@dataclass(frozen=True, eq=False)
class Codebook:
    """Words of magnitudes, with signs beside them. Codes are indices into the signed levels, one for each column.

    Attributes:
        name: The GGUF type's: ``iq3_s``.
        magnitudes: Rising, positive, float32 ``[magnitudes]``; exact multiples of what the file's scale counts in.
        words: Indices of magnitudes, int64 ``[words, columns of a word]``; a word's place is what the file stores.
        even_signs: Whether the number of negative signs among eight neighbours is even: the file stores seven.
        trie: Where a word can go on, int16 ``[nodes, magnitudes]``, from its last column to its first: the node after
            a magnitude, 0 (the root) after the last one, -1 where no word has it.
    """

    name: str
    magnitudes: npt.NDArray[np.float32]
    words: npt.NDArray[np.int64]
    even_signs: bool
    trie: npt.NDArray[np.int16] = field(repr=False)

    @property
    def table(self) -> npt.NDArray[np.float32]:
        """Levels of the codes, rising, float32 ``[2 magnitudes]``."""
        return np.concatenate([-self.magnitudes[::-1], self.magnitudes])

    @property
    def word(self) -> int:
        """Columns of a word."""
        return int(self.words.shape[1])

    @property
    def width(self) -> int:
        """Columns whose codes depend on one another."""
        return SIGN_COLUMNS if self.even_signs else self.word

    def places(self, codes: npt.NDArray[Any]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
        """Places of the words of ``codes``, ``[out, in / word]``, and a byte for the signs of eight, ``[out, in / 8]``.

        The first of eight has the lowest bit, which is set where it is negative.

        Raises:
            ValueError: ``codes`` ``[out, in]`` has what is no word, or an odd number of signs that has to be even.
        """
        half = len(self.magnitudes)
        numbers = codes.astype(np.int64)
        if numbers.size and not (numbers.min() >= 0 and numbers.max() < 2 * half):
            raise ValueError(f"a code lies outside 0..{2 * half - 1}")
        negative = numbers < half
        magnitudes = np.where(negative, half - 1 - numbers, numbers - half)
        keys = _keys(magnitudes.reshape(len(codes), -1, self.word), half)
        order = np.argsort(own := _keys(self.words, half))
        found = order[np.minimum(np.searchsorted(own, keys, sorter=order), len(own) - 1)]
        if not np.array_equal(own[found], keys):
            raise ValueError(f"neighbouring codes are no word of {self.name}")
        signs = np.packbits(negative.reshape(len(codes), -1, SIGN_COLUMNS), axis=2, bitorder="little")[..., 0]
        if self.even_signs and np.any(np.bitwise_count(signs) % 2):
            raise ValueError(f"{self.name} stores even numbers of signs, and eight codes have an odd one")
        return found, signs


@cache
def codebook(name: str) -> Codebook:
    """The codebook of the GGUF type ``name``; its words are those of the gguf package.

    Raises:
        KeyError: the type has none.
    """
    # Not above: where llama.cpp's converter runs, its own version of the package has to be the first that is imported.
    import gguf

    unit, even_signs = _CODEBOOKS[name]
    kind: Any = getattr(gguf.quants, name.upper())
    kind.init_grid()
    stored = kind.grid.reshape(kind.grid_shape)
    values = np.unique(stored)
    words = np.searchsorted(values, stored)
    return Codebook(name, (values / unit).astype(np.float32), words, even_signs, _trie(words, len(values)))


# How many of the file's units make one here, and whether signs are even. With levels counted so, scales are odd
# multiples of the block's: (2 sc + 1) d.
_CODEBOOKS = {
    "iq2_xxs": (8, True),
    "iq2_xs": (8, True),
    "iq2_s": (8, False),
    "iq3_xxs": (4, True),
    "iq3_s": (1, False),
}
CODEBOOK_NAMES = tuple(_CODEBOOKS)


def _keys(words: npt.NDArray[np.int64], magnitudes: int) -> npt.NDArray[np.int64]:
    """One number for every word ``[…, columns]``."""
    keys: npt.NDArray[np.int64] = (words * magnitudes ** np.arange(words.shape[-1])).sum(-1)
    return keys


def _trie(words: npt.NDArray[np.int64], magnitudes: int) -> npt.NDArray[np.int16]:
    rows: list[list[int]] = [[-1] * magnitudes]
    for word in words.tolist():
        _grow(rows, word[::-1], magnitudes)
    return np.array(rows, dtype=np.int16)


def _grow(rows: list[list[int]], word: Sequence[int], magnitudes: int) -> None:
    node = 0
    for magnitude in word[:-1]:
        if rows[node][magnitude] < 0:
            rows[node][magnitude] = len(rows)
            rows.append([-1] * magnitudes)
        node = rows[node][magnitude]
    rows[node][word[-1]] = 0
