"""An embedding or output layer on a grid of its own: rounded to nearest, as no sketch covers it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch

from yaqa_runner.formats.container import QuantizedLinear
from yaqa_runner.formats.source import ExportError
from yaqa_runner.grids.fit_rows import join_rows
from yaqa_runner.grids.grid import FixedGrid, Grid

# The scale search holds some thirty candidates a block: a whole vocabulary at once takes several times its weights. It
# leaves the interpreter's lock, so that chunks are searched side by side.
_CHUNK_WEIGHTS = 1 << 22


def quantized_embedding(name: str, weight: torch.Tensor, grid: Grid) -> QuantizedLinear:
    """``weight`` ``[vocabulary, hidden]`` on ``grid``, along its rows.

    Scales are searched for the least squared error of their group; every element then takes the nearest code.

    Args:
        name: The module's name in the source model, for messages and for the tensors' names.
        weight: ``[vocabulary, hidden]``, any floating type.
        grid: What the container stores it on.

    Raises:
        ExportError: ``weight`` is no matrix, or holds values that are not finite.
    """
    rows = max(1, _CHUNK_WEIGHTS // max(1, weight.shape[-1]))

    def rounded(start: int) -> tuple[torch.Tensor, FixedGrid]:
        values = weight[start : start + rows].to(torch.float32)
        fixed = grid.fit(values)
        return fixed.nearest(values), fixed

    with ThreadPoolExecutor(torch.get_num_threads()) as executor:
        try:
            chunks = list(executor.map(rounded, range(0, weight.shape[0], rows)))
        except ValueError as error:
            raise ExportError(f"{name}: {error}.") from error
    codes, grids = zip(*chunks, strict=True)
    return QuantizedLinear(name, torch.cat(codes), join_rows(list(grids)), grid.name)
