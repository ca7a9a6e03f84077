"""``nvfp4-pack-quantized``, ``mxfp4-pack-quantized`` and ``float-quantized``: FP4 and FP8 weights.

FP4 (E2M1) is packed two to a byte, the first in the low bits. NVFP4 has a scale of E4M3 for 16 inputs, divided by one
number for the whole weight; MXFP4 an exponent of two for 32; FP8 (E4M3) a scale in the model's type for every row.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from yaqa_runner.formats.affine_codes import exact_cast
from yaqa_runner.formats.compressed_tensors.weight_form import WeightForm
from yaqa_runner.formats.container import QuantizedLinear
from yaqa_runner.formats.grid_choice import ContainerGrid
from yaqa_runner.formats.minifloat_codes import e8m0_exponents, minifloat_codes
from yaqa_runner.formats.safetensors_writer import PlannedTensor
from yaqa_runner.grids.minifloat import MinifloatGrid

_LARGEST_E4M3_EXPONENT = 8
_LARGEST_E4M3_MANTISSA = 0.875


@dataclass(frozen=True)
class _FloatForm:
    format: str
    parts: tuple[str, ...]
    minifloat: MinifloatGrid
    unpacks_experts: bool = False

    def grid(self) -> ContainerGrid:
        """Rows of whole groups."""
        return ContainerGrid(self.minifloat, self.minifloat.supports)

    def settings(self, linears: Mapping[str, QuantizedLinear]) -> dict[str, Any]:
        """What ``config.json`` says of the weights."""
        return {
            "num_bits": 4 if self.minifloat.element == "e2m1" else 8,
            "type": "float",
            "symmetric": True,
            "strategy": _STRATEGIES[self.minifloat.name],
            "group_size": self.minifloat.group,
            "block_structure": None,
            "dynamic": False,
            "actorder": None,
            "scale_dtype": _SCALE_TYPES[self.minifloat.name],
            "zp_dtype": None,
            "observer": "minmax",
            "observer_kwargs": {},
        }

    def tensors(self, linears: Mapping[str, QuantizedLinear], dtype: torch.dtype) -> list[PlannedTensor]:
        """Codes and scales of all ``linears``."""
        for linear in linears.values():
            minifloat_codes(linear, self.minifloat)
        dividers = _shared_dividers(linears) if self.minifloat.scales == "e4m3_scaled" else {}
        return [
            tensor
            for linear in linears.values()
            for tensor in _tensors(linear, self.minifloat, dtype, dividers.get(linear.name, 1.0))
        ]


_STRATEGIES = {"nvfp4": "tensor_group", "mxfp4": "group", "fp8": "channel"}
_SCALE_TYPES = {"nvfp4": "torch.float8_e4m3fn", "mxfp4": "torch.uint8", "fp8": None}

FLOAT_FORMS: dict[str, WeightForm] = {
    "nvfp4": _FloatForm(
        "nvfp4-pack-quantized",
        ("weight_packed", "weight_scale", "weight_global_scale"),
        MinifloatGrid("nvfp4", "e2m1", 16, "e4m3_scaled", 4.5),
    ),
    "mxfp4": _FloatForm(
        "mxfp4-pack-quantized",
        ("weight_packed", "weight_scale"),
        MinifloatGrid("mxfp4", "e2m1", 32, "e8m0", 4.25),
    ),
    "fp8": _FloatForm(
        "float-quantized",
        ("weight_scale", "weight"),
        MinifloatGrid("fp8", "e4m3", None, "shared", 8.0),
        unpacks_experts=True,
    ),
}
"""By the names of recipes."""


def _tensors(
    linear: QuantizedLinear, minifloat: MinifloatGrid, dtype: torch.dtype, divider: float
) -> Iterator[PlannedTensor]:
    rows, columns = linear.codes.shape
    name, stored = linear.name, linear.grid.scale.to(torch.float32).cpu()

    def bits() -> torch.Tensor:
        return minifloat_codes(linear, minifloat)

    def packed() -> torch.Tensor:
        found = bits()
        return found[:, 0::2] | (found[:, 1::2] << 4)

    if minifloat.element == "e4m3":
        yield PlannedTensor(
            f"{name}.weight", torch.float8_e4m3fn, (rows, columns), lambda: bits().view(torch.float8_e4m3fn)
        )
        yield PlannedTensor(f"{name}.weight_scale", dtype, (rows, 1), lambda: exact_cast(name, stored, dtype))
        return
    yield PlannedTensor(f"{name}.weight_packed", torch.uint8, (rows, columns // 2), packed)
    shape = (rows, columns // (minifloat.group or columns))
    if minifloat.scales == "e8m0":
        yield PlannedTensor(f"{name}.weight_scale", torch.uint8, shape, lambda: e8m0_exponents(name, stored))
        return
    kind = torch.float8_e4m3fn
    yield PlannedTensor(f"{name}.weight_scale", kind, shape, lambda: exact_cast(name, stored * divider, kind))
    yield PlannedTensor(f"{name}.weight_global_scale", torch.float32, (1,), lambda: torch.tensor([divider]))


def _shared_dividers(linears: Mapping[str, QuantizedLinear]) -> dict[str, float]:
    """The power of two by which the scales of each linear fill E4M3, one for all linears of a module.

    Servers fuse the linears of a module (query, key and value; gate and up) and give them one number for all, the
    largest; where others were smaller, their weights would come out wrong. A power of two keeps every product exact,
    in bfloat16 too.
    """
    largest: dict[str, float] = {}
    for name, linear in linears.items():
        module = name.rpartition(".")[0]
        largest[module] = max(largest.get(module, 0.0), float(linear.grid.scale.max()))
    return {name: _divider(largest[name.rpartition(".")[0]]) for name in linears}


def _divider(largest: float) -> float:
    if largest == 0.0:
        return 1.0
    mantissa, exponent = math.frexp(largest)
    place = exponent if mantissa <= _LARGEST_E4M3_MANTISSA else exponent + 1
    return math.ldexp(1.0, _LARGEST_E4M3_EXPONENT + 1 - place)
