"""MLX folders: mlx-lm, LM Studio and everything else on ``mlx.core.quantized_matmul``.

A linear is ``weight`` (uint32, codes from the lowest bit on), ``scales`` and ``biases`` in the model's 16-bit type:
``value = scales · code + biases`` in groups of inputs. Embedding and output layer, which are half of a small model, are
stored in groups of 8 bits; what is neither stays as the checkpoint has it. In the modes ``mxfp4`` and ``nvfp4`` codes
are numbers of E2M1 and ``scales`` (uint8) powers of two for 32 inputs, or numbers of E4M3 for 16; there are no biases.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open

from yaqa_runner.formats.affine_codes import exact_cast, unsigned_codes
from yaqa_runner.formats.blockwise_reference import decoded_model
from yaqa_runner.formats.container import QuantizedLinear, ReferenceModel
from yaqa_runner.formats.grid_choice import ContainerGrid
from yaqa_runner.formats.minifloat_codes import e8m0_exponents, minifloat_codes
from yaqa_runner.formats.mlx.engine import engine_config, refuse_unlike
from yaqa_runner.formats.output_folder import files_of, output_folder
from yaqa_runner.formats.packed_folder import decoded_tensors, plain_config
from yaqa_runner.formats.packing import pack_bits, unpack_bits
from yaqa_runner.formats.plain_weights import plain_tensors, replaced_tensors, unquantized_weights, weight_file_of
from yaqa_runner.formats.quantized_embedding import quantized_embedding
from yaqa_runner.formats.safetensors_writer import PlannedTensor, write_safetensors
from yaqa_runner.formats.source import ExportError, SourceSnapshot
from yaqa_runner.grids.minifloat import MinifloatGrid
from yaqa_runner.grids.offset import OffsetGrid
from yaqa_runner.protocol.manifest import UnquantizedWeight

BITS = (2, 3, 4, 5, 6, 8)
GROUPS = (32, 64, 128)
VOCABULARY_BITS = 8
_VOCABULARY = ("model.embed_tokens", "lm_head")
_PARTS = ("scales", "biases", "weight")
# Angles that old checkpoints carry along: mlx-lm computes them, and refuses tensors that it does not know.
_COMPUTED = ".rotary_emb.inv_freq"


FLOAT_MODES = {
    "nvfp4": MinifloatGrid("nvfp4", "e2m1", 16, "e4m3", 4.5),
    "mxfp4": MinifloatGrid("mxfp4", "e2m1", 32, "e8m0", 4.25),
}
_FLOAT_BITS = 4
_FLOAT_VOCABULARY_GROUP = 32


class MlxContainer:
    """Integer weights of ``bits`` in groups of ``group`` inputs, each with a scale and a bias; or, of a mode, FP4."""

    name = "mlx"

    def __init__(self, bits: int, group: int) -> None:
        if bits not in BITS:
            raise ExportError(f"MLX has kernels for {', '.join(map(str, BITS))} bits; not {bits}.")
        if group not in GROUPS:
            raise ExportError(f"MLX has kernels for groups of {', '.join(map(str, GROUPS))}; not {group}.")
        self.bits = bits
        self.group = self.vocabulary_group = group
        self.mode = "affine"

    @classmethod
    def of_mode(cls, mode: str) -> MlxContainer:
        """FP4 weights: ``nvfp4`` or ``mxfp4``; embedding and output layer stay whole numbers."""
        made = cls(_FLOAT_BITS, _FLOAT_VOCABULARY_GROUP)
        made.mode = mode
        made.group = FLOAT_MODES[mode].group or 0
        return made

    def grid(self, layer: str | None = None) -> ContainerGrid:
        """Scales and biases are exact in float16 and bfloat16 alike; rows must be whole groups."""
        if self.mode in FLOAT_MODES:
            return ContainerGrid(FLOAT_MODES[self.mode], FLOAT_MODES[self.mode].supports)
        return ContainerGrid(_grid(self.bits, self.group), lambda rows, columns: rows > 0 and columns % self.group == 0)

    def storable(self, source: Path, linears: set[str]) -> dict[str, torch.Tensor | None]:
        """Those of ``linears`` that the checkpoint has a tensor of their own for; inputs in the model's order."""
        snapshot = SourceSnapshot(source)
        refuse_unlike(snapshot)
        return dict.fromkeys(name for name in linears if f"{name}.weight" in snapshot)

    def unquantized(self, source: Path, linears: set[str]) -> list[UnquantizedWeight]:
        """Embedding and output layer, which are rounded to nearest, and matrices in the checkpoint's own type."""
        snapshot = SourceSnapshot(source)
        refuse_unlike(snapshot)
        vocabulary = self._vocabulary(snapshot)
        stored = {"type": f"{VOCABULARY_BITS}-bit, groups of {self.vocabulary_group}", "reason": "rounded to nearest"}
        return [
            weight.model_copy(update=stored) if weight.name.removesuffix(".weight") in vocabulary else weight
            for weight in unquantized_weights(snapshot, linears)
        ]

    def write(self, source: Path, linears: dict[str, QuantizedLinear], output: Path) -> list[Path]:
        """Write safetensors (sharded above 5 GB), ``config.json`` with ``quantization``, tokenizer, licence.

        Raises:
            ExportError: mlx-lm computes something else than the checkpoint asks, or scales are not exact.
        """
        snapshot = SourceSnapshot(source)
        refuse_unlike(snapshot)
        replaced_tensors(snapshot, linears)
        vocabulary = self._vocabulary(snapshot)
        tensors: list[PlannedTensor] = []
        for linear in linears.values():
            if self.mode in FLOAT_MODES:
                tensors.extend(_float_tensors(linear, FLOAT_MODES[self.mode]))
            else:
                tensors.extend(_tensors(linear, self.bits, self.group, snapshot.dtype))
        for name in vocabulary:
            grid = _grid(VOCABULARY_BITS, self.vocabulary_group)
            embedding = quantized_embedding(name, snapshot.read(f"{name}.weight"), grid)
            tensors.extend(_tensors(embedding, VOCABULARY_BITS, self.vocabulary_group, snapshot.dtype))
        replaced = {f"{name}.weight" for name in vocabulary}
        tensors.extend(
            tensor
            for tensor in plain_tensors(snapshot, linears)
            if tensor.name not in replaced and not tensor.name.endswith(_COMPUTED)
        )
        config = engine_config(snapshot)
        # Twice: mlx-lm reads the first, the Hub's page the second.
        config["quantization"] = config["quantization_config"] = self._settings(vocabulary)
        with output_folder(output) as scratch:
            write_safetensors(scratch, tensors, form="mlx")
            (scratch / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
            snapshot.copy("mlx", scratch)
        return files_of(output)

    def _vocabulary(self, snapshot: SourceSnapshot) -> list[str]:
        """Embedding and output layer, as far as their rows are whole groups; a tied output layer is the embedding."""
        return [
            name
            for name in _VOCABULARY
            if f"{name}.weight" in snapshot
            and not snapshot.is_tied_copy(f"{name}.weight")
            and snapshot.shape(f"{name}.weight")[-1] % self.vocabulary_group == 0
        ]

    def _settings(self, vocabulary: list[str]) -> dict[str, Any]:
        own = {"group_size": self.vocabulary_group, "bits": VOCABULARY_BITS, "mode": "affine"}
        return {"group_size": self.group, "bits": self.bits, "mode": self.mode, **{name: own for name in vocabulary}}

    def load(
        self, directory: Path, device: str = "cpu", source: Path | None = None, by_blocks: bool = False
    ) -> ReferenceModel:
        """The original architecture in float32 with every packed weight decoded, as MLX runs on Apple's processors.

        Raises:
            ExportError: a mode that is not read here, or not the model's weights.
        """
        tensors = decoded_tensors(directory, _PARTS, lambda name: self.decode(directory, name))
        return decoded_model(plain_config(directory), tensors, device=device, by_blocks=by_blocks)

    def decode(self, directory: Path, name: str, source: Path | None = None) -> torch.Tensor:
        """Weight ``[out, in]`` float32, equal to what ``mx.dequantize`` gives of scales and biases in float32.

        Raises:
            ExportError: a mode that is not read here.
        """
        settings = stored_settings(directory)
        own = settings.get(name)
        settings = settings | (own if isinstance(own, dict) else {})
        bits, minifloat = settings["bits"], FLOAT_MODES.get(settings.get("mode", "affine"))
        parts = {}
        for part in _PARTS if minifloat is None else ("scales", "weight"):
            path = weight_file_of(directory, f"{name}.{part}")
            with safe_open(path, framework="pt", device="cpu") as file:
                parts[part] = file.get_tensor(f"{name}.{part}")
        words = parts["weight"].view(torch.int32).numpy()
        columns = words.shape[1] * 32 // bits
        group = columns // parts["scales"].shape[1]
        codes = torch.from_numpy(unpack_bits(words.view(np.uint8), bits, columns)).to(torch.float32)
        if minifloat is not None:
            if parts["scales"].dtype != torch.uint8:
                raise ExportError(f"{directory.name}: the scales of {name} are {parts['scales'].dtype}, not bytes.")
            return minifloat.decode_bits(codes, parts["scales"])
        scales, biases = (parts[part].to(torch.float32) for part in ("scales", "biases"))
        return codes.mul_(scales.repeat_interleave(group, 1)).add_(biases.repeat_interleave(group, 1))


def stored_settings(directory: Path) -> dict[str, Any]:
    """What ``config.json`` says of quantization: the folder's bits and group, and those of layers by their names.

    Raises:
        ExportError: there is none, or one in a mode or width that is not read here.
    """
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    settings = config.get("quantization")
    if not isinstance(settings, dict):
        raise ExportError(f"{directory.name} says nothing of its quantization.")
    for part in (settings, *(value for value in settings.values() if isinstance(value, dict))):
        mode, bits = part.get("mode", "affine"), part.get("bits", settings.get("bits"))
        if not (mode == "affine" and bits in BITS) and not (mode in FLOAT_MODES and bits == _FLOAT_BITS):
            known = ", ".join(("affine", *FLOAT_MODES))
            raise ExportError(f"{directory.name} is MLX of {bits} bits in the mode {mode!r}; read are {known}.")
    return dict(settings)


def _grid(bits: int, group: int) -> OffsetGrid:
    return OffsetGrid(f"affine-{bits}-g{group}", bits, group, "shared")


def _tensors(linear: QuantizedLinear, bits: int, group: int, dtype: torch.dtype) -> Iterator[PlannedTensor]:
    rows, columns = linear.codes.shape
    if columns % group:
        raise ExportError(f"{linear.name}: MLX stores whole groups of {group}, not {columns} inputs.")

    def packed() -> torch.Tensor:
        words = pack_bits(unsigned_codes(linear, bits), bits, word_bytes=4)
        return torch.from_numpy(words).view(torch.uint32)

    def part(number: int) -> Callable[[], torch.Tensor]:
        return lambda: exact_cast(linear.name, _scales(linear, bits, group)[number], dtype)

    shape = (rows, columns // group)
    yield PlannedTensor(f"{linear.name}.weight", torch.uint32, (rows, columns * bits // 32), packed)
    yield PlannedTensor(f"{linear.name}.scales", dtype, shape, part(0))
    yield PlannedTensor(f"{linear.name}.biases", dtype, shape, part(1))


def _float_tensors(linear: QuantizedLinear, minifloat: MinifloatGrid) -> Iterator[PlannedTensor]:
    minifloat_codes(linear, minifloat)
    rows, columns = linear.codes.shape

    def packed() -> torch.Tensor:
        words = pack_bits(minifloat_codes(linear, minifloat).numpy(), _FLOAT_BITS, word_bytes=4)
        return torch.from_numpy(words).view(torch.uint32)

    def scales() -> torch.Tensor:
        stored = linear.grid.scale.to(torch.float32).cpu()
        if minifloat.scales == "e8m0":
            return e8m0_exponents(linear.name, stored)
        return exact_cast(linear.name, stored, torch.float8_e4m3fn).view(torch.uint8)

    group = minifloat.group or columns
    yield PlannedTensor(f"{linear.name}.weight", torch.uint32, (rows, columns * _FLOAT_BITS // 32), packed)
    yield PlannedTensor(f"{linear.name}.scales", torch.uint8, (rows, columns // group), scales)


def _scales(linear: QuantizedLinear, bits: int, group: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and bias of unsigned codes, each float32 ``[out, groups]``; longer groups are repeated."""
    grid = linear.grid
    if grid.group % group or grid.table is not None:
        raise ExportError(f"{linear.name}: groups of {grid.group} cannot be stored in groups of {group}.")
    scale, offset = grid.scale.to(torch.float32).cpu(), grid.offset.to(torch.float32).cpu()
    if not bool(torch.isfinite(scale).all() & torch.isfinite(offset).all()):
        raise ExportError(f"{linear.name}: a scale is not finite.")
    lift = 0 if grid.minimum >= 0 else 1 << (bits - 1)
    groups = linear.codes.shape[1] // group

    def repeated(part: torch.Tensor) -> torch.Tensor:
        return part.repeat_interleave(grid.group // group, dim=1)[:, :groups].contiguous()

    return repeated(scale), repeated(offset - scale * lift)
