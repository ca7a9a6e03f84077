"""Which linears are quantized: found by structure, not by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from yaqa_runner.model.left_linears import left_by_role
from yaqa_runner.protocol.failures import UnsupportedModel
from yaqa_runner.protocol.manifest import UnquantizedWeight


@dataclass(frozen=True)
class LinearLayer:
    """A linear that will be quantized.

    Attributes:
        name: The checkpoint's name, for example ``model.layers.0.self_attn.q_proj``.
        module: ``nn.Linear`` (weight ``[out, in]``) or ``Conv1D`` (weight ``[in, out]``).
        block: Index of the transformer block that holds it; files of a sketch are split by it.
        rows: Output features.
        columns: Input features.
        path: The module's name in the loaded model; ``name`` but for experts of some mixtures.
        routed: Whether it sees only the tokens that a router sends it, in no order of sequences.
        fetch: Brings the module's weight where it is not there at all times.
    """

    name: str
    module: nn.Module
    block: int
    rows: int
    columns: int
    path: str
    routed: bool = False
    fetch: Callable[[], torch.Tensor] | None = field(default=None, compare=False, repr=False)

    def weight(self) -> torch.Tensor:
        """The weight ``[out, in]``, float32, contiguous, where the model is."""
        return self.stored_weight().to(torch.float32).contiguous()

    def stored_weight(self) -> torch.Tensor:
        """The weight ``[out, in]`` as the model holds it, in its type and on its device; a view, not a copy."""
        stored = self.module.weight
        assert isinstance(stored, torch.Tensor)
        if stored.is_meta and self.fetch is not None:
            stored = self.fetch()
        return stored.detach().T if isinstance(self.module, Conv1D) else stored.detach()


def discover_linears(
    model: nn.Module,
    stored: set[str] | None = None,
    experts: Mapping[str, str] | None = None,
    renamed: Mapping[str, str] | None = None,
) -> tuple[list[LinearLayer], list[UnquantizedWeight]]:
    """The linears inside the model's repeated blocks, in execution order of their names, and what stays.

    ``stored`` holds the checkpoint's tensor names; a linear whose weight is not stored under its own name (with or
    without the base model's prefix) cannot be exported and stays. ``experts`` gives the
    checkpoint's names of experts' linears by module name, ``renamed`` those of tensors that it calls otherwise than the
    model, by parameter name.

    Raises:
        UnsupportedModel: nothing can be quantized.
    """
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    shared: dict[int, int] = {}
    for _, parameter in model.named_parameters(remove_duplicate=False):
        shared[id(parameter)] = shared.get(id(parameter), 0) + 1
    block_of = _blocks(model)
    routed = experts or {}
    config = getattr(model, "config", None)
    root = _language_root(model)
    linears: list[LinearLayer] = []
    reasons: dict[str, str] = {}
    for name, module in model.named_modules():
        if not isinstance(module, (nn.Linear, Conv1D)):
            continue
        parameter_name = f"{routed.get(name, name)}.weight"
        if stored is not None and not _is_stored(parameter_name, prefix, stored):
            parameter_name = (renamed or {}).get(parameter_name, parameter_name)
        weight = module.weight
        role = left_by_role(name, int(weight.shape[1 if isinstance(module, Conv1D) else 0]), config)
        if name not in block_of:
            in_language = name.startswith(root) or name == "lm_head"
            place = "the transformer blocks" if in_language else "the language model"
            reasons[parameter_name] = f"outside {place}"
        elif shared.get(id(weight), 0) > 1:
            reasons[parameter_name] = "shared with another weight"
        elif role is not None:
            reasons[parameter_name] = role
        elif stored is not None and name not in routed and not _is_stored(parameter_name, prefix, stored):
            reasons[parameter_name] = "stored in another layout than the model computes with"
        else:
            rows, columns = weight.shape[::-1] if isinstance(module, Conv1D) else weight.shape
            stored_name = parameter_name.removesuffix(".weight")
            linears.append(
                LinearLayer(stored_name, module, block_of[name], int(rows), int(columns), name, name in routed)
            )
    quantized = {f"{linear.path}.weight" for linear in linears}
    embeddings = _embedding_names(model)
    unquantized = [
        UnquantizedWeight(
            name=name,
            reason=reasons.get(name) or ("embedding" if name in embeddings else "not a linear layer"),
            type=str(parameter.dtype).removeprefix("torch."),
        )
        for name, parameter in model.named_parameters()
        if parameter.ndim >= 2 and name not in quantized
    ]
    if not linears:
        raise UnsupportedModel(
            "The model has no linear layers in transformer blocks that could be quantized.",
            "Models whose linears are nn.Linear or Conv1D, or experts of three such matrices, are supported.",
        )
    return linears, unquantized


def repeated_blocks(model: nn.Module) -> list[nn.Module]:
    """The members of the outermost ModuleLists, in order."""
    return [block for _, block in named_blocks(model)]


def named_blocks(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The members of the outermost ModuleLists, in order, with their names."""
    outer: list[str] = []
    blocks: list[tuple[str, nn.Module]] = []
    root = _language_root(model)
    for name, module in model.named_modules():
        if not isinstance(module, nn.ModuleList) or not name.startswith(root):
            continue
        if any(name.startswith(f"{list_name}.") for list_name in outer):
            continue
        outer.append(name)
        blocks.extend((f"{name}.{index}", block) for index, block in enumerate(module))
    return blocks


def _language_root(model: nn.Module) -> str:
    """What the names of the language model's parts begin with: image and audio towers have blocks of their own."""
    decoder = getattr(model, "get_decoder", None)
    found = decoder() if callable(decoder) else None
    if found is None or found is model or not any(isinstance(part, nn.ModuleList) for part in found.modules()):
        return ""
    return next((f"{name}." for name, module in model.named_modules() if module is found and name), "")


def _blocks(model: nn.Module) -> dict[str, int]:
    """Block index of every module inside the outermost ModuleLists, numbered through the model."""
    return {
        inner: number
        for number, (name, block) in enumerate(named_blocks(model))
        for inner, _ in block.named_modules(prefix=name)
    }


def _is_stored(name: str, prefix: str, stored: set[str]) -> bool:
    if name in stored:
        return True
    return (name.removeprefix(prefix) if name.startswith(prefix) else prefix + name) in stored


def _embedding_names(model: nn.Module) -> set[str]:
    return {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.Embedding)}
