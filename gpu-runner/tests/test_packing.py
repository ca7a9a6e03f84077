from __future__ import annotations

import numpy as np
import pytest
import torch
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
from onnxruntime.capi import _pybind_state

from yaqa_runner.formats.packing import (
    pack_bits,
    pack_blocks,
    pack_int32_columns,
    pack_int32_rows,
    unpack_bits,
    unpack_int32_columns,
    unpack_int32_rows,
)


def random_codes(rows: int, columns: int, bits: int) -> np.ndarray:
    return np.random.default_rng(bits).integers(0, 1 << bits, (rows, columns))


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("columns", [1, 7, 32, 45])
def test_codes_survive_every_width_and_length(bits: int, columns: int) -> None:
    codes = random_codes(5, columns, bits)
    assert np.array_equal(unpack_bits(pack_bits(codes, bits), bits, columns), codes)
    assert np.array_equal(unpack_int32_rows(pack_int32_rows(codes, bits), bits, columns), codes)
    assert np.array_equal(unpack_int32_columns(pack_int32_columns(codes, bits), bits, 5), codes)


def test_words_are_those_of_the_formats() -> None:
    four = pack_int32_rows(np.arange(16)[None], 4).view(np.uint32)
    assert [hex(word) for word in four[0]] == ["0x76543210", "0xfedcba98"]
    three = pack_int32_rows(np.tile(np.arange(8), 4)[None], 3).view(np.uint32)
    assert [hex(word) for word in three[0]] == ["0x88fac688", "0xc688fac6", "0xfac688fa"]


@pytest.mark.parametrize("bits", range(2, 9))
def test_rows_are_packed_as_compressed_tensors_packs_them(bits: int) -> None:
    codes = random_codes(6, 45, bits)
    signed = torch.from_numpy(codes - (1 << (bits - 1))).to(torch.int8)
    assert torch.equal(torch.from_numpy(pack_int32_rows(codes, bits)), pack_to_int32(signed, bits))
    along_rows = pack_to_int32(signed, bits, packed_dim=0)
    assert torch.equal(torch.from_numpy(pack_int32_columns(codes, bits)), along_rows)


@pytest.mark.parametrize("columns", [64, 70])
def test_blocks_hold_the_bytes_onnxruntime_writes(columns: int) -> None:
    rows, block = 6, 32
    blocks = -(-columns // block)
    weight = np.random.default_rng(1).standard_normal((columns, rows)).astype(np.float32)
    packed = np.zeros((rows, blocks, block // 2), dtype=np.uint8)
    scales = np.zeros(rows * blocks, dtype=np.float32)
    zeros = np.zeros(rows * -(-blocks // 2), dtype=np.uint8)
    _pybind_state.quantize_matmul_4bits(packed, weight, scales, zeros, block, rows, columns, True)
    codes = unpack_bits(packed.reshape(rows * blocks, -1), 4, block).reshape(rows, -1)[:, :columns]
    assert np.array_equal(pack_blocks(codes, 4, block, 0), packed)
    decoded = (codes.astype(np.float32) - 8) * np.repeat(scales.reshape(rows, blocks), block, axis=1)[:, :columns]
    assert np.abs(decoded - weight.T).max() <= np.abs(scales).max()


def test_codes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"outside 0\.\.7"):
        pack_bits(np.array([[8]]), 3)
    with pytest.raises(ValueError, match=r"outside 0\.\.7"):
        pack_bits(np.array([[-1]]), 3)
    with pytest.raises(ValueError, match="1 to 8 bits"):
        pack_bits(np.array([[0]]), 9)
