"""How a tensor of a GGUF file is put together from the checkpoint's: which rows of which tensors, and in what order.

Found by passing tensors of numbers through the converter's own transformation: what comes out tells where each element
came from. ``blk.0.attn_q`` of a llama is ``q_proj`` with its rows in another order; ``ffn_up_exps`` is the experts'
matrices on top of each other; ``attn_qkv`` of a GPT-NeoX is sorted by part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

MAXIMUM_AXES = 3
"""Axes of a source tensor that are told apart; one with more is taken as it comes out."""


@dataclass(frozen=True)
class Arrangement:
    """A tensor whose rows are rows of the checkpoint's tensors.

    A source is seen as a matrix: its axis ``axis`` runs along the columns, its other axes, in order, along the rows.

    Attributes:
        sources: Names of the checkpoint's tensors.
        axis: The sources' axis that runs along the columns.
        row_source: Index into ``sources`` of every row, int32 ``[rows]``.
        row: Row of the source, int64 ``[rows]``.
        column: Column of the source for every column, int64 ``[columns]``; ``None`` where they keep their order.
    """

    sources: tuple[str, ...]
    axis: int
    row_source: torch.Tensor
    row: torch.Tensor
    column: torch.Tensor | None

    def rows_of(self, number: int) -> torch.Tensor:
        """Indices of the rows that come from source ``number``."""
        return torch.nonzero(self.row_source == number).flatten()

    def assemble(self, read: Callable[[str], torch.Tensor]) -> torch.Tensor:
        """The matrix ``[rows, columns]`` from the sources that ``read`` gives."""
        result: torch.Tensor | None = None
        for number, name in enumerate(self.sources):
            matrix = as_matrix(read(name), self.axis)
            if result is None:
                columns = matrix.shape[1] if self.column is None else len(self.column)
                result = matrix.new_empty((len(self.row), columns))
            places = self.rows_of(number)
            rows = matrix[self.row[places]]
            result[places] = rows if self.column is None else rows[:, self.column]
        assert result is not None
        return result

    def scatter(self, number: int, matrix: torch.Tensor, target: torch.Tensor) -> None:
        """Put the rows of ``matrix`` ``[rows, columns]`` that come from source ``number`` back into ``target``.

        ``target`` is a matrix in the form of :func:`as_matrix`.
        """
        places = self.rows_of(number)
        rows = matrix[places]
        if self.column is not None:
            restored = torch.empty_like(rows)
            restored[:, self.column] = rows
            rows = restored
        target[self.row[places]] = rows


def as_matrix(tensor: torch.Tensor, axis: int) -> torch.Tensor:
    """``tensor`` with ``axis`` along the columns and its other axes along the rows."""
    moved = tensor.movedim(axis, -1)
    return moved.reshape(-1, moved.shape[-1])


def number_tensor(shape: Sequence[int], pass_number: int, source: int) -> torch.Tensor:
    """What goes through the transformation in place of source number ``source``: float32 of ``shape``.

    Pass 0 tells the source (from 1 on), pass ``a + 1`` the coordinate along axis ``a``. Takes no memory of its size.
    """
    if pass_number == 0:
        return torch.full((1,) * len(shape), float(source + 1)).expand(tuple(shape))
    axis = pass_number - 1
    if axis >= len(shape):
        return torch.zeros((1,) * len(shape)).expand(tuple(shape))
    line = torch.arange(shape[axis], dtype=torch.float32)
    view = [1] * len(shape)
    view[axis] = shape[axis]
    return line.view(view).expand(tuple(shape))


def without_repetition(numbers: torch.Tensor) -> torch.Tensor:
    """``numbers`` as they are, in the memory of one row or column where all are alike, as in any rearrangement."""
    if numbers.ndim < 2 or numbers.numel() == 0:
        return numbers.clone()
    flat = numbers.reshape(-1, numbers.shape[-1])
    for one in (flat[:, :1], flat[:1]):
        if bool((flat == one).all()):
            return one.clone().expand(flat.shape).view(flat.shape)
    return flat.clone()


def find_arrangement(
    passes: Sequence[torch.Tensor], names: Sequence[str], shapes: Mapping[str, tuple[int, ...]]
) -> Arrangement | None:
    """What ``passes`` (one output of each pass of :func:`number_tensor`) tell; ``None`` where it is no rearrangement.

    Every row must come from one tensor, its columns along one axis in an order that all rows share. A caller holds the
    result to real values: numbers that were scaled or shifted can look like others.
    """
    flat = [tensor.reshape(-1, tensor.shape[-1]) for tensor in passes]
    rows, columns = flat[0].shape
    if columns < 2 or any(not bool(torch.isfinite(tensor).all()) for tensor in flat):
        return None
    origin = flat[0][:, 0]
    if not bool((flat[0] == origin[:, None]).all()) or not bool((origin == origin.round()).all()):
        return None
    numbers = origin.to(torch.int64) - 1
    if int(numbers.min()) < 0 or int(numbers.max()) >= len(names):
        return None
    used = torch.unique(numbers)
    sources = tuple(names[int(number)] for number in used)
    first = shapes[sources[0]]
    if not 2 <= len(first) <= MAXIMUM_AXES or any(shapes[name][1:] != first[1:] for name in sources):
        return None
    # Parts of unlike heights are joined too, queries and keys: the first axis then runs along the rows.
    alike = all(shapes[name] == first for name in sources)
    coordinates = flat[1 : 1 + len(first)]
    for axis in reversed(range(0 if alike else 1, len(first))):
        order = _shared_columns(coordinates, axis)
        if order is None:
            continue
        width = first[axis]
        if len(order) != width or not torch.equal(order.sort().values, torch.arange(width)):
            return None
        row = torch.zeros(rows, dtype=torch.int64)
        for other, coordinate in enumerate(coordinates):
            if other != axis:
                # The first axis may differ in size between the sources: it is the outermost, so never a factor.
                row = row * first[other] + coordinate[:, 0].to(torch.int64)
        row_source = torch.searchsorted(used, numbers).to(torch.int32)
        if bool((row < 0).any()) or any(
            int(row[row_source == number].max()) >= _rows(shapes[name], axis) for number, name in enumerate(sources)
        ):
            return None
        straight = torch.equal(order, torch.arange(width))
        return Arrangement(sources, axis, row_source, row, None if straight else order)
    return None


def _rows(shape: tuple[int, ...], axis: int) -> int:
    count = 1
    for other, size in enumerate(shape):
        if other != axis:
            count *= size
    return count


def _shared_columns(coordinates: Sequence[torch.Tensor], axis: int) -> torch.Tensor | None:
    """Order of the columns along ``axis`` where all rows share it and nothing else changes within a row."""
    for other, coordinate in enumerate(coordinates):
        along = coordinate[:1] if other == axis else coordinate[:, :1]
        if not bool((coordinate == along).all()) or not bool((along == along.round()).all()):
            return None
    return coordinates[axis][0].to(torch.int64)
