"""llama.cpp's own quantizers, with an importance matrix: what its users publish at the same bytes.

Called in the library that node-llama-cpp ships, the one that judges our files.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import gguf
import numpy as np
import torch

_LIBRARIES = Path(__file__).parents[2] / "node_modules/@node-llama-cpp/linux-x64/bins/linux-x64"


class LlamaCppMissing(Exception):
    """llama.cpp's library is not installed here."""


def imatrix_quantized(weight: torch.Tensor, second_moment: torch.Tensor, type_name: str) -> torch.Tensor:
    """``weight`` ``[out, in]`` after llama.cpp's quantizer of ``type_name``, float32.

    Args:
        weight: ``[out, in]``.
        second_moment: Mean square of every input, ``[in]``: what ``llama-imatrix`` gathers.
        type_name: ``iq4_xs``.

    Raises:
        LlamaCppMissing: its library is not installed, or does not load here.
    """
    kind = gguf.GGMLQuantizationType[type_name.upper()]
    rows, columns = weight.shape
    block, size = gguf.GGML_QUANT_SIZES[kind]
    if columns % block:
        raise ValueError(f"{columns} inputs are no multiple of {block}, the block of {type_name}")
    values = np.ascontiguousarray(weight.detach().float().numpy())
    importance = np.ascontiguousarray(second_moment.detach().float().numpy())
    packed = np.empty((rows, columns // block * size), dtype=np.uint8)
    pointer = ctypes.POINTER(ctypes.c_float)
    written = _library().ggml_quantize_chunk(
        ctypes.c_int(int(kind)),
        values.ctypes.data_as(pointer),
        packed.ctypes.data_as(ctypes.c_void_p),
        ctypes.c_int64(0),
        ctypes.c_int64(rows),
        ctypes.c_int64(columns),
        importance.ctypes.data_as(pointer),
    )
    if written != packed.nbytes:
        raise RuntimeError(f"llama.cpp wrote {written} bytes of {type_name}, not {packed.nbytes}")
    return torch.from_numpy(np.array(gguf.quants.dequantize(packed, kind), dtype=np.float32))


@cache
def _library() -> ctypes.CDLL:
    found = sorted(_LIBRARIES.glob("libggml-base*"))
    if not found:
        raise LlamaCppMissing("llama.cpp's library is not installed: npm run setup")
    try:
        library = ctypes.CDLL(str(found[0]))
    except OSError as error:
        raise LlamaCppMissing(f"llama.cpp's library does not load here: {error}") from error
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    return library
