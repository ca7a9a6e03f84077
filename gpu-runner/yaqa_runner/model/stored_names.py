"""What a checkpoint calls the parameters of a loaded model: transformers' own renaming, asked and not guessed."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from torch import nn
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, rename_source_key


class Renaming:
    """How transformers renames the tensors of a checkpoint that it loads into ``model``."""

    def __init__(self, model: nn.Module) -> None:
        transforms: list[Any] = get_model_conversion_mapping(model)
        self._converters = [transform for transform in transforms if isinstance(transform, WeightConverter)]
        self._renamings = [transform for transform in transforms if not isinstance(transform, WeightConverter)]
        self._prefix = getattr(model, "base_model_prefix", None) or None
        self._parameters = model.state_dict()

    def target(self, name: str) -> tuple[str, str | None]:
        """The parameter that the tensor ``name`` goes to, and the pattern of what is put together, where it is."""
        loaded, pattern = rename_source_key(name, self._renamings, self._converters, self._prefix, self._parameters)
        return loaded, pattern if loaded in self._parameters else None

    def is_loaded(self, name: str) -> bool:
        """Whether the model has a place for the tensor ``name``."""
        return self.target(name)[0] in self._parameters

    def sources(self, names: Iterable[str]) -> dict[str, dict[str, list[str]]]:
        """Those of the tensors ``names`` that parameters are put together from: by parameter, and by pattern in order.

        Fused experts have a pattern for the gates and one for the ups.
        """
        order = [pattern for converter in self._converters for pattern in converter.source_patterns]
        found: dict[str, dict[str, list[str]]] = {}
        for name in sorted(names):
            loaded, pattern = self.target(name)
            if pattern is not None:
                found.setdefault(loaded, {}).setdefault(pattern, []).append(name)
        return {
            loaded: {pattern: parts[pattern] for pattern in sorted(parts, key=order.index)}
            for loaded, parts in found.items()
        }


def stored_names(model: nn.Module, stored: Collection[str]) -> dict[str, str]:
    """The checkpoint's tensor for every parameter of ``model`` that is one tensor there, by the parameter's name.

    ``stored`` holds the checkpoint's tensor names. Parameters that transformers puts together from several tensors
    (fused experts), or changes on the way, are not in the result.
    """
    renaming, parameters = Renaming(model), model.state_dict()
    found = {}
    for name in sorted(stored):
        loaded, pattern = renaming.target(name)
        if pattern is None and loaded in parameters:
            found[loaded] = name
    return found
