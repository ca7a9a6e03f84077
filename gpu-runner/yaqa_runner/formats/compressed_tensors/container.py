"""compressed-tensors ``pack-quantized``: the folder that vLLM, SGLang and transformers load.

Scales are kept in the model's own 16-bit type; runtimes allocate them in that type and would round others again.
Everything that is not quantized stays as the checkpoint has it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from compressed_tensors.compressors import PackedQuantizationCompressor
from compressed_tensors.quantization import QuantizationScheme
from safetensors import safe_open
from transformers import AutoConfig, PreTrainedModel
from transformers.quantizers.base import MODULES_TO_PATCH_FOR_QUANTIZATION

from yaqa_runner.formats.affine_codes import affine_scales, exact_cast, unsigned_codes
from yaqa_runner.formats.blockwise_reference import decoded_model
from yaqa_runner.formats.container import QuantizedLinear, ReferenceModel
from yaqa_runner.formats.grid_choice import ContainerGrid
from yaqa_runner.formats.output_folder import files_of, output_folder
from yaqa_runner.formats.packed_folder import decoded_tensors, plain_config
from yaqa_runner.formats.packing import pack_int32_columns, pack_int32_rows
from yaqa_runner.formats.plain_weights import (
    is_expert,
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
from yaqa_runner.formats.torch_reference import TorchReferenceModel, empty_model, require_whole
from yaqa_runner.grids.asymmetric import AsymmetricGrid
from yaqa_runner.grids.symmetric import SymmetricGrid
from yaqa_runner.model.auto_class import auto_class
from yaqa_runner.protocol.manifest import UnquantizedWeight

_PARTS = ("weight_packed", "weight_scale", "weight_shape", "weight_zero_point", "weight_g_idx")
# Experts that transformers replaces by linears in a packed folder.
_TAKEN_APART = tuple(MODULES_TO_PATCH_FOR_QUANTIZATION)


class CompressedTensorsContainer:
    """Integer weights of ``bits`` (2 to 8) in groups of ``group`` inputs, activations in 16 bits.

    With ``zero`` every group has a zero point beside its scale.
    """

    name = "compressed-tensors"

    def __init__(self, bits: int, group: int, zero: bool = False) -> None:
        self.bits = bits
        self.group = group
        self.zero = zero

    def grid(self, layer: str | None = None) -> ContainerGrid:
        """Rows must be whole groups (the library refuses others)."""
        grid = (AsymmetricGrid if self.zero else SymmetricGrid)(self.bits, self.group)
        return ContainerGrid(grid, lambda rows, columns: rows > 0 and columns % self.group == 0)

    def storable(self, source: Path, linears: set[str]) -> dict[str, torch.Tensor | None]:
        """Those of ``linears`` that transformers loads from a folder; inputs in the model's order."""
        snapshot = SourceSnapshot(source)
        model = empty_model(snapshot.config)
        storable = storable_linears(snapshot, model, linears)
        touched = _touched_when_loaded(model, loaded_paths(snapshot, model, storable))
        if touched and touched == storable:
            raise ExportError(
                f"transformers sets up weights of {snapshot.config.model_type} by name while it loads, and packed ones "
                "have none: a folder would not open. Choose GGUF or GPTQ."
            )
        return dict.fromkeys(storable - touched)

    def unquantized(self, source: Path, linears: set[str]) -> list[UnquantizedWeight]:
        """Matrices kept in the checkpoint's own type."""
        snapshot = SourceSnapshot(source)
        _ignored_modules(snapshot, linears)
        return unquantized_weights(snapshot, linears)

    def write(self, source: Path, linears: dict[str, QuantizedLinear], output: Path) -> list[Path]:
        """Write safetensors (sharded above 5 GB), ``config.json`` with ``quantization_config``, tokenizer, licence.

        Raises:
            ExportError: Groups that do not divide a row, scales that the model's type does not hold.
        """
        snapshot = SourceSnapshot(source)
        replaced_tensors(snapshot, linears)
        # A grid with zero points keeps them even where all of them are the middle: sizes and settings are the recipe's.
        symmetric = not self.zero and all(not bool((linear.grid.offset != 0).any()) for linear in linears.values())
        tensors = []
        for linear in linears.values():
            tensors.extend(self._tensors(linear, snapshot.dtype, symmetric))
        tensors.extend(plain_tensors(snapshot, linears))
        config = dict(snapshot.raw_config)
        config["quantization_config"] = self._quantization_config(snapshot, set(linears), symmetric)
        with output_folder(output) as scratch:
            write_safetensors(scratch, tensors)
            (scratch / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
            snapshot.copy("compressed-tensors", scratch)
        return files_of(output)

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

    def _quantization_config(self, snapshot: SourceSnapshot, linears: set[str], symmetric: bool) -> dict[str, Any]:
        weights = {
            "num_bits": self.bits,
            "type": "int",
            "symmetric": symmetric,
            "strategy": "group",
            "group_size": self.group,
            "block_structure": None,
            "dynamic": False,
            "actorder": None,
            "observer": "minmax",
            "observer_kwargs": {},
        }
        scheme = {
            "targets": ["Linear"],
            "format": "pack-quantized",
            "input_activations": None,
            "output_activations": None,
            "weights": weights,
        }
        return {
            "quant_method": "compressed-tensors",
            "format": "pack-quantized",
            "quantization_status": "compressed",
            "global_compression_ratio": None,
            "kv_cache_scheme": None,
            "ignore": _ignored_modules(snapshot, linears),
            "config_groups": {"group_0": scheme},
        }

    def load(
        self, directory: Path, device: str = "cpu", source: Path | None = None, by_blocks: bool = False
    ) -> ReferenceModel:
        """The folder as ``from_pretrained`` opens it, in float32 so that scales times codes stay exact.

        Parts of some models keep the folder's own type whatever ``from_pretrained`` is asked for: a mixture's experts,
        GPT-NeoX's output layer. Those are widened afterwards, as they were loaded.

        Raises:
            ExportError: transformers finds a weight missing, or one that it does not know.
        """
        if by_blocks:
            tensors = decoded_tensors(directory, _PARTS, lambda name: self.decode(directory, name))
            return decoded_model(plain_config(directory), tensors, device=device, by_blocks=True)
        config = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
        loader = auto_class(config)
        assert loader is not None
        model, report = loader.from_pretrained(
            directory, dtype=torch.float32, local_files_only=True, trust_remote_code=False, output_loading_info=True
        )
        require_whole(report)
        # The model's own float() refuses: it takes what is packed for a type of its own.
        return TorchReferenceModel(torch.nn.Module.float(model).to(device))

    def decode(self, directory: Path, name: str, source: Path | None = None) -> torch.Tensor:
        """Weight ``[out, in]`` float32 as the library's own decompressor gives it."""
        path = weight_file_of(directory, f"{name}.weight_packed")
        state: dict[str, torch.Tensor] = {}
        with safe_open(path, framework="pt", device="cpu") as file:
            keys = file.keys()
            for key in keys:
                if key.startswith(f"{name}.weight"):
                    state[key.removeprefix(f"{name}.")] = file.get_tensor(key)
        state["weight_scale"] = state["weight_scale"].to(torch.float32)
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        group = config["quantization_config"]["config_groups"]["group_0"]
        scheme = QuantizationScheme.model_validate(group)
        weight: torch.Tensor = PackedQuantizationCompressor.decompress(state, scheme)["weight"]
        return weight.to(torch.float32)


def _ignored_modules(snapshot: SourceSnapshot, linears: set[str]) -> list[str]:
    """Linears that loaders must leave alone.

    Raises:
        ExportError: One of ``linears`` is no ``nn.Linear``, or a mixture has experts that are not.
    """
    model = empty_model(snapshot.config)
    modules = dict(model.named_modules())
    paths = loaded_paths(snapshot, model, linears)
    for name, path in sorted(paths.items()):
        if not isinstance(modules.get(path), torch.nn.Linear) and not is_expert(name):
            raise ExportError(f"{name}: compressed-tensors stores nn.Linear only. Choose GGUF or GPTQ.")
    refuse_unpacked_experts(model, snapshot, linears)
    for path, module in modules.items():
        if type(module).__name__ in _TAKEN_APART and not any(name.startswith(f"{path}.") for name in linears):
            raise ExportError(
                f"transformers takes {path} apart for this format and looks for every expert packed; those of "
                f"{snapshot.config.model_type} stay in 16 bits. Choose GGUF or GPTQ."
            )
    quantized = set(paths.values())
    kept = {path for path, module in modules.items() if isinstance(module, torch.nn.Linear) and path not in quantized}
    return sorted(kept | stored_modules(snapshot, model, kept) | routers(snapshot))


def _touched_when_loaded(model: PreTrainedModel, paths: dict[str, str]) -> set[str]:
    """Those of the linears ``paths`` (name to module) whose weight transformers asks for while it loads.

    A packed linear has no ``weight`` until the model runs, and some architectures set up weights of their parts by name
    while they are loaded: a folder in which those are packed does not open. ``model`` is spent.
    """
    modules = dict(model.named_modules())
    packed = {path: name for name, path in paths.items() if isinstance(modules.get(path), torch.nn.Linear)}
    for path in packed:
        modules[path]._parameters.pop("weight", None)
    touched = set()
    for path, module in modules.items():
        try:
            with torch.no_grad(), torch.device("meta"):
                model._init_weights(module)
        except AttributeError:
            near = {path, *(f"{path}.{child}" if path else child for child, _ in module.named_modules())}
            own = {packed[name] for name in near if name in packed}
            direct = {packed[name] for name in near if name in packed and name.count(".") <= path.count(".") + 1}
            touched |= direct or own
    return touched
