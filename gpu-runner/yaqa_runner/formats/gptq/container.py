"""GPTQ v1 checkpoints (2, 3, 4, 8 bits): vLLM, SGLang, transformers with gptqmodel, onnxruntime-genai.

``qweight`` packs along inputs, ``qzeros`` along outputs and holds ``zero − 1`` (the v1 convention that kernels
expect), scales are float16, ``g_idx`` is the plain input order.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from transformers.pytorch_utils import Conv1D

from yaqa_runner.formats.affine_codes import affine_scales, exact_cast, unsigned_codes
from yaqa_runner.formats.blockwise_reference import decoded_model
from yaqa_runner.formats.container import QuantizedLinear, ReferenceModel
from yaqa_runner.formats.grid_choice import ContainerGrid
from yaqa_runner.formats.output_folder import files_of, output_folder
from yaqa_runner.formats.packed_folder import decoded_tensors, plain_config
from yaqa_runner.formats.packing import (
    pack_int32_columns,
    pack_int32_rows,
    unpack_int32_columns,
    unpack_int32_rows,
)
from yaqa_runner.formats.plain_weights import (
    loaded_paths,
    plain_tensors,
    refuse_unpacked_experts,
    replaced_tensors,
    routers,
    storable_linears,
    stored_modules,
    unquantized_weights,
    weight_file_of,
)
from yaqa_runner.formats.safetensors_writer import PlannedTensor, write_safetensors
from yaqa_runner.formats.source import ExportError, SourceSnapshot
from yaqa_runner.formats.torch_reference import empty_model
from yaqa_runner.grids.symmetric import SymmetricGrid
from yaqa_runner.protocol.manifest import UnquantizedWeight

BITS = (2, 3, 4, 8)
_PARTS = ("qweight", "qzeros", "scales", "g_idx")


class GptqContainer:
    """Integer weights of ``bits`` (2, 3, 4 or 8) in groups of ``group`` inputs."""

    name = "gptq"

    def __init__(self, bits: int, group: int) -> None:
        if bits not in BITS:
            raise ExportError(f"GPTQ files have 2, 3, 4 or 8 bits, not {bits}.")
        self.bits = bits
        self.group = group

    def grid(self, layer: str | None = None) -> ContainerGrid:
        """Symmetric; kernels take multiples of 32 on both sides and whole groups."""
        return ContainerGrid(
            SymmetricGrid(self.bits, self.group),
            lambda rows, columns: rows > 0 and rows % 32 == 0 and columns % 32 == 0 and columns % self.group == 0,
        )

    def storable(self, source: Path, linears: set[str]) -> dict[str, torch.Tensor | None]:
        """Those of ``linears`` that transformers loads from a folder; inputs in the model's order."""
        snapshot = SourceSnapshot(source)
        return dict.fromkeys(storable_linears(snapshot, empty_model(snapshot.config), linears))

    def unquantized(self, source: Path, linears: set[str]) -> list[UnquantizedWeight]:
        """Matrices kept in the checkpoint's own type."""
        snapshot = SourceSnapshot(source)
        refuse_unpacked_experts(empty_model(snapshot.config), snapshot, linears)
        return unquantized_weights(snapshot, linears)

    def write(self, source: Path, linears: dict[str, QuantizedLinear], output: Path) -> list[Path]:
        """Write safetensors, ``config.json`` with ``quantization_config``, ``quantize_config.json``, tokenizer.

        Raises:
            ExportError: Shapes that are no multiples of 32, scales that float16 does not hold, a zero point of 0.
        """
        snapshot = SourceSnapshot(source)
        replaced_tensors(snapshot, linears)
        tensors = []
        for linear in linears.values():
            tensors.extend(self._tensors(linear))
        tensors.extend(plain_tensors(snapshot, linears))
        quantization = self._quantization_config(snapshot, linears)
        with output_folder(output) as scratch:
            write_safetensors(scratch, tensors)
            config = dict(snapshot.raw_config)
            config["quantization_config"] = quantization
            (scratch / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
            (scratch / "quantize_config.json").write_text(json.dumps(quantization, indent=2) + "\n", encoding="utf-8")
            snapshot.copy("gptq", scratch)
        return files_of(output)

    def _tensors(self, linear: QuantizedLinear) -> list[PlannedTensor]:
        rows, columns = linear.codes.shape
        if rows % 32 or columns % 32 or columns % self.group:
            raise ExportError(f"{linear.name}: GPTQ stores multiples of 32 and whole groups, not {rows} × {columns}.")
        groups = columns // self.group

        def weight() -> torch.Tensor:
            codes = unsigned_codes(linear, self.bits)
            return torch.from_numpy(pack_int32_columns(np.ascontiguousarray(codes.T), self.bits))

        def zeros() -> torch.Tensor:
            points = affine_scales(linear, self.bits, self.group).zero
            if points is None:
                points = np.full((rows, groups), 1 << (self.bits - 1), dtype=np.uint8)
            if points.min() == 0:
                raise ExportError(f"{linear.name}: GPTQ v1 cannot say that a zero point is 0.")
            return torch.from_numpy(pack_int32_rows(np.ascontiguousarray(points.T) - 1, self.bits))

        def scales() -> torch.Tensor:
            scale = affine_scales(linear, self.bits, self.group).scale
            return exact_cast(linear.name, scale, torch.float16).T.contiguous()

        name = linear.name
        word = self.bits
        return [
            PlannedTensor(f"{name}.qweight", torch.int32, (columns // 32 * word, rows), weight),
            PlannedTensor(f"{name}.qzeros", torch.int32, (groups, rows // 32 * word), zeros),
            PlannedTensor(f"{name}.scales", torch.float16, (groups, rows), scales),
            PlannedTensor(
                f"{name}.g_idx",
                torch.int32,
                (columns,),
                lambda: torch.arange(columns, dtype=torch.int32) // self.group,
            ),
        ]

    def _quantization_config(self, snapshot: SourceSnapshot, linears: dict[str, QuantizedLinear]) -> dict[str, Any]:
        model = empty_model(snapshot.config)
        refuse_unpacked_experts(model, snapshot, linears)
        quantized = set(loaded_paths(snapshot, model, linears).values())
        paths = {
            path
            for path, module in model.named_modules()
            if isinstance(module, (torch.nn.Linear, Conv1D)) and path not in quantized and path != "lm_head"
        }
        kept = routers(snapshot) | paths | stored_modules(snapshot, model, paths)
        symmetric = all(not bool((linear.grid.offset != 0).any()) for linear in linears.values())
        # A "-:" key tells loaders to leave the module alone.
        dynamic: dict[str, dict[str, Any]] = {f"-:^{name.replace('.', chr(92) + '.')}$": {} for name in sorted(kept)}
        return {
            "bits": self.bits,
            "group_size": self.group,
            "desc_act": False,
            "sym": symmetric,
            "lm_head": "lm_head" in linears,
            "quant_method": "gptq",
            "format": "gptq",
            "checkpoint_format": "gptq",
            "pack_dtype": "int32",
            **({"dynamic": dynamic} if dynamic else {}),
            "meta": {"quantizer": ["yaqa"]},
        }

    def load(
        self, directory: Path, device: str = "cpu", source: Path | None = None, by_blocks: bool = False
    ) -> ReferenceModel:
        """The original architecture in float32 with every packed weight decoded.

        transformers opens GPTQ folders through gptqmodel's kernels only; this needs neither.
        """
        config = plain_config(directory)
        modules = dict(empty_model(config).named_modules())

        def weight_of(name: str) -> torch.Tensor:
            weight = self.decode(directory, name)
            return weight.T.contiguous() if isinstance(modules.get(name), Conv1D) else weight

        tensors = decoded_tensors(directory, _PARTS, weight_of)
        return decoded_model(config, tensors, device=device, by_blocks=by_blocks)

    def decode(self, directory: Path, name: str, source: Path | None = None) -> torch.Tensor:
        """Weight ``[out, in]`` float32: ``scales[g] · (q − (qzeros[g] + 1))`` by the format's definition."""
        parts = {}
        for kind in _PARTS:
            path = weight_file_of(directory, f"{name}.{kind}")
            with safe_open(path, framework="pt", device="cpu") as file:
                parts[kind] = file.get_tensor(f"{name}.{kind}")
        columns = parts["g_idx"].shape[0]
        rows = parts["scales"].shape[1]
        codes = unpack_int32_columns(parts["qweight"].numpy(), self.bits, columns).astype(np.int32)
        zeros = unpack_int32_rows(parts["qzeros"].numpy(), self.bits, rows).astype(np.int32) + 1
        index = parts["g_idx"].to(torch.int64)
        scales = parts["scales"].to(torch.float32)[index]
        weight: torch.Tensor = scales * torch.from_numpy(codes - zeros[index.numpy()])
        return weight.T.contiguous()
