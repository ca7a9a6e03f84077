"""``pack-quantized``: whole numbers of 2 to 8 bits, packed, each group with a scale in the model's type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from yaqa_runner.formats.affine_codes import affine_scales, exact_cast, unsigned_codes
from yaqa_runner.formats.container import QuantizedLinear
from yaqa_runner.formats.grid_choice import ContainerGrid
from yaqa_runner.formats.packing import pack_int32_columns, pack_int32_rows
from yaqa_runner.formats.safetensors_writer import PlannedTensor
from yaqa_runner.grids.asymmetric import AsymmetricGrid
from yaqa_runner.grids.symmetric import SymmetricGrid


class IntegerForm:
    """Integer weights of ``bits`` (2 to 8) in groups of ``group`` inputs.

    With ``zero`` every group has a zero point beside its scale.
    """

    format = "pack-quantized"
    parts = ("weight_packed", "weight_scale", "weight_shape", "weight_zero_point", "weight_g_idx")
    unpacks_experts = True

    def __init__(self, bits: int, group: int, zero: bool = False) -> None:
        self.bits = bits
        self.group = group
        self.zero = zero

    def grid(self) -> ContainerGrid:
        """Rows must be whole groups (the library refuses others)."""
        grid = (AsymmetricGrid if self.zero else SymmetricGrid)(self.bits, self.group)
        return ContainerGrid(grid, lambda rows, columns: rows > 0 and columns % self.group == 0)

    def settings(self, linears: Mapping[str, QuantizedLinear]) -> dict[str, Any]:
        """What ``config.json`` says of the weights."""
        return {
            "num_bits": self.bits,
            "type": "int",
            "symmetric": self._is_symmetric(linears),
            "strategy": "group",
            "group_size": self.group,
            "block_structure": None,
            "dynamic": False,
            "actorder": None,
            "observer": "minmax",
            "observer_kwargs": {},
        }

    def tensors(self, linears: Mapping[str, QuantizedLinear], dtype: torch.dtype) -> list[PlannedTensor]:
        """Codes, scales in ``dtype``, shapes and zero points of all ``linears``."""
        symmetric = self._is_symmetric(linears)
        return [tensor for linear in linears.values() for tensor in self._tensors(linear, dtype, symmetric)]

    def _is_symmetric(self, linears: Mapping[str, QuantizedLinear]) -> bool:
        # A grid with zero points keeps them even where all of them are the middle: sizes and settings are the recipe's.
        return not self.zero and all(not bool((linear.grid.offset != 0).any()) for linear in linears.values())

    def _tensors(self, linear: QuantizedLinear, dtype: torch.dtype, symmetric: bool) -> list[PlannedTensor]:
        rows, columns = linear.codes.shape
        words = -(-columns * self.bits // 32)
        groups = -(-columns // self.group)

        def packed() -> torch.Tensor:
            return torch.from_numpy(pack_int32_rows(unsigned_codes(linear, self.bits), self.bits))

        def scale() -> torch.Tensor:
            return exact_cast(linear.name, affine_scales(linear, self.bits, self.group).scale, dtype)

        def zero() -> torch.Tensor:
            # The library keeps zero points as signed codes lifted by half the range, like the weights.
            points = affine_scales(linear, self.bits, self.group).zero
            if points is None:
                value = torch.full((rows, groups), 1 << (self.bits - 1), dtype=torch.uint8).numpy()
            else:
                value = points
            return torch.from_numpy(pack_int32_columns(value, self.bits))

        name = linear.name
        tensors = [
            PlannedTensor(f"{name}.weight_packed", torch.int32, (rows, words), packed),
            PlannedTensor(f"{name}.weight_scale", dtype, (rows, groups), scale),
            PlannedTensor(f"{name}.weight_shape", torch.int64, (2,), lambda: torch.tensor([rows, columns])),
        ]
        if not symmetric:
            zero_rows = -(-rows * self.bits // 32)
            tensors.append(PlannedTensor(f"{name}.weight_zero_point", torch.int32, (zero_rows, groups), zero))
        return tensors
