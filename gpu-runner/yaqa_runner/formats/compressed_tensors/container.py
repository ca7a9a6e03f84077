"""compressed-tensors: the folder that vLLM, SGLang and transformers load.

Scales are kept in the model's own 16-bit type; runtimes allocate them in that type and would round others again.
Everything that is not quantized stays as the checkpoint has it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationScheme
from safetensors import safe_open
from transformers import AutoConfig, PreTrainedModel
from transformers.quantizers.base import MODULES_TO_PATCH_FOR_QUANTIZATION

from yaqa_runner.formats.blockwise_reference import decoded_model
from yaqa_runner.formats.compressed_tensors.float_forms import FLOAT_FORMS
from yaqa_runner.formats.compressed_tensors.integer_form import IntegerForm
from yaqa_runner.formats.compressed_tensors.weight_form import WeightForm
from yaqa_runner.formats.container import QuantizedLinear, ReferenceModel
from yaqa_runner.formats.grid_choice import ContainerGrid
from yaqa_runner.formats.output_folder import files_of, output_folder
from yaqa_runner.formats.packed_folder import decoded_tensors, plain_config
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
from yaqa_runner.formats.safetensors_writer import write_safetensors
from yaqa_runner.formats.source import ExportError, SourceSnapshot
from yaqa_runner.formats.torch_reference import TorchReferenceModel, empty_model, require_whole
from yaqa_runner.model.auto_class import auto_class
from yaqa_runner.protocol.manifest import UnquantizedWeight

# Experts that transformers replaces by linears in a packed folder.
_TAKEN_APART = tuple(MODULES_TO_PATCH_FOR_QUANTIZATION)


class CompressedTensorsContainer:
    """Weights in one of the library's forms, activations in 16 bits."""

    name = "compressed-tensors"

    def __init__(self, form: WeightForm) -> None:
        self.form = form

    def grid(self, layer: str | None = None) -> ContainerGrid:
        """The form's, for every linear."""
        return self.form.grid()

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
        self._ignored_modules(snapshot, linears)
        return unquantized_weights(snapshot, linears)

    def write(self, source: Path, linears: dict[str, QuantizedLinear], output: Path) -> list[Path]:
        """Write safetensors (sharded above 5 GB), ``config.json`` with ``quantization_config``, tokenizer, licence.

        Raises:
            ExportError: Groups that do not divide a row, scales that the model's type does not hold.
        """
        snapshot = SourceSnapshot(source)
        replaced_tensors(snapshot, linears)
        tensors = [*self.form.tensors(linears, snapshot.dtype), *plain_tensors(snapshot, linears)]
        config = dict(snapshot.raw_config)
        config["quantization_config"] = self._quantization_config(snapshot, linears)
        with output_folder(output) as scratch:
            write_safetensors(scratch, tensors)
            (scratch / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
            snapshot.copy("compressed-tensors", scratch)
        return files_of(output)

    def _quantization_config(self, snapshot: SourceSnapshot, linears: Mapping[str, QuantizedLinear]) -> dict[str, Any]:
        scheme = {
            "targets": ["Linear"],
            "format": self.form.format,
            "input_activations": None,
            "output_activations": None,
            "weights": self.form.settings(linears),
        }
        return {
            "quant_method": "compressed-tensors",
            "format": self.form.format,
            "quantization_status": "compressed",
            "global_compression_ratio": None,
            "kv_cache_scheme": None,
            "ignore": self._ignored_modules(snapshot, set(linears)),
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
            parts = stored_form(directory).parts if _scheme(directory) else ()
            tensors = decoded_tensors(directory, parts, lambda name: self.decode(directory, name))
            return decoded_model(plain_config(directory), tensors, device=device, by_blocks=True)
        config = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
        loader = auto_class(config)
        assert loader is not None
        model, report = loader.from_pretrained(
            directory, dtype=torch.float32, local_files_only=True, trust_remote_code=False, output_loading_info=True
        )
        require_whole(report)
        # FP4 is unpacked to bfloat16 whatever the model's type: now, and not when float32 inputs meet it.
        quantizer = getattr(model, "hf_quantizer", None)
        if _scheme(directory).get("format") not in (None, IntegerForm.format) and quantizer is not None:
            quantizer.compressor.decompress_model(model)
        # The model's own float() refuses: it takes what is packed for a type of its own.
        return TorchReferenceModel(torch.nn.Module.float(model).to(device))

    def decode(self, directory: Path, name: str, source: Path | None = None) -> torch.Tensor:
        """Weight ``[out, in]`` float32 as the library's own decompressor gives it."""
        form = stored_form(directory)
        path = weight_file_of(directory, f"{name}.{form.parts[0]}")
        state: dict[str, torch.Tensor] = {}
        with safe_open(path, framework="pt", device="cpu") as file:
            keys = file.keys()
            for key in keys:
                if key.startswith(f"{name}.weight"):
                    state[key.removeprefix(f"{name}.")] = file.get_tensor(key)
        if state["weight_scale"].dtype in (torch.float16, torch.bfloat16):
            state["weight_scale"] = state["weight_scale"].to(torch.float32)
        scheme = QuantizationScheme.model_validate(_scheme(directory))
        compressor = BaseCompressor.get_value_from_registry(form.format)
        weight: torch.Tensor = compressor.decompress(state, scheme)["weight"]
        return weight.to(torch.float32)

    def _ignored_modules(self, snapshot: SourceSnapshot, linears: set[str]) -> list[str]:
        """Linears that loaders must leave alone.

        Raises:
            ExportError: One of ``linears`` is no ``nn.Linear``, or a mixture has experts that are not.
        """
        model = empty_model(snapshot.config)
        modules = dict(model.named_modules())
        paths = loaded_paths(snapshot, model, linears)
        for name, path in sorted(paths.items()):
            if isinstance(modules.get(path), torch.nn.Linear):
                continue
            if not is_expert(name):
                raise ExportError(f"{name}: compressed-tensors stores nn.Linear only. Choose GGUF or GPTQ.")
            if not self.form.unpacks_experts:
                raise ExportError(
                    f"{name}: transformers unpacks no experts of {self.form.format}. Choose w4a16 or GGUF."
                )
        refuse_unpacked_experts(model, snapshot, linears)
        for path, module in modules.items():
            if type(module).__name__ in _TAKEN_APART and not any(name.startswith(f"{path}.") for name in linears):
                raise ExportError(
                    f"transformers takes {path} apart for this format and looks for every expert packed; those of "
                    f"{snapshot.config.model_type} stay in 16 bits. Choose GGUF or GPTQ."
                )
        quantized = set(paths.values())
        kept = {
            path for path, module in modules.items() if isinstance(module, torch.nn.Linear) and path not in quantized
        }
        return sorted(kept | stored_modules(snapshot, model, kept) | routers(snapshot))


def stored_form(directory: Path) -> WeightForm:
    """The form of a finished folder.

    Raises:
        ExportError: one that is not written here.
    """
    scheme = _scheme(directory)
    format_name = str(scheme.get("format"))
    if format_name == IntegerForm.format:
        weights = scheme["weights"]
        return IntegerForm(weights["num_bits"], weights["group_size"], not weights["symmetric"])
    form = next((form for form in FLOAT_FORMS.values() if form.format == format_name), None)
    if form is None:
        raise ExportError(f"{directory.name} is compressed-tensors of the format {format_name[:40]!r}, not read here.")
    return form


def is_read_by_blocks(settings: Mapping[str, Any]) -> bool:
    """Whether a folder with this ``quantization_config`` is of a form that is written here, its activations left."""
    formats = {IntegerForm.format, *(form.format for form in FLOAT_FORMS.values())}
    groups = settings.get("config_groups") or {}
    return settings.get("format") in formats and all(not group.get("input_activations") for group in groups.values())


def _scheme(directory: Path) -> dict[str, Any]:
    """The settings of the folder's linears; none of a folder that is not quantized."""
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    settings = config.get("quantization_config")
    if settings is None:
        return {}
    group: dict[str, Any] = settings["config_groups"]["group_0"]
    return {"format": settings["format"]} | {key: value for key, value in group.items() if value is not None}


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
