"""Two-sided rounding on CUDA, a wave of tiles a launch.

Not yet run on a GPU, so neither compiled nor timed. Its logic is held to the reference in Triton's interpreter, by a
test that runs where Triton is installed.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from yaqa_runner.grids.grid import FixedGrid
from yaqa_runner.rounding.factor import UnitLower

TILE = 64
STEP = 32
WARPS = 4


@triton.jit(do_not_specialize=["wave", "first"])  # type: ignore[untyped-decorator]
def _round_wave(  # type: ignore[no-untyped-def]
    weight,
    error,
    fed,
    codes,
    lower_input,
    lower_output,
    scale,
    offset,
    rows,
    columns,
    groups,
    group,
    minimum,
    maximum,
    wave,
    first,
    row_tiles,
    column_tiles,
    TWO_SIDED: tl.constexpr,
    TILE: tl.constexpr,
    STEP: tl.constexpr,
):
    """Round one anti-diagonal of tiles; all arrays row-major, ``[out, in]``. See ``numba_kernel.round_tile``."""
    place = tl.program_id(0) + first
    row_tile = row_tiles - 1 - place
    column_tile = column_tiles - 1 - (wave - place)
    lane = tl.arange(0, TILE)
    inner = tl.arange(0, STEP)
    row = row_tile * TILE + lane
    column = column_tile * TILE + lane
    row_in = row < rows
    column_in = column < columns
    # Offsets into [out, in] pass 2^31 for the largest layers.
    row_start = row.to(tl.int64) * columns
    tile_at = row_start[:, None] + column[None, :]
    inside = row_in[:, None] & column_in[None, :]

    carried = tl.zeros((TILE, TILE), dtype=tl.float32)
    if TWO_SIDED:
        for start in range((row_tile + 1) * TILE, rows, STEP):
            below = start + inner
            link = tl.load(
                lower_output + below.to(tl.int64)[None, :] * rows + row[:, None],
                mask=(below < rows)[None, :] & row_in[:, None],
                other=0.0,
            )
            past = tl.load(
                fed + below.to(tl.int64)[:, None] * columns + column[None, :],
                mask=(below < rows)[:, None] & column_in[None, :],
                other=0.0,
            )
            carried += tl.dot(link, past, input_precision="ieee")
    forward = tl.zeros((TILE, TILE), dtype=tl.float32)
    for start in range((column_tile + 1) * TILE, columns, STEP):
        later = start + inner
        made = tl.load(
            error + row_start[:, None] + later[None, :],
            mask=row_in[:, None] & (later < columns)[None, :],
            other=0.0,
        )
        link = tl.load(
            lower_input + later.to(tl.int64)[:, None] * columns + column[None, :],
            mask=(later < columns)[:, None] & column_in[None, :],
            other=0.0,
        )
        forward += tl.dot(made, link, input_precision="ieee")
    exact = tl.load(weight + tile_at, mask=inside, other=0.0)

    for back_column in range(TILE):
        j = TILE - 1 - back_column
        absolute = column_tile * TILE + j
        if absolute < columns:
            here = (lane == j)[None, :]
            w = tl.sum(tl.where(here, exact, 0.0), axis=1)
            f = tl.sum(tl.where(here, forward, 0.0), axis=1)
            base = w + f + tl.sum(tl.where(here, carried, 0.0), axis=1)
            at_group = row.to(tl.int64) * groups + absolute // group
            step = tl.load(scale + at_group, mask=row_in, other=0.0)
            shift = tl.load(offset + at_group, mask=row_in, other=0.0)
            divisor = tl.where(step == 0.0, 1.0, step)
            difference = tl.zeros((TILE,), dtype=tl.float32)
            chosen = tl.zeros((TILE,), dtype=tl.float32)
            if TWO_SIDED:
                for back_row in range(TILE):
                    i = TILE - 1 - back_row
                    # Every lane rounds; only row i is settled by now, and only it is kept.
                    code = _nearest((base - shift) / divisor, step, minimum, maximum)
                    made_now = w - (step * code + shift)
                    this = (lane == i) & row_in
                    difference = tl.where(this, made_now, difference)
                    chosen = tl.where(this, code, chosen)
                    back = tl.sum(tl.where(this, f + made_now, 0.0), axis=0)
                    link = tl.load(
                        lower_output + (row_tile * TILE + i).to(tl.int64) * rows + row,
                        mask=(lane < i) & (row_tile * TILE + i < rows),
                        other=0.0,
                    )
                    base += link * back
            else:
                chosen = _nearest((base - shift) / divisor, step, minimum, maximum)
                difference = w - (step * chosen + shift)
            difference = tl.where(row_in, difference, 0.0)
            tl.store(error + row_start + absolute, difference, mask=row_in)
            tl.store(codes + row_start + absolute, chosen.to(tl.int16), mask=row_in)
            if TWO_SIDED:
                tl.store(fed + row_start + absolute, f + difference, mask=row_in)
            ahead = tl.load(
                lower_input + absolute.to(tl.int64) * columns + column,
                mask=(lane < j) & column_in,
                other=0.0,
            )
            forward += difference[:, None] * ahead[None, :]


@triton.jit
def _nearest(position, step, minimum, maximum):  # type: ignore[no-untyped-def]
    below = tl.floor(position)
    rest = position - below
    # Ties to even, as everywhere else; Triton's language has no rint of its own.
    odd = below - 2.0 * tl.floor(below * 0.5)
    up = (rest > 0.5) | ((rest == 0.5) & (odd == 1.0))
    code = tl.where(up, below + 1.0, below)
    code = tl.where(step == 0.0, 0.0, code)
    return tl.minimum(tl.maximum(code, minimum * 1.0), maximum * 1.0)


def round_adaptive_cuda(
    weight: torch.Tensor,
    grid: FixedGrid,
    factor_input: UnitLower,
    factor_output: UnitLower | None,
) -> torch.Tensor:
    """Codes int16 ``[out, in]`` on the device of ``weight`` ``[out, in]``; see ``round_adaptive``.

    Launches do not wait for the device, so layers given to several CUDA streams share it. Products are float32 without
    TF32: its 10 bits would move codes.
    """
    device = weight.device
    rows, columns = weight.shape
    two_sided = factor_output is not None

    def ready(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.detach().to(device, torch.float32).contiguous()

    exact, lower_input = ready(weight), ready(factor_input)
    scale, offset = ready(grid.scale), ready(grid.offset)
    lower_output = lower_input if factor_output is None else ready(factor_output)
    error = torch.zeros_like(exact)
    fed = torch.zeros_like(exact) if two_sided else error
    codes = torch.zeros(rows, columns, dtype=torch.int16, device=device)
    row_tiles, column_tiles = -(-rows // TILE), -(-columns // TILE)
    kernel: Any = _round_wave
    for wave in range(row_tiles + column_tiles - 1):
        first = max(0, wave - column_tiles + 1)
        last = min(wave, row_tiles - 1)
        kernel[(last - first + 1,)](
            exact,
            error,
            fed,
            codes,
            lower_input,
            lower_output,
            scale,
            offset,
            rows,
            columns,
            scale.shape[1],
            grid.group,
            grid.minimum,
            grid.maximum,
            wave,
            first,
            row_tiles,
            column_tiles,
            TWO_SIDED=two_sided,
            TILE=TILE,
            STEP=STEP,
            num_warps=WARPS,
        )
    return codes
