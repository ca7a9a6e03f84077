"""Labels sampled from the model's own predictions, and the loss gradient they give."""

from __future__ import annotations

import torch

from yaqa_runner.calibration.self_sample import pick, sequence_seed


@torch.no_grad()
def sampled_label_gradient(
    logits: torch.Tensor, seed: int, first_sequence: int, sample: int, first_token: int = 0
) -> torch.Tensor:
    """``∂ℓ/∂logits`` ``[b, T, V]`` of the summed cross-entropy against labels drawn from ``softmax(logits)``.

    Each sequence draws from its own stream, so neither batch size nor order changes its labels; nor does taking its
    tokens in parts, of which the one at hand begins with ``first_token``.
    (arXiv 2505.22988, section 3: the Fisher, not the empirical Fisher, needs the model's own labels.)
    """
    gradient = torch.empty_like(logits)
    for row in range(logits.shape[0]):
        generator = torch.Generator().manual_seed(sequence_seed("labels", seed, first_sequence + row, sample))
        stop = first_token + logits.shape[1]
        uniform = torch.rand(stop, generator=generator)[first_token:].to(logits.device)
        values = logits[row].float()
        labels = pick(values, uniform)
        probabilities = values.softmax(dim=-1)
        probabilities[torch.arange(len(labels), device=labels.device), labels] -= 1.0
        gradient[row] = probabilities
    return gradient
