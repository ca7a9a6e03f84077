"""llama.cpp's own library, as node-llama-cpp ships it: what llama-quantize does to a file."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt
import pytest
import torch

from yaqa_runner.formats.gguf.mixes import mix_file_type

_LIBRARIES = Path(__file__).parents[2] / "node_modules/@node-llama-cpp/linux-x64/bins/linux-x64"
# Of what follows file type and number of threads in the settings.
_ALLOW_REQUANTIZE = 8


class _QuantizeSettings(ctypes.Structure):
    """The head of ``llama_model_quantize_params``; what follows stays as llama.cpp's defaults have it."""

    _fields_ = (("threads", ctypes.c_int32), ("file_type", ctypes.c_int32), ("rest", ctypes.c_uint8 * 248))


def llama_quantize(source: Path, target: Path, mix: str) -> dict[str, str]:
    """Make ``target`` of ``source`` as llama-quantize does; the types of its tensors."""
    library = _library()
    settings = library.llama_model_quantize_default_params()
    settings.threads, settings.file_type = 1, mix_file_type(mix)
    settings.rest[_ALLOW_REQUANTIZE] = 1
    assert library.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(settings)) == 0
    return {tensor.name: tensor.tensor_type.name.lower() for tensor in gguf.GGUFReader(target).tensors}


class _TypeTraits(ctypes.Structure):
    """The head of ``ggml_type_traits``."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("block", ctypes.c_int64),
        ("interleaved", ctypes.c_int64),
        ("size", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", ctypes.c_void_p),
    )


def ggml_dequantize(packed: npt.NDArray[np.uint8], kind: gguf.GGMLQuantizationType, columns: int) -> torch.Tensor:
    """Rows ``[out, in]`` float32 of ``packed`` ``[out, bytes a row]`` by ggml's own decoder."""
    _library()
    base = ctypes.CDLL(str(next(_LIBRARIES.glob("libggml-base*"))))
    base.ggml_get_type_traits.restype = ctypes.POINTER(_TypeTraits)
    traits = base.ggml_get_type_traits(ctypes.c_int(int(kind))).contents
    assert traits.name.decode().upper() == kind.name
    decode = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)(traits.to_float)
    rows = np.ascontiguousarray(packed)
    values = np.empty((len(rows), columns), dtype=np.float32)
    decode(rows.ctypes.data, values.ctypes.data, values.size)
    return torch.from_numpy(values)


@cache
def _library() -> ctypes.CDLL:
    found = sorted(_LIBRARIES.glob("libllama.*so*"))
    if not found:
        pytest.skip("llama.cpp's library is not installed: npm run setup")
    for name in ("libggml-base*", "libggml.*"):
        ctypes.CDLL(str(next(_LIBRARIES.glob(name))), mode=ctypes.RTLD_GLOBAL)
    library = ctypes.CDLL(str(found[0]))
    silent = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda level, text, data: None)
    library.llama_log_set(silent, None)
    # The library calls it for as long as it lives.
    library.silent = silent
    library.llama_model_quantize_default_params.restype = _QuantizeSettings
    library.llama_model_quantize.restype = ctypes.c_uint32
    return library
