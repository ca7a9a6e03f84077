"""One linear's power iteration toward the nearest Kronecker product (arXiv 2505.22988, section 3)."""

from __future__ import annotations

import torch

from yaqa_runner.sketch.contraction import (
    input_moment,
    quadratic_forms,
    sequence_moments,
    sequence_moments_through,
    weighted_moment,
)


class IterationA:
    """Sketch A of one linear: tokens taken as independent.

    Step 0 is given by ``start`` (``H_I = E[x xᵀ]``); odd steps update ``H_O``, even ones ``H_I``. Each of them is
    ``begin``, any number of ``add`` with inputs ``[b, T, in]`` and gradients ``[b, T, out]``, then ``finish``.
    """

    def __init__(self, rows: int, columns: int, device: torch.device) -> None:
        self.factor_input = torch.eye(columns, device=device)
        self.factor_output = torch.eye(rows, device=device)
        self._total = torch.zeros(0)
        self._tokens = 0

    def start(self, second_moment: torch.Tensor) -> None:
        """Half step 0, from ``E[x xᵀ]`` ``[in, in]``, which is shared and not changed."""
        self.factor_input = second_moment

    def begin(self, step: int) -> None:
        """Start half step ``step`` ≥ 1."""
        self._output = step % 2 == 1
        self._total = torch.zeros_like(self.factor_output if self._output else self.factor_input)
        self._tokens = 0

    def add(self, x: torch.Tensor, g: torch.Tensor) -> None:
        """Add one batch to the current half step."""
        x = x.reshape(-1, x.shape[-1]).float()
        g = g.reshape(-1, g.shape[-1]).float()
        if self._output:
            self._total += weighted_moment(g, quadratic_forms(x, self.factor_input))
        else:
            self._total += weighted_moment(x, quadratic_forms(g, self.factor_output))
        self._tokens += len(x)

    def finish(self) -> None:
        """End the half step: ``H_O ← E[g gᵀ (xᵀ H_I x)] / ‖H_I‖²``, or the mirror image. No tokens: no change."""
        other = self.factor_input if self._output else self.factor_output
        norm = float(other.double().square().sum())
        if self._tokens == 0 or norm == 0:
            return
        mean = (self._total.double() / (self._tokens * norm)).float()
        if self._output:
            self.factor_output = mean
        else:
            self.factor_input = mean
        self._total = torch.zeros(0)

    def scaled_factors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """``H_I`` and ``H_O``; their product is the least-squares scale, a token's share of the Fisher."""
        return self.factor_input, self.factor_output


class IterationB:
    """Sketch B of one linear: whole sequences, from ``H_I = I``, ``H_O = I``.

    A round updates both factors from the previous round's; call ``begin``, ``add`` for every batch, ``finish``.
    """

    def __init__(self, rows: int, columns: int, device: torch.device) -> None:
        self.factor_input = torch.eye(columns, device=device)
        self.factor_output = torch.eye(rows, device=device)
        self._sequences = 0
        self._first = True
        self.mean_square = 0.0
        """``E‖G‖²`` a token, the trace of the Fisher."""

    def begin(self, step: int) -> None:
        """Start round ``step`` ≥ 0."""
        self._first = step == 0
        self._total_input = torch.zeros_like(self.factor_input)
        self._total_output = torch.zeros_like(self.factor_output)
        self._sequences = 0
        self._tokens = 0

    def add(self, x: torch.Tensor, g: torch.Tensor) -> None:
        """Add one batch, ``[b, T, in]`` and ``[b, T, out]``, to the current round."""
        x, g = x.float(), g.float()
        if self._first:
            moment_input, moment_output = sequence_moments(x, g)
        elif x.shape[1] == 1:
            # A token's G has rank one: no [out, in] matrix a token is needed.
            x, g = x[:, 0], g[:, 0]
            moment_input = weighted_moment(x, quadratic_forms(g, self.factor_output))
            moment_output = weighted_moment(g, quadratic_forms(x, self.factor_input))
            x, g = x[:, None], g[:, None]
        else:
            moment_input, moment_output = sequence_moments_through(x, g, self.factor_input, self.factor_output)
        self._total_input += moment_input
        self._total_output += moment_output
        self._sequences += x.shape[0]
        self._tokens += x.shape[0] * x.shape[1]

    def finish(self) -> None:
        """End the round: ``H_O ← E[G H_I Gᵀ] / ‖H_I‖²``, ``H_I ← E[Gᵀ H_O G] / ‖H_O‖²``. No tokens: no change."""
        norm_input = float(self.factor_input.double().square().sum())
        norm_output = float(self.factor_output.double().square().sum())
        if self._sequences == 0 or norm_input == 0 or norm_output == 0:
            return
        if self._first:
            self.mean_square = float(self._total_input.double().trace()) / self._tokens
        self.factor_input = (self._total_input.double() / (self._sequences * norm_output)).float()
        self.factor_output = (self._total_output.double() / (self._sequences * norm_input)).float()

    def scaled_factors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """``H_I`` and ``H_O``, scaled so that the product's trace is the Fisher's, a token."""
        traces = float(self.factor_input.double().trace()) * float(self.factor_output.double().trace())
        if traces <= 0 or self.mean_square <= 0:
            return self.factor_input, self.factor_output
        return self.factor_input, self.factor_output * (self.mean_square / traces)


def add_input_moment(total: torch.Tensor | None, x: torch.Tensor) -> torch.Tensor:
    """``total + Σ x xᵀ`` over the tokens of ``x`` ``[..., in]``; ``None`` starts at zero."""
    moment = input_moment(x.reshape(-1, x.shape[-1]).float())
    return moment if total is None else total.add_(moment)
