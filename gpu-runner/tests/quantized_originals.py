"""Tiny checkpoints stored as official quantized releases are, and slow decoders of both forms."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

_LINEAR = re.compile(r"\.layers\.\d+\..*_(proj|with_mqa|a_proj|b_proj)\.weight$")
_EXPERTS = re.compile(r"\.experts\.(gate_up_proj|down_proj)$")
E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


def float8_codes(weight: torch.Tensor, block: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes of ``weight [rows, columns]`` and the float32 scale of every block, the last ones of a row partial."""
    rows, columns = weight.shape
    grid = (-(-rows // block[0]), -(-columns // block[1]))
    codes, scales = torch.empty_like(weight, dtype=torch.float8_e4m3fn), torch.empty(grid)
    for row in range(grid[0]):
        for column in range(grid[1]):
            place = (
                slice(row * block[0], (row + 1) * block[0]),
                slice(column * block[1], (column + 1) * block[1]),
            )
            scales[row, column] = weight[place].float().abs().max().clamp_min(1e-12) / 448
            codes[place] = (weight[place].float() / scales[row, column]).to(torch.float8_e4m3fn)
    return codes, scales


def float8_value(byte: int) -> float:
    """What a byte of float8 e4m3 stands for: sign, four bits of exponent, three of mantissa."""
    sign, exponent, mantissa = -1.0 if byte & 128 else 1.0, byte >> 3 & 15, byte & 7
    return sign * (mantissa / 8 * 2.0**-6 if exponent == 0 else (1 + mantissa / 8) * 2.0 ** (exponent - 7))


def decoded_float8(codes: torch.Tensor, scales: torch.Tensor, block: tuple[int, int]) -> torch.Tensor:
    """Float32 of ``codes [rows, columns]``, a number at a time."""
    found = torch.empty(codes.shape)
    for row, line in enumerate(codes.view(torch.uint8).tolist()):
        for column, byte in enumerate(line):
            scale = scales[row // block[0], column // block[1]]
            found[row, column] = torch.tensor(float8_value(byte)) * scale
    return found


def mxfp4_codes(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Bytes ``[experts, outputs, groups, 16]`` and exponents of ``weight [experts, inputs, outputs]``."""
    experts, inputs, outputs = weight.shape
    groups = weight.float().transpose(1, 2).reshape(experts, outputs, inputs // 32, 32)
    exponents = (groups.abs().amax(dim=3).clamp_min(2.0**-60) / 6).log2().ceil()
    levels = torch.tensor(E2M1)
    magnitudes = ((groups / exponents[..., None].exp2()).abs()[..., None] - levels).abs().argmin(dim=-1)
    codes = (magnitudes + 8 * (groups < 0)).to(torch.uint8)
    return codes[..., 0::2] | codes[..., 1::2] << 4, (exponents + 127).to(torch.uint8)


def decoded_mxfp4(blocks: torch.Tensor, exponents: torch.Tensor) -> torch.Tensor:
    """Float32 ``[experts, inputs, outputs]``, a number at a time; low halves of bytes first."""
    experts, outputs, groups, _ = blocks.shape
    found = torch.empty(experts, groups * 32, outputs)
    for expert in range(experts):
        for output in range(outputs):
            for group in range(groups):
                scale = 2.0 ** (int(exponents[expert, output, group]) - 127)
                for place, byte in enumerate(blocks[expert, output, group].tolist()):
                    for half, code in enumerate((byte & 15, byte >> 4)):
                        value = E2M1[code & 7] * (-1.0 if code & 8 else 1.0)
                        found[expert, group * 32 + 2 * place + half, output] = value * scale
    return found


def store_float8(folder: Path, block: tuple[int, int] = (32, 32)) -> None:
    """Store the linears of the checkpoint in ``folder`` as DeepSeek and Qwen release theirs."""
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        if _LINEAR.search(name) and tensor.ndim == 2:
            tensors[name], tensors[f"{name}_scale_inv"] = float8_codes(tensor, block)
        else:
            tensors[name] = tensor
    _store(
        folder,
        tensors,
        {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": list(block)},
    )


def store_mxfp4(folder: Path) -> None:
    """Store the experts of the checkpoint in ``folder`` as gpt-oss is released."""
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        if _EXPERTS.search(name):
            tensors[f"{name}_blocks"], tensors[f"{name}_scales"] = mxfp4_codes(tensor)
        else:
            tensors[name] = tensor
    kept = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
    _store(folder, tensors, {"quant_method": "mxfp4", "modules_to_not_convert": kept})


def _store(folder: Path, tensors: dict[str, torch.Tensor], quantization: dict[str, Any]) -> None:
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**config, "quantization_config": quantization}), encoding="utf-8")


STORED = {"float8": store_float8, "mxfp4": store_mxfp4}
"""By the form's name after a kind's colon."""
