"""The slow, literal sketches: one token or one materialised ``G`` at a time, in float64. For the tests."""

from __future__ import annotations

import torch


def sketch_a(x: torch.Tensor, g: torch.Tensor, half_steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """``H_I [in, in]``, ``H_O [out, out]`` of tokens ``x [T, in]``, ``g [T, out]`` taken as independent."""
    x, g = x.double(), g.double()
    tokens = len(x)
    factor_input = sum((torch.outer(row, row) for row in x), torch.zeros(x.shape[1], x.shape[1]).double()) / tokens
    factor_output = torch.eye(g.shape[1]).double()
    mean_length = g.norm(dim=1).mean()
    for step in range(1, half_steps):
        lower, pivots = damped_ldl(factor_input if step % 2 else factor_output)
        total = torch.zeros_like(factor_output if step % 2 else factor_input)
        for row, gradient in zip(x, g, strict=True):
            length = gradient.norm()
            if length == 0:
                continue
            seen, weighed = (row, gradient) if step % 2 else (gradient, row)
            noise = torch.linalg.inv(lower) @ seen
            total += torch.outer(weighed, weighed) * (noise @ noise) / length
        mean = total * mean_length / tokens / pivots.sum()
        if step % 2:
            factor_output = mean
        else:
            factor_input = mean
    return factor_input, factor_output


def damped_ldl(factor: torch.Tensor, damping: float = 0.1) -> tuple[torch.Tensor, torch.Tensor]:
    """``L [n, n]`` and ``D [n]`` of ``factor`` with a share of its mean diagonal added to its diagonal."""
    size = factor.shape[0]
    damped = factor.double() + damping * factor.double().diagonal().mean() * torch.eye(size).double()
    lower = torch.linalg.cholesky(damped)
    return lower / lower.diagonal(), lower.diagonal().square()


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
