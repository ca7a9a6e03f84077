"""The slow, literal sketches: one token or one materialised ``G`` at a time, in float64. For the tests."""

from __future__ import annotations

import torch


def sketch_a(x: torch.Tensor, g: torch.Tensor, half_steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """``H_I [in, in]``, ``H_O [out, out]`` of tokens ``x [T, in]``, ``g [T, out]`` taken as independent."""
    x, g = x.double(), g.double()
    tokens = len(x)
    factor_input = sum((torch.outer(row, row) for row in x), torch.zeros(x.shape[1], x.shape[1]).double()) / tokens
    factor_output = torch.eye(g.shape[1]).double()
    for step in range(1, half_steps):
        if step % 2:
            total = torch.zeros_like(factor_output)
            for row, gradient in zip(x, g, strict=True):
                total += torch.outer(gradient, gradient) * (row @ factor_input @ row)
            factor_output = total / tokens / factor_input.square().sum()
        else:
            total = torch.zeros_like(factor_input)
            for row, gradient in zip(x, g, strict=True):
                total += torch.outer(row, row) * (gradient @ factor_output @ gradient)
            factor_input = total / tokens / factor_output.square().sum()
    return factor_input, factor_output


def sketch_b(x: torch.Tensor, g: torch.Tensor, rounds: int) -> tuple[torch.Tensor, torch.Tensor]:
    """``H_I``, ``H_O`` of sequences ``x [S, T, in]``, ``g [S, T, out]`` from ``G = Σ_t g_t x_tᵀ``, up to scale."""
    gradients = [
        sum(torch.outer(b, a) for a, b in zip(rows, grads, strict=True))
        for rows, grads in zip(x.double(), g.double(), strict=True)
    ]
    factor_input = torch.eye(x.shape[2]).double()
    factor_output = torch.eye(g.shape[2]).double()
    for _ in range(rounds):
        next_input = torch.zeros_like(factor_input)
        next_output = torch.zeros_like(factor_output)
        for gradient in gradients:
            assert isinstance(gradient, torch.Tensor)
            next_input += gradient.T @ factor_output @ gradient
            next_output += gradient @ factor_input @ gradient.T
        factor_input, factor_output = (
            next_input / len(gradients) / factor_output.square().sum(),
            next_output / len(gradients) / factor_input.square().sum(),
        )
    return factor_input, factor_output


def cosine_similarity(gradients: torch.Tensor, factor_input: torch.Tensor, factor_output: torch.Tensor) -> float:
    """Cosine of the sample Fisher of ``gradients [S, out, in]`` and ``H_O ⊗ H_I``, materialised ``[mn, mn]``."""
    flat = gradients.double().flatten(1)
    fisher = flat.T @ flat / len(flat)
    product = torch.kron(factor_output.double(), factor_input.double())
    return float((fisher * product).sum() / (fisher.norm() * product.norm()))
