"""Coordinate descent on CUDA, in the order of the CPU's: only changes wait for one another."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from yaqa_runner.grids.grid import FixedGrid
from yaqa_runner.rounding.kernels.numba_tiles import REFINE_MARGIN
from yaqa_runner.rounding.kernels.triton_round import nearest_code
from yaqa_runner.rounding.linalg.factor import SymmetricUpper
from yaqa_runner.rounding.linalg.row_blocks import PRODUCT_ROWS, row_blocks
from yaqa_runner.rounding.linalg.symmetric_product import columns_of, diagonal_block, diagonal_tiles, rows_times

# After a rounding few codes change, so a tile is tall: all its rows look for a change at once, and the chain is as long
# as there are changes. Tiles at the same time would not do: a direction that all share would be corrected by each.
ROWS = 512
COLUMNS = 32
WARPS = 16


@triton.jit(do_not_specialize=["groups", "group", "minimum", "maximum", "top", "left"])  # type: ignore[untyped-decorator]
def _refine_tile(  # type: ignore[no-untyped-def]
    weight,
    error,
    codes,
    gradient,
    spread,
    changed,
    hessian_input,
    hessian_output,
    scale,
    offset,
    rows,
    columns,
    groups,
    group,
    minimum,
    maximum,
    margin,
    top,
    left,
    TWO_SIDED: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Sweep one tile; ``gradient`` and ``spread`` are ``[out, COLUMNS]``. See ``numba_tiles.refine_tile``.

    ``hessian_input`` and ``hessian_output`` are the matrices' blocks on the diagonal, of ``COLUMNS`` and of ``ROWS``.
    ``spread`` takes what changed, times ``H_I`` of the column block: what ``P`` of these rows changed by. Long, since
    the tile stays in registers from the first element to the last, in one loop.
    """
    start = top + tl.program_id(0) * ROWS
    lane = tl.arange(0, ROWS)
    place = tl.arange(0, COLUMNS)
    row = start + lane
    row_in = row < rows
    column = left + place
    # Offsets into [out, in] pass 2^31 for the largest layers.
    row_start = row.to(tl.int64) * columns
    own_input = hessian_input + left * COLUMNS
    # A tile's rows begin at a multiple of ROWS.
    own_tile = hessian_output + start.to(tl.int64) * ROWS
    pulled = tl.load(gradient + row[:, None] * COLUMNS + place[None, :], mask=row_in[:, None], other=0.0)
    own_output = tl.full((ROWS,), 1.0, dtype=tl.float32)
    if TWO_SIDED:
        own_output = tl.load(own_tile + lane * ROWS + lane, mask=row_in, other=0.0)

    total = tl.zeros((ROWS,), dtype=tl.int32)
    shifted = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    for back in range(COLUMNS):
        j = COLUMNS - 1 - back
        absolute = left + j
        if absolute < columns:
            moved = tl.zeros((ROWS,), dtype=tl.float32)
            pull = tl.sum(tl.where((place == j)[None, :], pulled, 0.0), axis=1)
            own = tl.load(own_input + j * COLUMNS + j)
            at_group = row.to(tl.int64) * groups + absolute // group
            step = tl.load(scale + at_group, mask=row_in, other=0.0)
            shift = tl.load(offset + at_group, mask=row_in, other=0.0)
            w = tl.load(weight + row_start + absolute, mask=row_in, other=0.0)
            value = w - tl.load(error + row_start + absolute, mask=row_in, other=0.0)
            curvature = own * own_output
            usable = (step != 0.0) & (curvature > 0.0) & row_in
            inverse = tl.where(usable, 1.0 / tl.where(usable, step, 1.0), 0.0)
            bend = tl.where(usable, 1.0 / tl.where(usable, curvature, 1.0), 0.0)
            threshold = margin * tl.abs(step)
            code, delta = _proposal(value, pull * bend, step, shift, inverse, threshold, minimum, maximum)
            delta = tl.where(usable, delta, 0.0)
            if TWO_SIDED:
                chosen = tl.zeros((ROWS,), dtype=tl.float32)
                slope = tl.zeros((ROWS,), dtype=tl.float32)
                picked = tl.max(tl.where(delta != 0.0, lane, -1), axis=0)
                while picked >= 0:
                    this = lane == picked
                    taken = tl.sum(tl.where(this, delta, 0.0), axis=0)
                    moved = tl.where(this, delta, moved)
                    chosen = tl.where(this, code, chosen)
                    link = tl.load(own_tile + picked * ROWS + lane, mask=row_in, other=0.0)
                    slope += link * taken
                    pull += link * (own * taken)
                    code, delta = _proposal(value, pull * bend, step, shift, inverse, threshold, minimum, maximum)
                    # Rows below were passed: they look again in the next sweep.
                    delta = tl.where(usable & (lane < picked), delta, 0.0)
                    picked = tl.max(tl.where(delta != 0.0, lane, -1), axis=0)
            else:
                chosen = code
                moved = delta
                slope = delta
            replaced = moved != 0.0
            total += replaced.to(tl.int32)
            # From the code itself, as elsewhere: a sum of differences would drift from what the code decodes to.
            tl.store(error + row_start + absolute, w - (step * chosen + shift), mask=replaced)
            tl.store(codes + row_start + absolute, chosen.to(tl.int16), mask=replaced)
            across = tl.load(own_input + j * COLUMNS + place, mask=column < columns, other=0.0)
            pulled += slope[:, None] * tl.where(place < j, across, 0.0)[None, :]
            shifted += moved[:, None] * across[None, :]
    tl.store(spread + row[:, None] * COLUMNS + place[None, :], shifted, mask=row_in[:, None])
    tl.atomic_add(changed, tl.sum(total, axis=0))


@triton.jit
def _proposal(value, wish, step, shift, inverse, threshold, minimum, maximum):  # type: ignore[no-untyped-def]
    """The code that each row would take, and by how much its error would change; 0 where that gains too little."""
    wanted = value + wish
    code = nearest_code((wanted - shift) * inverse, minimum, maximum)
    better = step * code + shift
    gain = tl.abs(wish) - tl.abs(better - wanted)
    return code, tl.where(gain > threshold, value - better, 0.0)


class CudaRefinement:
    """Coordinate descent on one layer, for any number of grids and codes; see ``refine``.

    Column block by column block, ``H_O E H_I`` is computed for the block and kept up to date from tile to tile. A sweep
    is thousands of short kernels: on a stream of the caller's own it is recorded once and played again, which leaves
    the processor to the other layers in flight.

    Args:
        weight: ``[out, in]``, on the device to compute on.
        hessian_input: ``H_I`` ``[in, in]``.
        hessian_output: ``H_O`` ``[out, out]``; ``None`` for the identity.
    """

    def __init__(
        self, weight: torch.Tensor, hessian_input: SymmetricUpper, hessian_output: SymmetricUpper | None
    ) -> None:
        self._device = weight.device
        self._rows, self._columns = weight.shape

        def ready(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.detach().to(self._device, torch.float32).contiguous()

        self._weight = ready(weight)
        self._input = SymmetricUpper(ready(hessian_input))
        self._own_input = diagonal_tiles(self._input, COLUMNS)
        self._output = None if hessian_output is None else SymmetricUpper(ready(hessian_output))
        self._own_output = self._own_input if self._output is None else diagonal_tiles(self._output, ROWS)
        # Made once: they serve every block of columns.
        self._output_blocks = [
            (start, stop, diagonal_block(self._output, start, stop))
            for start, stop in row_blocks(0, self._rows, PRODUCT_ROWS, self._device)
            if self._output is not None
        ]
        self._error = torch.zeros_like(self._weight)
        self._codes = torch.zeros_like(self._weight, dtype=torch.int16)
        self._scale, self._offset = torch.zeros(0), torch.zeros(0)
        self._gradient = torch.zeros(self._rows, COLUMNS, device=self._device)
        self._spread = torch.zeros(self._rows, COLUMNS, device=self._device)
        self._changed = torch.zeros(1, dtype=torch.int32, device=self._device)
        self._recorded: torch.cuda.CUDAGraph | None = None

    def __call__(self, grid: FixedGrid, codes: torch.Tensor, sweeps: int) -> torch.Tensor:
        """Codes int16 ``[out, in]`` of no larger proxy than ``codes``, on the device; grids of one shape only."""
        on_device = grid.to(self._device)
        if self._scale.shape != on_device.scale.shape:
            self._scale, self._offset = on_device.scale.clone(), on_device.offset.clone()
            self._recorded = None
        self._scale.copy_(on_device.scale)
        self._offset.copy_(on_device.offset)
        self._codes.copy_(codes)
        torch.sub(self._weight, on_device.decode(self._codes), out=self._error)
        for _ in range(sweeps):
            self._play(grid)
            if int(self._changed) == 0:
                break
        return self._codes.clone()

    def _play(self, grid: FixedGrid) -> None:
        on_gpu = self._device.type == "cuda"
        if not on_gpu or torch.cuda.current_stream(self._device) == torch.cuda.default_stream(self._device):
            self._sweep(grid)
            return
        if self._recorded is None:
            # Before recording, the kernel is compiled and loaded, by a launch that has no rows to work on, and cuBLAS
            # gets its workspace, which outlives the recording's own memory.
            self._sweep_rows(grid, self._rows, 1, 0)
            torch.mm(self._error[:1], self._input[:, :1])
            graph = torch.cuda.CUDAGraph()
            # Other layers in flight go on asking for memory meanwhile.
            graph.capture_begin(capture_error_mode="thread_local")
            try:
                self._sweep(grid)
            finally:
                graph.capture_end()
            self._recorded = graph
        self._recorded.replay()

    def _sweep(self, grid: FixedGrid) -> None:
        self._changed.zero_()
        for left in range((self._columns - 1) // COLUMNS * COLUMNS, -1, -COLUMNS):
            right = min(left + COLUMNS, self._columns)
            product = self._error @ columns_of(self._input, left, right)
            gradient = self._gradient[:, : right - left]
            if self._output is None:
                gradient.copy_(product)
                self._sweep_rows(grid, 0, -(-self._rows // ROWS), left)
                continue
            for top, bottom, own in self._output_blocks:
                gradient[top:bottom] = rows_times(own, self._output, top, bottom, product)
            for top in range((self._rows - 1) // ROWS * ROWS, -1, -ROWS):
                self._sweep_rows(grid, top, 1, left)
                if top > 0:
                    bottom = min(top + ROWS, self._rows)
                    self._gradient[:top].addmm_(self._output[:top, top:bottom], self._spread[top:bottom])

    def _sweep_rows(self, grid: FixedGrid, top: int, tiles: int, left: int) -> None:
        kernel: Any = _refine_tile
        kernel[(tiles,)](
            self._weight,
            self._error,
            self._codes,
            self._gradient,
            self._spread,
            self._changed,
            self._own_input,
            self._own_output,
            self._scale,
            self._offset,
            self._rows,
            self._columns,
            self._scale.shape[1],
            grid.group,
            grid.minimum,
            grid.maximum,
            REFINE_MARGIN,
            top,
            left,
            TWO_SIDED=self._output is not None,
            ROWS=ROWS,
            COLUMNS=COLUMNS,
            num_warps=WARPS,
        )
