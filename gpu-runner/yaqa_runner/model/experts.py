"""Mixtures of experts: fused expert tensors taken apart into linears that can be sketched and rounded.

transformers computes with ``gate_up_proj [experts, 2 inner, hidden]`` and ``down_proj [experts, hidden, inner]``;
checkpoints, and the runtimes that load quantized ones, keep three matrices an expert. Taken apart, an expert's linears
share memory with the fused tensors and bear the checkpoint's names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn

from yaqa_runner.model.stored_names import Renaming

PROJECTIONS = ("gate_proj", "up_proj", "down_proj")
"""What an expert's matrices are called where the checkpoint keeps them fused."""
_EXPERT = re.compile(r"(.+)\.0\.(\w+)\.weight$")
_PROBE_TOKENS = 16


class SeparateExperts(nn.Module):
    """Experts as modules of three linears, computing what the fused module computes."""

    def __init__(self, fused: nn.Module, names: tuple[str, str, str], stored_prefix: str) -> None:
        """``stored_prefix`` is what the checkpoint calls the list of experts."""
        super().__init__()
        gate_up, down = fused.gate_up_proj, fused.down_proj
        assert isinstance(gate_up, torch.Tensor) and isinstance(down, torch.Tensor)
        inner = down.shape[2]
        self.count = int(gate_up.shape[0])
        self.names = names
        self.stored_prefix = stored_prefix
        activation = fused.act_fn
        assert callable(activation)
        # A module or a function, as the architecture has it.
        self.activation: Callable[[torch.Tensor], torch.Tensor] = activation
        for number in range(self.count):
            expert = nn.Module()
            views = (gate_up[number, :inner], gate_up[number, inner:], down[number])
            for name, view in zip(names, views, strict=True):
                expert.add_module(name, _linear_of(view.detach()))
            self.add_module(str(number), expert)

    def take(self, fused: nn.Module) -> None:
        """Share memory with ``fused``, whose weights were loaded anew, instead of what was there before."""
        gate_up, down = fused.gate_up_proj, fused.down_proj
        assert isinstance(gate_up, torch.Tensor) and isinstance(down, torch.Tensor)
        inner = down.shape[2]
        for number in range(self.count):
            views = (gate_up[number, :inner], gate_up[number, inner:], down[number])
            for name, view in zip(self.names, views, strict=True):
                linear = self.get_submodule(f"{number}.{name}")
                linear.weight = nn.Parameter(view.detach(), requires_grad=False)

    def forward(
        self, hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
    ) -> torch.Tensor:
        """``Σ_k weight_k expert_k(x)`` for ``[tokens, hidden]``; indices and weights ``[tokens, k]``."""
        result = torch.zeros_like(hidden_states)
        for number in range(self.count):
            expert = self.get_submodule(str(number))
            token, place = torch.where(top_k_index == number)
            if len(token) == 0:
                continue
            gate, up, down = (getattr(expert, name) for name in self.names)
            states = hidden_states[token]
            states = down(self.activation(gate(states)) * up(states))
            states = states * top_k_weights[token, place, None]
            result = result.index_add(0, token, states.to(result.dtype))
        return result


def _linear_of(weight: torch.Tensor) -> nn.Linear:
    with torch.device("meta"):
        linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    linear.weight = nn.Parameter(weight, requires_grad=False)
    return linear


def separate_experts(
    model: nn.Module, weight_files: tuple[Path, ...], stored: set[str], within: str = ""
) -> dict[str, str]:
    """Replace fused experts of ``model`` (``within`` one of its modules) where the checkpoint keeps them apart.

    Returns the checkpoint's name of every linear whose module is called otherwise, by module name. A fused module
    whose parts do not compute the same stays and is left in 16 bits. Parts of tensors that the checkpoint keeps fused
    in the model's own layout bear the names that they would have apart.
    """
    names: dict[str, str] = {}
    fused = fused_experts(model, within)
    sources = Renaming(model).sources(stored) if fused else {}
    for path, module in fused:
        found = _stored_form(path, module, weight_files, stored, sources)
        if found is None:
            continue
        prefix, projections = found
        parts = SeparateExperts(module, projections, prefix)
        if not _computes_the_same(module, parts):
            continue
        parent, _, attribute = path.rpartition(".")
        setattr(model.get_submodule(parent), attribute, parts)
        for number in range(parts.count):
            for projection in projections:
                names[f"{path}.{number}.{projection}"] = f"{prefix}.{number}.{projection}"
    return names


def fused_experts(model: nn.Module, within: str = "") -> list[tuple[str, nn.Module]]:
    """Fused experts of ``model`` whose names begin with ``within``, and their names."""
    path = within.removesuffix(".")
    named = model.get_submodule(path).named_modules(prefix=path)
    return [(name, module) for name, module in named if _is_fused(module)]


def _is_fused(module: nn.Module) -> bool:
    gate_up, down = getattr(module, "gate_up_proj", None), getattr(module, "down_proj", None)
    return (
        isinstance(gate_up, nn.Parameter)
        and isinstance(down, nn.Parameter)
        and gate_up.ndim == down.ndim == 3
        and callable(getattr(module, "act_fn", None))
        # Experts with biases, or stored input by output, keep another layout than three plain matrices.
        and all(parameter.ndim == 3 for parameter in module.parameters())
        and gate_up.shape == (down.shape[0], 2 * down.shape[2], down.shape[1])
    )


def _stored_form(
    path: str,
    module: nn.Module,
    weight_files: tuple[Path, ...],
    stored: set[str],
    sources: Mapping[str, Mapping[str, list[str]]],
) -> tuple[str, tuple[str, str, str]] | None:
    """Prefix and projection names in the checkpoint, held to the values of the first expert.

    ``sources``: which tensors of the checkpoint transformers puts the module's parameters together from.
    """
    parts = [
        found
        for parameter in ("gate_up_proj", "down_proj")
        for names in sources.get(f"{path}.{parameter}", {}).values()
        if (found := next(filter(None, map(_EXPERT.match, names)), None)) is not None
    ]
    prefixes = {found.group(1) for found in parts}
    if len(parts) == 3 and len(prefixes) == 1:
        gate_up, down = module.gate_up_proj, module.down_proj
        assert isinstance(gate_up, torch.Tensor) and isinstance(down, torch.Tensor)
        inner = down.shape[2]
        wanted = (gate_up[0, :inner], gate_up[0, inner:], down[0])
        if all(_equal(_read(weight_files, found.group(0)), value) for found, value in zip(parts, wanted, strict=True)):
            gate, up, last = (found.group(2) for found in parts)
            return prefixes.pop(), (gate, up, last)
    if _keeps_fused(path, module, weight_files, stored):
        return path, PROJECTIONS
    return None


def _keeps_fused(path: str, module: nn.Module, weight_files: tuple[Path, ...], stored: set[str]) -> bool:
    """Whether the checkpoint has the module's own tensors, value for value."""
    for name in ("gate_up_proj", "down_proj"):
        value = getattr(module, name)
        if f"{path}.{name}" not in stored or not _equal(_read(weight_files, f"{path}.{name}"), value):
            return False
    return True


def _equal(stored: torch.Tensor | None, value: torch.Tensor) -> bool:
    return stored is not None and torch.equal(stored.to(value.dtype), value.detach().cpu())


def _read(weight_files: tuple[Path, ...], name: str) -> torch.Tensor | None:
    for path in weight_files:
        with safe_open(path, framework="pt", device="cpu") as handle:
            if name in handle.keys():  # noqa: SIM118
                tensor: torch.Tensor = handle.get_tensor(name)
                return tensor
    return None


def _computes_the_same(fused: nn.Module, parts: SeparateExperts) -> bool:
    weight = fused.gate_up_proj
    assert isinstance(weight, torch.Tensor)
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(_PROBE_TOKENS, weight.shape[2], generator=generator).to(weight)
    experts = parts.count
    chosen = torch.stack([torch.arange(_PROBE_TOKENS) % experts, torch.arange(1, _PROBE_TOKENS + 1) % experts], dim=1)
    shares = torch.rand(_PROBE_TOKENS, 2, generator=generator).to(weight)
    with torch.no_grad():
        wanted = fused(states, chosen.to(weight.device), shares)
        got = parts(states, chosen.to(weight.device), shares)
    tolerance = 1e-4 if weight.dtype == torch.float32 else 2e-2
    return bool((wanted - got).abs().max() <= tolerance * wanted.abs().max().clamp_min(1e-30))
