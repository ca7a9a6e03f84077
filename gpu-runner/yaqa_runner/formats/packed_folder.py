"""A finished folder of safetensors whose linears are stored in parts: its tensors, each one decoded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from transformers import AutoConfig, PretrainedConfig

from yaqa_runner.formats.blockwise_reference import DecodedTensors
from yaqa_runner.model.stored_tensors import SafetensorsFiles


def plain_config(directory: Path) -> PretrainedConfig:
    """The folder's configuration without what it says of quantization: of the model as it is decoded."""
    config: PretrainedConfig = AutoConfig.from_pretrained(directory, trust_remote_code=False, local_files_only=True)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    return config


def decoded_tensors(directory: Path, parts: tuple[str, ...], decode: Callable[[str], torch.Tensor]) -> DecodedTensors:
    """The folder's tensors in float32 by the checkpoint's names.

    Args:
        directory: The folder.
        parts: What the tensors of a packed linear are called after its name; the first tells it from others. None
            where no linear is packed.
        decode: Gives the weight of a packed linear by its name, as the architecture holds it.
    """
    stored = SafetensorsFiles(tuple(sorted(directory.glob("*.safetensors"))))
    marks = tuple(f".{part}" for part in parts[:1])
    packed = {name.rpartition(".")[0] for name in stored.names if name.endswith(marks)}
    taken = {f"{name}.{part}" for name in packed for part in parts}
    names = [*(f"{name}.weight" for name in packed), *(name for name in stored.names if name not in taken)]

    def decoded(name: str) -> torch.Tensor:
        linear = name.removesuffix(".weight")
        if name.endswith(".weight") and linear in packed:
            return decode(linear)
        with stored.opened() as give:
            plain: torch.Tensor = give(name)[...]
            return plain.to(torch.float32)

    return DecodedTensors(names, lambda: decoded)
