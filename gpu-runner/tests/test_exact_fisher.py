"""Factors of hybrids and mixtures against the exact Fisher of tiny instances: every label, weighed by its probability.

The exact side takes a gradient for every position and label and knows nothing of the runner's hooks: gradients of
weights where a linear sees sequences, of a linear's outputs where it sees only the tokens that a router sends it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from taken_sketches import Whole, take
from tiny_architectures import save_tiny_model

from yaqa_runner.calibration.tokens import TokenSet
from yaqa_runner.model.linears import LinearLayer
from yaqa_runner.model.load import SourceModel, load_source_model
from yaqa_runner.model.snapshot import inspect_snapshot
from yaqa_runner.sketches.settings import SketchSettings

VOCABULARY, LENGTH, SEQUENCES = 16, 6, 2
# Labels are drawn, SEQUENCES · LENGTH of them as often as this; an expert sees a share of the tokens alone.
REPEATS, REPEATS_OF_ROUTED = 256, 1024
# By so large a share of their norm factors differ at most.
TOLERANCE = 0.2
Moments = dict[str, tuple[torch.Tensor, torch.Tensor]]
KINDS: dict[str, dict[str, Any]] = {
    "qwen3_next": {"layer_types": ["linear_attention", "full_attention"]},
    "qwen3_5_text": {"layer_types": ["linear_attention", "full_attention"]},
    "bamba": {"attn_layer_indices": [1]},
    "falcon_h1": {},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "qwen3_moe": {},
}


def exact_moments(source: SourceModel, tokens: torch.Tensor) -> Moments:
    """``E[GᵀG]`` and ``E[GGᵀ]`` of every linear, over all labels of all positions of ``tokens`` ``[S, T]``."""
    totals = {
        layer.name: (torch.zeros(layer.columns, layer.columns), torch.zeros(layer.rows, layer.rows))
        for layer in source.linears
    }
    seen: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def hook_for(layer: LinearLayer) -> Any:
        return lambda module, inputs, output: seen.__setitem__(layer.name, (inputs[0].detach(), output))

    handles = [layer.module.register_forward_hook(hook_for(layer)) for layer in source.linears if layer.routed]
    source.model.requires_grad_(True)
    try:
        for sequence in tokens:
            seen.clear()
            found = source.model(input_ids=sequence[None], use_cache=False).logits[0].log_softmax(-1)
            layers = [layer for layer in source.linears if not layer.routed or layer.name in seen]
            wanted = [seen[layer.name][1] if layer.routed else layer.module.weight for layer in layers]
            for place in range(len(sequence)):
                for label in range(VOCABULARY):
                    gradients = torch.autograd.grad(found[place, label], wanted, retain_graph=True, allow_unused=True)
                    share = float(found[place, label].detach().exp())
                    for layer, gradient in zip(layers, gradients, strict=True):
                        if gradient is not None:
                            _add(totals[layer.name], layer, gradient, share, seen)
    finally:
        source.model.requires_grad_(False)
        for handle in handles:
            handle.remove()
    return totals


def _add(
    total: tuple[torch.Tensor, torch.Tensor],
    layer: LinearLayer,
    gradient: torch.Tensor,
    share: float,
    seen: dict[str, tuple[torch.Tensor, torch.Tensor]],
) -> None:
    if layer.routed:
        x, g = seen[layer.name][0].flatten(0, -2), gradient.flatten(0, -2)
        total[0].add_(x.T @ (x * g.square().sum(-1, keepdim=True)), alpha=share)
        total[1].add_(g.T @ (g * x.square().sum(-1, keepdim=True)), alpha=share)
    else:
        total[0].addmm_(gradient.T, gradient, alpha=share)
        total[1].addmm_(gradient, gradient.T, alpha=share)


def difference(found: torch.Tensor, exact: torch.Tensor) -> float:
    """Of two factors of trace 1, in Frobenius norm, as a share of the exact one's."""
    found, exact = found.double() / found.double().trace(), exact.double() / exact.double().trace()
    return float((found - exact).norm() / exact.norm())


@pytest.mark.parametrize("kind", KINDS)
def test_factors_of_hybrids_and_mixtures_are_those_of_the_exact_fisher(kind: str, tmp_path: Path) -> None:
    directory = save_tiny_model(
        kind,
        tmp_path / "tiny",
        torch.float32,
        tokenizer=False,
        vocab_size=VOCABULARY,
        num_hidden_layers=2,
        **KINDS[kind],
    )
    source = load_source_model(inspect_snapshot(directory), torch.device("cpu"))
    tokens = torch.randint(2, VOCABULARY, (SEQUENCES, LENGTH), generator=torch.Generator().manual_seed(1))
    exact = exact_moments(source, tokens)
    repeats = REPEATS_OF_ROUTED if any(layer.routed for layer in source.linears) else REPEATS
    many = TokenSet(tokens.repeat(repeats, 1))
    sketch = take(source, many, SketchSettings("b", 1, 3), tmp_path / "sketch")
    compared = 0
    for layer in source.linears:
        if not bool(exact[layer.name][0].any()):
            continue
        factors = Whole.of(sketch, layer.name)
        for found, wanted in zip((factors.input, factors.output), exact[layer.name], strict=True):
            assert difference(found, wanted) < TOLERANCE, layer.name
            # What knows nothing of the model is far off.
            assert difference(torch.eye(len(wanted)), wanted) > 2 * TOLERANCE, layer.name
            compared += 1
    assert compared >= 20
    if kind == "qwen3_moe":
        assert any(layer.routed and bool(exact[layer.name][0].any()) for layer in source.linears)
