"""Other quantizers on the same weights, called through their own libraries.

``gguf`` and ``onnxruntime`` come with the runner. The calibrated ones (gptqmodel, llm-compressor, auto-round) run in
environments of their own, as child processes that hand back the weights they came to.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from gguf import quants
from gguf.constants import GGMLQuantizationType
from onnxruntime.capi import _pybind_state as onnxruntime_native
from peer_environments import make_environment, peer_python, run_peer
from safetensors.torch import load_file, save_file

CALIBRATED_PEERS = ("gptqmodel", "llm-compressor", "auto-round")
ONNX_BLOCK = 32


def gguf_nearest(weight: torch.Tensor) -> torch.Tensor:
    """``weight`` ``[out, in]`` after the ``gguf`` package's own Q4_0, float32."""
    packed = quants.quantize(weight.numpy(), GGMLQuantizationType.Q4_0)
    return torch.from_numpy(np.array(quants.dequantize(packed, GGMLQuantizationType.Q4_0), dtype=np.float32))


def onnxruntime_nearest(weight: torch.Tensor) -> torch.Tensor:
    """``weight`` ``[out, in]`` after onnxruntime's own symmetric 4-bit MatMulNBits quantizer, float32."""
    rows, columns = weight.shape
    blocks = -(-columns // ONNX_BLOCK)
    packed = np.zeros((rows, blocks, ONNX_BLOCK // 2), dtype=np.uint8)
    scales = np.zeros(rows * blocks, dtype=np.float32)
    zeros = np.zeros(rows * ((blocks + 1) // 2), dtype=np.uint8)
    onnxruntime_native.quantize_matmul_4bits(
        packed, np.ascontiguousarray(weight.T.numpy()), scales, zeros, ONNX_BLOCK, rows, columns, True
    )
    codes = np.stack([packed & 15, packed >> 4], axis=-1).reshape(rows, blocks, ONNX_BLOCK).astype(np.float32) - 8
    values = (codes * scales.reshape(rows, blocks, 1)).reshape(rows, -1)[:, :columns]
    return torch.from_numpy(np.ascontiguousarray(values))


PEERS: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], float]] = {
    "gguf-rtn": (gguf_nearest, 4.5),
    "onnxruntime": (onnxruntime_nearest, 5.0),
}
"""By name: what it makes of a weight, and the bits a weight that it stores. All are 4 bits in groups of 32."""


def calibrated_peer(
    name: str, model: Path, tokens: torch.Tensor, bits: int, group: int, symmetric: bool
) -> dict[str, torch.Tensor]:
    """Weights ``[out, in]`` float32 by module name after ``name`` quantized ``model`` on ``tokens`` ``[S, T]``.

    Its environment is made where there is none yet.

    Raises:
        RuntimeError: it failed, with the end of what it wrote, or a group of its weights has more values than ``bits``
            can name, so that bytes would not be equal.
        subprocess.CalledProcessError: its environment cannot be made.
    """
    if peer_python(name) is None:
        make_environment(name)
    script = Path(__file__).with_name(f"{name.replace('-', '_')}_model.py")
    with tempfile.TemporaryDirectory() as folder:
        given, output = Path(folder) / "tokens.safetensors", Path(folder) / "weights.safetensors"
        save_file({"tokens": tokens.contiguous()}, given)
        symmetry = "true" if symmetric else "false"
        run_peer(name, script, [str(model), str(given), str(bits), str(group), symmetry, str(output)])
        decoded = load_file(output)
    for module, weight in decoded.items():
        values = most_values_in_a_group(weight, group)
        if values > 2**bits:
            raise RuntimeError(f"{name} gave a group of {group} weights of {module} {values} values at {bits} bits")
    return decoded


def most_values_in_a_group(weight: torch.Tensor, group: int) -> int:
    """The largest number of different values in ``group`` neighbours of a row of ``weight`` ``[out, in]``."""
    steps = [part.sort(-1).values.diff(dim=-1).count_nonzero(-1) for part in weight.split(group, dim=-1)]
    return int(torch.stack(steps).max()) + 1
