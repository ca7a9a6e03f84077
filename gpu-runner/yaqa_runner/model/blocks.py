"""A causal model run block by block: its own forward pass, with stand-ins where its blocks are.

What a block is called with besides hidden states (masks, rotary tables) is the model's own business: its forward pass
is run with stand-ins that hand the hidden states on and note how they were called. What follows the last block is run
by the same forward pass again, with the last stand-in handing out the hidden states that were really computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from yaqa_runner.model.block_weights import BlockWeights
from yaqa_runner.model.linears import repeated_blocks

# What blocks may hand back: the hidden states alone, or first in a tuple.
_FORMS: tuple[Callable[[torch.Tensor], Any], ...] = (
    lambda hidden: hidden,
    lambda hidden: (hidden,),
    lambda hidden: (hidden, None),
    lambda hidden: (hidden, None, None),
)
_PROBE_TOKENS = 16
# Logits of a slice of tokens [b, t, V], float32; as much again several times over while labels are drawn.
HEAD_BYTES = 64 * 1024 * 1024
_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}
_COARSE_TOLERANCE = 5e-2


class BlocksEntangled(Exception):
    """The model's blocks exchange more than hidden states, so that it can only be run whole. The text says why."""


@dataclass(frozen=True)
class BlockCall:
    """How the model calls one of its blocks; the hidden states have no value in here."""

    values: tuple[Any, ...]
    named: dict[str, Any]

    def run(self, block: nn.Module, hidden: torch.Tensor) -> torch.Tensor:
        """The block's output hidden states for ``hidden``, both ``[b, T, …]``.

        Raises:
            BlocksEntangled: it hands more than hidden states to the blocks after it.
        """
        if self.values:
            output = block(hidden, *self.values[1:], **self.named)
        else:
            output = block(**{**self.named, "hidden_states": hidden})
        states = output[0] if isinstance(output, tuple) else output
        if not isinstance(states, torch.Tensor) or states.shape != hidden.shape:
            raise BlocksEntangled(f"{type(block).__name__} hands on no hidden states of the shape that it takes")
        if isinstance(output, tuple) and any(isinstance(other, torch.Tensor) for other in output[1:]):
            raise BlocksEntangled(f"{type(block).__name__} hands on more than hidden states")
        return states


@dataclass(frozen=True)
class Entry:
    """What a batch brings to the blocks: hidden states ``[b, T, …]`` at the first one, and every block's call."""

    hidden: torch.Tensor
    calls: tuple[BlockCall, ...]


class _Reached(Exception):
    """The last stand-in was called, and nothing after it is wanted."""


class BlockwiseModel:
    """A causal model whose blocks are run one at a time."""

    def __init__(self, model: nn.Module, weights: BlockWeights, vocabulary: int, device: torch.device) -> None:
        """Find out how the model calls its blocks; takes no weights but those outside of them.

        Raises:
            BlocksEntangled: they cannot be run one at a time.
        """
        self.model = model
        self.weights = weights
        self.blocks = repeated_blocks(model)
        self.device = device
        self._vocabulary = vocabulary
        if not self.blocks:
            raise BlocksEntangled("the model has no repeated blocks")
        probe = torch.arange(_PROBE_TOKENS, device=device)[None] % vocabulary
        self._form = self._found_form(probe)
        self._calls: dict[tuple[int, ...], tuple[BlockCall, ...]] | None = {}
        other = self.enter(probe.flip(1))
        if not _equal_calls(self.enter(probe).calls, other.calls):
            # Each batch's calls are its own: kept with none of them, they are found again when they are needed.
            self._calls = None
        self._sliceable = self._head_is_token_wise(probe, other.hidden)

    def __len__(self) -> int:
        return len(self.blocks)

    def enter(self, tokens: torch.Tensor) -> Entry:
        """Embeddings of ``tokens`` ``[b, T]``, and how the blocks are called for them.

        Raises:
            BlocksEntangled: blocks are called with more than hidden states of the ones before them.
        """
        tokens = tokens.to(self.device)
        hidden: list[torch.Tensor] = []
        calls: list[BlockCall] = []

        def note(number: int, values: tuple[Any, ...], named: dict[str, Any], expected: torch.Tensor | None) -> None:
            states = values[0] if values else named.get("hidden_states")
            if number != len(calls):
                raise BlocksEntangled("the blocks are not called once each, in order")
            if not isinstance(states, torch.Tensor) or states.ndim < 3 or len(states) != len(tokens):
                raise BlocksEntangled(f"block {number} is not called with hidden states [batch, tokens, features]")
            if expected is not None and states is not expected:
                raise BlocksEntangled(f"hidden states are changed before block {number}")
            rest = values[1:] if values else ()
            others = {name: value for name, value in named.items() if values or name != "hidden_states"}
            for value in (*rest, *others.values()):
                _refuse_exchanged(value, number)
            calls.append(BlockCall((None, *rest) if values else (), others))
            if number == 0:
                hidden.append(states.detach())

        with torch.enable_grad(), self._stand_ins(note, None), suppress(_Reached):
            self.model(input_ids=tokens, use_cache=False)
        if len(calls) != len(self.blocks):
            raise BlocksEntangled(f"{len(calls)} of the model's {len(self.blocks)} blocks are called")
        return Entry(hidden[0], tuple(calls))

    def calls_for(self, tokens: torch.Tensor) -> tuple[BlockCall, ...]:
        """How the blocks are called for ``tokens`` ``[b, T]``; the same for all of one shape, where that is so."""
        if self._calls is None:
            return self.enter(tokens).calls
        shape = tuple(tokens.shape)
        if shape not in self._calls:
            self._calls[shape] = self.enter(tokens).calls
        return self._calls[shape]

    def run(self, number: int, tokens: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """Block ``number`` on the ``hidden`` states ``[b, T, …]`` of ``tokens``; its weights must be there."""
        return self.run_as(self.blocks[number], number, tokens, hidden)

    def run_as(self, module: nn.Module, number: int, tokens: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """``module`` in the place of block ``number``, called as the model calls that."""
        return self.calls_for(tokens)[number].run(module, hidden)

    def slices(self, tokens: torch.Tensor) -> list[slice]:
        """Parts of the tokens ``[b, T]`` whose logits may be there at once."""
        length = tokens.shape[1]
        step = length if not self._sliceable else max(1, HEAD_BYTES // (4 * self._vocabulary * len(tokens)))
        return [slice(start, min(start + step, length)) for start in range(0, length, step)]

    def head(self, tokens: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """Logits ``[b, t, V]`` of the last block's output ``hidden`` at ``tokens`` ``[b, t]``, one of the slices."""

        def ignore(number: int, values: tuple[Any, ...], named: dict[str, Any], expected: torch.Tensor | None) -> None:
            pass

        with self._stand_ins(ignore, hidden):
            logits: torch.Tensor = self.model(input_ids=tokens.to(self.device), use_cache=False).logits
        return logits

    @contextmanager
    def _stand_ins(
        self,
        note: Callable[[int, tuple[Any, ...], dict[str, Any], torch.Tensor | None], None],
        last: torch.Tensor | None,
    ) -> Iterator[None]:
        """Every block tells ``note`` of its call; the last hands ``last`` on, or ends the forward pass without."""
        handed: list[torch.Tensor] = []

        def stand_in_for(number: int) -> Callable[..., Any]:
            def stand_in(*values: Any, **named: Any) -> Any:
                note(number, values, named, handed[-1] if handed else None)
                if number + 1 == len(self.blocks):
                    if last is None:
                        raise _Reached
                    return self._form(last)
                states = values[0] if values else named["hidden_states"]
                # A leaf of its own: whatever is made of it wants a gradient, which tells it from what is not.
                handed.append(states.detach().requires_grad_(torch.is_grad_enabled()))
                return self._form(handed[-1])

            return stand_in

        try:
            for number, block in enumerate(self.blocks):
                block.forward = stand_in_for(number)
            yield
        finally:
            for block in self.blocks:
                # The instance's own attribute hides the class's method only while it is there.
                if "forward" in block.__dict__:
                    del block.forward

    def _found_form(self, probe: torch.Tensor) -> Callable[[torch.Tensor], Any]:
        """How this model's blocks hand their hidden states on."""
        reason: BlocksEntangled | None = None
        for form in _FORMS:
            self._form = form
            try:
                hidden = self.enter(probe).hidden
                with torch.no_grad():
                    logits = self.head(probe, hidden)
                if logits.shape[:2] != probe.shape:
                    raise BlocksEntangled("the model gives no logits a token")
                return form
            except BlocksEntangled as entangled:
                reason = reason or entangled
            except (AttributeError, TypeError, ValueError, IndexError, RuntimeError) as error:
                # Another form's tuple where this model wants a tensor, or the other way round.
                reason = reason or BlocksEntangled(f"the forward pass fails on stand-ins: {error}")
        assert reason is not None
        raise reason

    @torch.no_grad()
    def _head_is_token_wise(self, probe: torch.Tensor, hidden: torch.Tensor) -> bool:
        whole = self.head(probe, hidden)
        half = probe.shape[1] // 2
        parts = [self.head(probe[:, part], hidden[:, part]) for part in (slice(half), slice(half, None))]
        return _close(torch.cat(parts, dim=1), whole)


def check_against_whole(blockwise: BlockwiseModel, tokens: torch.Tensor) -> None:
    """Hold logits and the gradient at the first block, computed block by block, to the whole model's on ``tokens``.

    Two sequences ``[2, T]`` pass each block one after the other, so that what a block keeps to itself shows.

    Raises:
        BlocksEntangled: they differ, by whatever way the blocks exchange more than hidden states.
    """
    if not blockwise.weights.whole:
        return
    tokens = tokens[:2, :_PROBE_TOKENS].to(blockwise.device)
    leaves: list[torch.Tensor] = []

    def wanting(module: nn.Module, values: tuple[Any, ...], named: dict[str, Any]) -> Any:
        states = values[0] if values else named["hidden_states"]
        leaves.append(states.detach().requires_grad_(True))
        return ((leaves[0], *values[1:]), named) if values else (values, {**named, "hidden_states": leaves[0]})

    handle = blockwise.blocks[0].register_forward_pre_hook(wanting, with_kwargs=True)
    try:
        with torch.enable_grad():
            expected = blockwise.model(input_ids=tokens, use_cache=False).logits
            direction = torch.randn(expected.shape, generator=torch.Generator().manual_seed(0)).to(expected)
            (gradient,) = torch.autograd.grad(expected, leaves[0], direction)
    finally:
        handle.remove()
    logits, gradients = _by_blocks(blockwise, tokens, direction)
    if not _close(logits, expected.detach()):
        raise BlocksEntangled("block by block the model computes something else than whole")
    if not _close(gradients, gradient):
        raise BlocksEntangled("block by block the model has other gradients than whole")


def _by_blocks(
    blockwise: BlockwiseModel, tokens: torch.Tensor, direction: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits ``[2, T, V]``, and of their product with ``direction`` the gradient at the first block."""
    rows = [tokens[row : row + 1] for row in range(len(tokens))]
    entered = [blockwise.enter(row).hidden for row in rows]
    kept: list[list[tuple[torch.Tensor, torch.Tensor]]] = [[] for _ in rows]
    with torch.enable_grad():
        for number in range(len(blockwise)):
            for place, row in enumerate(rows):
                hidden = (kept[place][-1][1] if kept[place] else entered[place]).detach().requires_grad_(True)
                kept[place].append((hidden, blockwise.run(number, row, hidden)))
        logits, gradients = [], []
        for place, row in enumerate(rows):
            last = kept[place][-1][1].detach().requires_grad_(True)
            logits.append(blockwise.head(row, last))
            (gradient,) = torch.autograd.grad(logits[-1], last, direction[place : place + 1])
            for hidden, output in reversed(kept[place]):
                (gradient,) = torch.autograd.grad(output, hidden, gradient)
            gradients.append(gradient)
    return torch.cat(logits).detach(), torch.cat(gradients)


def _refuse_exchanged(value: object, number: int) -> None:
    """Refuse what could carry anything from an earlier block to block ``number``."""
    if isinstance(value, torch.Tensor):
        if value.requires_grad:
            raise BlocksEntangled(f"block {number} is called with something made of earlier blocks' hidden states")
        return
    if isinstance(value, (tuple, list)):
        for member in value:
            _refuse_exchanged(member, number)
        return
    if value is None or isinstance(value, (bool, int, float, str, torch.dtype, torch.device)):
        return
    raise BlocksEntangled(f"block {number} is called with a {type(value).__name__}, which may hold anything")


def _equal_calls(one: tuple[BlockCall, ...], other: tuple[BlockCall, ...]) -> bool:
    return all(_equal((a.values, a.named), (b.values, b.named)) for a, b in zip(one, other, strict=True))


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one is other or torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, (tuple, list)) and isinstance(other, (tuple, list)):
        return len(one) == len(other) and all(map(_equal, one, other))
    return type(one) is type(other) and bool(one == other)


def _close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    tolerance = _TOLERANCE.get(expected.dtype, _COARSE_TOLERANCE)
    scale = expected.float().norm().clamp_min(torch.finfo(torch.float32).tiny)
    return found.shape == expected.shape and bool((found.float() - expected.float()).norm() <= tolerance * scale)
