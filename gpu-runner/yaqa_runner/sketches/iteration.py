"""One linear's iteration toward its pair of factors: by single tokens (A), or by whole sequences (B).

B is the power iteration of arXiv 2505.22988, section 3, toward the nearest Kronecker product.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from yaqa_runner.machine.precision import Precision
from yaqa_runner.sketches.contraction import (
    add_sequence_moments,
    add_sequence_moments_through,
    add_weighted_moment,
    mirror,
    quadratic_forms,
)
from yaqa_runner.sketches.evidence import Concentration, TokenShares
from yaqa_runner.sketches.noise import gradient_shares, noise_kernel
from yaqa_runner.sketches.parallel import ALONE, Ranks

_ROWS = 1024


@dataclass(frozen=True)
class FactorPlace:
    """Where factors and their sums are kept, and what products round their operands to.

    ``pinned`` keeps them in host memory that a GPU copies from and to at full speed; products are made where the
    activations are.
    """

    device: torch.device
    precision: Precision = "float32"
    pinned: bool = False

    def zeros(self, size: int) -> torch.Tensor:
        """``[size, size]`` float32."""
        return torch.zeros(size, size, device=self.device, pin_memory=self.pinned)

    def identity(self, size: int) -> torch.Tensor:
        """``I`` ``[size, size]`` float32."""
        eye = self.zeros(size)
        eye.fill_diagonal_(1.0)
        return eye


class IterationA:
    """Sketch A of one linear: tokens taken as independent.

    Step 0 is given by ``start`` (``H_I = E[x xᵀ]``); odd steps update ``H_O``, even ones ``H_I``. Each of them is
    ``begin``, any number of ``add`` with inputs ``[b, T, in]`` and gradients ``[b, T, out]``, then ``finish``.
    A token's weight is its whitened norm under the other factor over its gradient's length (see ``sketch.noise``).
    """

    def __init__(self, rows: int, columns: int, place: FactorPlace) -> None:
        self._place = place
        self.factor_input = place.identity(columns)
        self.factor_output = place.identity(rows)
        self._total = torch.zeros(0)
        self._tokens = 0.0
        self._length = 0.0
        self.concentration_input: Concentration | None = None
        self.concentration_output: Concentration | None = None

    def start(self, second_moment: torch.Tensor) -> None:
        """Half step 0, from ``E[x xᵀ]`` ``[in, in]``, which is shared and not changed."""
        self.factor_input = second_moment

    def begin(self, step: int) -> None:
        """Start half step ``step`` ≥ 1."""
        self._output = step % 2 == 1
        self._total = self._place.zeros(len(self.factor_output if self._output else self.factor_input))
        self._tokens = 0.0
        self._length = 0.0
        self._inputs: torch.Tensor | None = None
        self._per_token = torch.zeros(0)
        self._shares = TokenShares()
        self._kernel = noise_kernel(self.factor_input if self._output else self.factor_output)

    def add(self, x: torch.Tensor, g: torch.Tensor) -> None:
        """Add one batch to the current half step."""
        x = x.reshape(-1, x.shape[-1])  # [tokens, in]
        g = g.reshape(-1, g.shape[-1])  # [tokens, out]
        if self._output:
            weights = self._forms_of_inputs(x) * gradient_shares(g)  # [tokens]
            self._shares.add(weights * g.float().square().sum(dim=1))
            self._add_moment(g, weights)
        else:
            weights = self._forms(g) * gradient_shares(g)
            self._shares.add(weights * x.float().square().sum(dim=1))
            self._wait_with(x, weights)
        self._tokens += len(x)
        self._length += float(g.float().norm(dim=1).double().sum())

    def _forms(self, seen: torch.Tensor) -> torch.Tensor:
        return quadratic_forms(seen, self._kernel.matrix.to(seen.device), self._place.precision)

    def _add_moment(self, weighed: torch.Tensor, weights: torch.Tensor) -> None:
        with _gathering(self._total, weighed.device) as total:
            add_weighted_moment(total, weighed, weights, self._place.precision)

    def _forms_of_inputs(self, x: torch.Tensor) -> torch.Tensor:
        """``|L_I⁻¹ x|²`` of every token, found once for all label samples, which share their inputs."""
        if not _is_same(self._inputs, x):
            self._inputs, self._per_token = x, self._forms(x)
        return self._per_token

    def _wait_with(self, x: torch.Tensor, weights: torch.Tensor) -> None:
        """Sum up ``weights`` over the label samples of ``x``, whose products are then made once."""
        if _is_same(self._inputs, x):
            self._per_token = self._per_token + weights
            return
        self._add_waiting()
        self._inputs, self._per_token = x, weights

    def _add_waiting(self) -> None:
        if self._inputs is not None and not self._output:
            self._add_moment(self._inputs, self._per_token)
        self._inputs, self._per_token = None, torch.zeros(0)

    def sums(self) -> dict[str, torch.Tensor]:
        """What ``add`` gathered in this half step so far."""
        self._add_waiting()
        counts = torch.tensor([self._tokens, self._length], dtype=torch.float64)
        shares = self._shares
        return {"total": self._total, "counts": counts, "heaviest": shares.heaviest, "shares": shares.sums}

    def resume(self, sums: dict[str, torch.Tensor]) -> None:
        """Go on, after ``begin``, from what ``sums`` gave."""
        self._total.copy_(sums["total"])
        self._tokens, self._length = (float(value) for value in sums["counts"])
        self._shares.heaviest, self._shares.sums = sums["heaviest"].cpu(), sums["shares"].cpu()

    def finish(self, ranks: Ranks = ALONE) -> None:
        """End the half step: ``H_O ← E|g| E[g gᵀ |L_I⁻¹ x|² / |g|] / tr D_I``, or the mirror image.

        Without tokens nothing changes; without gradients the factor is zero, which rounding tells of.
        """
        self._add_waiting()
        total, tokens = mirror(ranks.add_up(self._total)), ranks.add_up_number(self._tokens)
        length, pivots = ranks.add_up_number(self._length), self._kernel.pivots
        concentration = self._shares.finish(ranks)
        self._total = torch.zeros(0)
        del self._kernel, self._shares
        if tokens == 0 or pivots == 0:
            return
        mean = _scaled_in_place(total, length / tokens / tokens / pivots)
        if self._output:
            self.factor_output, self.concentration_output = mean, concentration
        else:
            self.factor_input, self.concentration_input = mean, concentration

    def scaled_factors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """``H_I`` and ``H_O``, scaled so that rounding noise costs under their product what it costs a token."""
        return self.factor_input, self.factor_output


class IterationB:
    """Sketch B of one linear: whole sequences, from ``H_I = I``, ``H_O = I``.

    A round updates both factors from the previous round's; call ``begin``, ``add`` for every batch, ``finish``.
    """

    def __init__(self, rows: int, columns: int, place: FactorPlace) -> None:
        self._place = place
        self.factor_input = place.identity(columns)
        self.factor_output = place.identity(rows)
        self._sequences = 0.0
        self._tokens = 0.0
        self._first = True
        self.concentration_input: Concentration | None = None
        self.concentration_output: Concentration | None = None
        self.mean_square = 0.0
        """``E‖G‖²`` a token, the trace of the Fisher."""

    def begin(self, step: int) -> None:
        """Start round ``step`` ≥ 0."""
        self._first = step == 0
        self._total_input = self._place.zeros(len(self.factor_input))
        self._total_output = self._place.zeros(len(self.factor_output))
        self._sequences = 0.0
        self._tokens = 0.0

    def add(self, x: torch.Tensor, g: torch.Tensor) -> None:
        """Add one batch, ``[b, T, in]`` and ``[b, T, out]``, to the current round."""
        precision = self._place.precision
        with (
            _gathering(self._total_input, x.device) as total_input,
            _gathering(self._total_output, x.device) as total_output,
        ):
            if self._first:
                add_sequence_moments(total_input, total_output, x, g, None, precision)
                return self._count(x)
            factor_input, factor_output = self.factor_input.to(x.device), self.factor_output.to(x.device)
            if x.shape[1] == 1:
                # A token's G has rank one: no [out, in] matrix a token is needed.
                rows_x, rows_g = x[:, 0], g[:, 0]  # [tokens, in], [tokens, out]
                add_weighted_moment(total_input, rows_x, quadratic_forms(rows_g, factor_output, precision), precision)
                add_weighted_moment(total_output, rows_g, quadratic_forms(rows_x, factor_input, precision), precision)
            else:
                add_sequence_moments_through(total_input, total_output, x, g, factor_input, factor_output, precision)
        self._count(x)

    def _count(self, x: torch.Tensor) -> None:
        self._sequences += x.shape[0]
        self._tokens += x.shape[0] * x.shape[1]

    def sums(self) -> dict[str, torch.Tensor]:
        """What ``add`` gathered in this round so far."""
        return {
            "total_input": self._total_input,
            "total_output": self._total_output,
            "counts": torch.tensor([self._sequences, self._tokens], dtype=torch.float64),
        }

    def resume(self, sums: dict[str, torch.Tensor]) -> None:
        """Go on, after ``begin``, from what ``sums`` gave."""
        self._total_input.copy_(sums["total_input"])
        self._total_output.copy_(sums["total_output"])
        self._sequences, self._tokens = (float(value) for value in sums["counts"])

    def finish(self, ranks: Ranks = ALONE) -> None:
        """End the round: ``H_O ← E[G H_I Gᵀ] / ‖H_I‖²``, ``H_I ← E[Gᵀ H_O G] / ‖H_O‖²``. No tokens: no change."""
        total_input, total_output = (mirror(ranks.add_up(sums)) for sums in (self._total_input, self._total_output))
        sequences, tokens = ranks.add_up_number(self._sequences), ranks.add_up_number(self._tokens)
        norm_input = float(self.factor_input.double().square().sum())
        norm_output = float(self.factor_output.double().square().sum())
        if sequences == 0 or norm_input == 0 or norm_output == 0:
            return
        if self._first:
            self.mean_square = float(total_input.double().trace()) / tokens
        self.factor_input = _scaled_in_place(total_input, 1 / (sequences * norm_output))
        self.factor_output = _scaled_in_place(total_output, 1 / (sequences * norm_input))

    def scaled_factors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """``H_I`` and ``H_O``, scaled so that the product's trace is the Fisher's, a token."""
        traces = float(self.factor_input.double().trace()) * float(self.factor_output.double().trace())
        if traces <= 0 or self.mean_square <= 0:
            return self.factor_input, self.factor_output
        return self.factor_input, self.factor_output * (self.mean_square / traces)


def _is_same(held: torch.Tensor | None, values: torch.Tensor) -> bool:
    """Whether ``values`` are the very memory that is ``held``, and so cannot have come to an address used twice."""
    return (
        held is not None
        and held.data_ptr() == values.data_ptr()
        and (held.shape, held.stride(), held.dtype) == (values.shape, values.stride(), values.dtype)
    )


def _scaled_in_place(total: torch.Tensor, scale: float) -> torch.Tensor:
    """``total`` ``[n, n]`` times ``scale``, rounded once: a square of a wide linear is gigabytes in float64."""
    for rows in torch.split(total, _ROWS):
        rows.copy_(rows.double().mul_(scale))
    return total


def add_input_moment(total: torch.Tensor | None, x: torch.Tensor, place: FactorPlace) -> torch.Tensor:
    """``total + Σ x xᵀ`` on and above the diagonal, over the tokens of ``x`` ``[..., in]``; ``None`` starts at zero."""
    if total is None:
        total = place.zeros(x.shape[-1])
    with _gathering(total, x.device) as gathered:
        add_weighted_moment(gathered, x.reshape(-1, x.shape[-1]), None, place.precision)
    return total


@contextmanager
def _gathering(total: torch.Tensor, device: torch.device) -> Iterator[torch.Tensor]:
    """``total`` where products on ``device`` can be added to it: itself, or zeros that are added to it at the end."""
    if total.device.type == device.type:
        yield total
        return
    scratch = torch.zeros(total.shape, device=device)
    yield scratch
    total += scratch.to(total.device)
