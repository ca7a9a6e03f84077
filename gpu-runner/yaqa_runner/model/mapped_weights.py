"""A model whose blocks' weights stay in the checkpoint, and are loaded a block at a time.

Names and layouts are transformers' own business: each block is loaded by the library's own conversion, of the tensors
that belong to it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    WeightConverter,
    convert_and_load_state_dict_in_model,
    rename_source_key,
)
from transformers.modeling_utils import LoadStateDictConfig
from transformers.utils import logging as transformers_logging

from yaqa_runner.machine.allocator import give_large_blocks_back, give_small_blocks_back
from yaqa_runner.model.auto_class import auto_class
from yaqa_runner.model.linears import named_blocks
from yaqa_runner.model.stored_tensors import StoredTensors
from yaqa_runner.protocol.failures import SourceRefused

_META = torch.device("meta")


def empty_model(config: Any, dtype: torch.dtype, device: torch.device) -> Any:
    """The model of ``config`` with parameters on the meta device, and what it computes for itself on ``device``.

    Raises:
        ValueError: transformers cannot build it.
    """
    loader = auto_class(config)
    assert loader is not None
    try:
        with _META:
            model: Any = loader.from_config(config, dtype=dtype, attn_implementation="sdpa")
    except ValueError as error:
        if "scaled_dot_product_attention" not in str(error):
            raise
        with _META:
            model = loader.from_config(config, dtype=dtype, attn_implementation="eager")
    for name, buffer in list(model.named_non_persistent_buffers()):
        path, _, attribute = name.rpartition(".")
        model.get_submodule(path).register_buffer(attribute, torch.empty_like(buffer, device=device), persistent=False)
    # Parameters on the meta device take no values; buffers get theirs as after any loading.
    for parameter in model.parameters():
        parameter._is_hf_initialized = True
    model.initialize_weights()
    model.eval()
    return model.requires_grad_(False)


class MappedWeights:
    """Weights of blocks, loaded from the disk for as long as they are asked for; all others are there throughout."""

    whole = False

    def __init__(self, model: Any, stored: StoredTensors, dtype: torch.dtype, device: torch.device) -> None:
        """Find out which tensors belong to which block, and load those that belong to none.

        Raises:
            SourceRefused: some of these are missing or misshapen.
        """
        transformers_logging.disable_progress_bar()
        # Each block is a little larger or smaller than the hole that the one before it left.
        give_large_blocks_back()
        self._model = model
        self._dtype = dtype
        self._device = device
        self._mapping: list[Any] = get_model_conversion_mapping(model)
        self._expected: dict[str, Any] = model.state_dict()
        self._prefixes = [f"{name}." for name, _ in named_blocks(model)]
        self._numbers = {prefix: number for number, prefix in enumerate(self._prefixes)}
        self._expected_of: dict[int | None, list[str]] = {}
        for name in self._expected:
            self._expected_of.setdefault(self._block_of(name), []).append(name)
        self._stored = stored
        self._names = self._by_block()
        self._held: dict[int, int] = {}
        self._last = 0
        self._kept: int | None = None
        self._kept_stack = ExitStack()
        self._after: dict[int, list[Callable[[], None]]] = {}
        self._before: dict[int, list[Callable[[], None]]] = {}
        self.unused: set[str] = set()
        self._load(None)
        model.tie_weights(recompute_mapping=False)
        self._refuse_missing(None, tied=set(model.all_tied_weights_keys))

    def name_of(self, number: int) -> str:
        """The name of block ``number`` within the model, with a dot at its end."""
        return self._prefixes[number]

    def on_load(self, number: int, before: Callable[[], None], after: Callable[[], None]) -> None:
        """Run ``before`` and ``after`` around every loading of block ``number`` from now on."""
        self._before.setdefault(number, []).append(before)
        self._after.setdefault(number, []).append(after)

    @contextmanager
    def everything(self) -> Iterator[None]:
        """All blocks' weights are there for as long as this lasts, if they fit."""
        with ExitStack() as stack:
            for number in range(len(self._prefixes)):
                stack.enter_context(self.block(number))
            yield

    def keep(self, number: int) -> None:
        """Have the weights of block ``number`` there until another block is asked for."""
        if self._kept == number:
            return
        self._release()
        with ExitStack() as stack:
            stack.enter_context(self.block(number))
            self._kept, self._kept_stack = number, stack.pop_all()

    def _release(self) -> None:
        stack, self._kept, self._kept_stack = self._kept_stack, None, ExitStack()
        stack.close()

    @contextmanager
    def block(self, number: int) -> Iterator[None]:
        """The weights of block ``number`` are there for as long as this lasts; whoever asks twice shares them.

        Raises:
            SourceRefused: a tensor is missing, misshapen, or gone from the disk.
        """
        if self._kept not in (None, number):
            self._release()
        if self._held.get(number, 0) == 0:
            self._load(number)
            self._refuse_missing(number, tied=set())
            for run in self._after.get(number, []):
                run()
            self._fetch(number + (1 if number >= self._last else -1))
            self._last = number
        self._held[number] = self._held.get(number, 0) + 1
        try:
            yield
        finally:
            self._held[number] -= 1
            if self._held[number] == 0:
                self._drop(number)

    def _by_block(self) -> dict[int | None, list[str]]:
        converters = [entry for entry in self._mapping if isinstance(entry, WeightConverter)]
        renamings = [entry for entry in self._mapping if not isinstance(entry, WeightConverter)]
        prefix = getattr(self._model, "base_model_prefix", None) or None
        names: dict[int | None, list[str]] = {}
        for stored in self._stored.names:
            loaded, _ = rename_source_key(stored, renamings, converters, prefix, self._expected)
            names.setdefault(self._block_of(loaded), []).append(stored)
        return names

    def _block_of(self, parameter: str) -> int | None:
        ends = (place + 1 for place, letter in enumerate(parameter) if letter == ".")
        return next((self._numbers[parameter[:end]] for end in ends if parameter[:end] in self._numbers), None)

    def _load(self, number: int | None) -> None:
        for run in self._before.get(number, []) if number is not None else []:
            run()
        names = self._names.get(number, [])
        try:
            with self._stored.opened() as give:
                settings = LoadStateDictConfig(
                    dtype=self._dtype, device_map={"": str(self._device)}, weight_mapping=self._mapping
                )
                tensors = {name: give(name) for name in names}
                found, _ = convert_and_load_state_dict_in_model(self._model, tensors, settings)
        except (OSError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "memory" in str(error):
                raise
            raise SourceRefused(f"The weights cannot be read: {error}", "Push sound weights.") from error
        self.unused.update(found.unexpected_keys)
        if found.mismatched_keys:
            raise SourceRefused(
                f"Weights do not fit the config: {', '.join(sorted(str(key) for key in found.mismatched_keys)[:3])}.",
                "Push what belongs together.",
            )
        for parameter in self._tensors(number):
            parameter.requires_grad_(False)

    def _refuse_missing(self, number: int | None, tied: Collection[str]) -> None:
        missing = sorted(
            name for name in self._expected_of.get(number, []) if name not in tied and _value(self._model, name).is_meta
        )
        if missing:
            raise SourceRefused(
                f"The checkpoint has no weights for {', '.join(missing[:3])} ({len(missing)} in all).",
                "Push the whole model.",
            )

    def _tensors(self, number: int | None) -> Iterator[nn.Parameter]:
        if number is not None:
            yield from self._block(number).parameters()
            return
        for name, parameter in self._model.named_parameters():
            if self._block_of(name) is None:
                yield parameter

    def _drop(self, number: int) -> None:
        block = self._block(number)
        elements = sum(parameter.numel() for parameter in block.parameters())
        empty_parameters(block)
        if self._device.type == "cpu":
            give_small_blocks_back(elements)

    def _block(self, number: int) -> nn.Module:
        block: nn.Module = self._model.get_submodule(self._prefixes[number][:-1])
        return block

    def _fetch(self, number: int) -> None:
        self._stored.fetch(self._names.get(number, []) if number >= 0 else [])


def empty_parameters(module: nn.Module) -> None:
    """Leave the parameters of ``module`` their shapes alone."""
    for part in module.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            empty = nn.Parameter(torch.empty_like(parameter, device=_META), requires_grad=False)
            setattr(part, name, empty)


def _value(model: nn.Module, name: str) -> torch.Tensor:
    path, _, attribute = name.rpartition(".")
    value: torch.Tensor = getattr(model.get_submodule(path), attribute)
    return value
