"""What a checkpoint calls the parameters of a loaded model: transformers' own renaming, asked and not guessed."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import nn
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, rename_source_key


def stored_names(model: nn.Module, stored: Collection[str]) -> dict[str, str]:
    """The checkpoint's tensor for every parameter of ``model`` that is one tensor there, by the parameter's name.

    ``stored`` holds the checkpoint's tensor names. Parameters that transformers puts together from several tensors
    (fused experts), or changes on the way, are not in the result.
    """
    transforms: list[Any] = get_model_conversion_mapping(model)
    converters = [transform for transform in transforms if isinstance(transform, WeightConverter)]
    renamings = [transform for transform in transforms if not isinstance(transform, WeightConverter)]
    parameters = model.state_dict()
    prefix = getattr(model, "base_model_prefix", None) or None
    found = {}
    for name in sorted(stored):
        loaded, converted = rename_source_key(name, renamings, converters, prefix, parameters)
        if converted is None and loaded in parameters:
            found[loaded] = name
    return found
