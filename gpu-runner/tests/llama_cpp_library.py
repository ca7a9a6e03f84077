"""llama.cpp's own library, as node-llama-cpp ships it: what llama-quantize does to a file."""

from __future__ import annotations

import ctypes
import re
from functools import cache
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt
import pytest
import torch

from yaqa_runner.formats.gguf.mixes import mix_file_type

_LIBRARIES = Path(__file__).parents[2] / "node_modules/@node-llama-cpp/linux-x64/bins/linux-x64"


class _Importance(ctypes.Structure):
    """``llama_model_imatrix_data``."""

    _fields_ = (("name", ctypes.c_char_p), ("data", ctypes.POINTER(ctypes.c_float)), ("size", ctypes.c_size_t))


class _QuantizeSettings(ctypes.Structure):
    """The head of ``llama_model_quantize_params``; what follows stays as llama.cpp's defaults have it."""

    _fields_ = (
        ("threads", ctypes.c_int32),
        ("file_type", ctypes.c_int32),
        ("vocabulary_types", ctypes.c_int32 * 2),
        ("allow_requantize", ctypes.c_bool),
        ("switches", ctypes.c_bool * 4),
        ("dry_run", ctypes.c_bool),
        ("importance", ctypes.POINTER(_Importance)),
        ("rest", ctypes.c_uint8 * 224),
    )


def llama_quantize(source: Path, target: Path, mix: str) -> None:
    """Make ``target`` of ``source`` as llama-quantize does."""
    settings = _quantize_settings(mix)
    assert _library().llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(settings)) == 0


def llama_quantize_types(source: Path, mix: str, *, with_importance: bool) -> dict[str, str]:
    """The types that llama-quantize would give the matrices of ``source``; it quantizes none.

    ``with_importance`` gives it an importance matrix by which every input counts alike.
    """
    library, settings = _library(), _quantize_settings(mix)
    settings.dry_run = True
    tensors = gguf.GGUFReader(source).tensors
    # Experts lie beside each other.
    sizes = {tensor.name: int(np.prod(tensor.shape[[0, *range(2, len(tensor.shape))]])) for tensor in tensors}
    ones = (ctypes.c_float * max(sizes.values()))(*[1.0] * max(sizes.values()))
    entries = (_Importance * (len(sizes) + 1))()
    for entry, (name, size) in zip(entries, sizes.items(), strict=False):
        entry.name, entry.size = name.encode(), size
        entry.data = ctypes.cast(ones, ctypes.POINTER(ctypes.c_float))
    if with_importance:
        settings.importance = entries
    library.said.clear()
    assert library.llama_model_quantize(str(source).encode(), b"", ctypes.byref(settings)) == 0
    found = re.findall(r"\] (\S+) +- \[[^]]*\], type = +\S+, size = [^(\n]*\((\S+)\)", b"".join(library.said).decode())
    return {name: kind.lower() for name, kind in found}


def _quantize_settings(mix: str) -> _QuantizeSettings:
    settings: _QuantizeSettings = _library().llama_model_quantize_default_params()
    settings.threads, settings.file_type = 1, mix_file_type(mix)
    settings.allow_requantize = True
    return settings


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
    library.said = []
    log = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
    # The library calls it for as long as it lives.
    library.keep = log(lambda level, text, data: library.said.append(text))
    library.llama_log_set(library.keep, None)
    library.llama_model_quantize_default_params.restype = _QuantizeSettings
    library.llama_model_quantize.restype = ctypes.c_uint32
    return library
