"""Two-sided rounding on CUDA, a wave of tiles a launch."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from yaqa_runner.grids.grid import FixedGrid
from yaqa_runner.rounding.linalg.factor import UnitLower

# A wave waits for TILE² roundings that follow one another, so small tiles finish a lone layer sooner: on an H100, 4096²
# took .069 s in tiles of 32 and .24 s in tiles of 64.
TILE = 32
STEP = 32
WARPS = 4
PRECISION = "tf32x3"
"""Of the products of tiles: three products on tensor cores, near float32; plain TF32 would move codes."""

# A kernel is compiled anew for every pattern of ones and multiples of 16 among its other whole numbers.
RUN_TIME_NUMBERS = ["wave", "first", "row_tiles", "column_tiles", "groups", "group", "minimum", "maximum"]


@triton.jit(do_not_specialize=RUN_TIME_NUMBERS)  # type: ignore[untyped-decorator]
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
    PRECISION: tl.constexpr,
):
    """Round one anti-diagonal of tiles; all arrays row-major, ``[out, in]``. See ``numba_tiles.round_tile``.

    Long, since a tile stays in registers while it is fed by those before it, rounded and fed on within itself: a launch
    for each step would write it to memory and read it back.
    """
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

    feedback = tl.zeros((TILE, TILE), dtype=tl.float32)
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
            feedback += tl.dot(link, past, input_precision=PRECISION)
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
        forward += tl.dot(made, link, input_precision=PRECISION)
    exact = tl.load(weight + tile_at, mask=inside, other=0.0)

    for back_column in range(TILE):
        j = TILE - 1 - back_column
        absolute = column_tile * TILE + j
        if absolute < columns:
            here = (lane == j)[None, :]
            w = tl.sum(tl.where(here, exact, 0.0), axis=1)
            f = tl.sum(tl.where(here, forward, 0.0), axis=1)
            base = w + f + tl.sum(tl.where(here, feedback, 0.0), axis=1)
            at_group = row.to(tl.int64) * groups + absolute // group
            step = tl.load(scale + at_group, mask=row_in, other=0.0)
            shift = tl.load(offset + at_group, mask=row_in, other=0.0)
            inverse = tl.where(step == 0.0, 0.0, 1.0 / tl.where(step == 0.0, 1.0, step))
            difference = tl.zeros((TILE,), dtype=tl.float32)
            chosen = tl.zeros((TILE,), dtype=tl.float32)
            if TWO_SIDED:
                link_at = lower_output + row_tile.to(tl.int64) * TILE * rows + row
                link = tl.load(
                    link_at + (TILE - 1) * rows, mask=(lane < TILE - 1) & (row - lane + TILE - 1 < rows), other=0.0
                )
                for back_row in range(TILE):
                    i = TILE - 1 - back_row
                    # Asked for a turn early: the load is not on the chain from one row to the next.
                    coming = tl.load(
                        link_at + (i - 1) * rows,
                        mask=(lane < i - 1) & (row - lane + i - 1 < rows),
                        other=0.0,
                    )
                    # Every lane rounds; only row i is settled by now, and only it is kept.
                    code = nearest_code((base - shift) * inverse, minimum, maximum)
                    made_now = w - (step * code + shift)
                    this = (lane == i) & row_in
                    difference = tl.where(this, made_now, difference)
                    chosen = tl.where(this, code, chosen)
                    base += link * tl.sum(tl.where(this, f + made_now, 0.0), axis=0)
                    link = coming
            else:
                chosen = nearest_code((base - shift) * inverse, minimum, maximum)
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
def nearest_code(position, minimum, maximum):  # type: ignore[no-untyped-def]
    """The whole number nearest to ``position`` within the range, ties to even."""
    bounded = tl.minimum(tl.maximum(position, minimum * 1.0), maximum * 1.0)
    # 1.5 · 2²³: what is added to it and stays below 2²² loses its fraction, rounded to even. Codes have 16 bits.
    return (bounded + 12582912.0) - 12582912.0


def waves(row_tiles: int, column_tiles: int) -> list[tuple[int, int, int]]:
    """Number, first place and tiles of every anti-diagonal, from the last row and column on."""
    found = []
    for wave in range(row_tiles + column_tiles - 1):
        first = max(0, wave - column_tiles + 1)
        found.append((wave, first, min(wave, row_tiles - 1) - first + 1))
    return found


def round_adaptive_cuda(
    weight: torch.Tensor,
    grid: FixedGrid,
    factor_input: UnitLower,
    factor_output: UnitLower | None,
) -> torch.Tensor:
    """Codes int16 ``[out, in]`` on the device of ``weight`` ``[out, in]``; see ``round_adaptive``.

    Launches do not wait for the device, so layers given to several CUDA streams share it.
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
    for wave, first, tiles in waves(row_tiles, column_tiles):
        kernel[(tiles,)](
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
            PRECISION=PRECISION,
            num_warps=WARPS,
        )
    return codes
