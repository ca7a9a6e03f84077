"""The class that transformers loads a checkpoint with: text in, text out, whatever else the model takes."""

from __future__ import annotations

from typing import Any

import transformers
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, PretrainedConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
)


def auto_class(config: PretrainedConfig) -> Any | None:
    """The auto class for ``config``; ``None`` where it is no model that continues text.

    A checkpoint that its config calls an image-text model is loaded as one, towers and all, also where the language
    model alone has a class: its quantized folder has to work as the original does.
    """
    pictured = _names(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.get(config.model_type))
    is_causal = config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    named = getattr(config, "architectures", None) or []
    if pictured and (not is_causal or any(name in pictured for name in named)):
        return AutoModelForImageTextToText
    return AutoModelForCausalLM if is_causal else None


def model_class(config: PretrainedConfig) -> type | None:
    """The class itself, where transformers knows one."""
    chosen = auto_class(config)
    mapping = (
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
        if chosen is AutoModelForImageTextToText
        else MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    )
    for name in _names(mapping.get(config.model_type)):
        found = getattr(transformers, name, None)
        if isinstance(found, type):
            return found
    return None


def _names(found: Any) -> tuple[str, ...]:
    if not found:
        return ()
    return tuple(found) if isinstance(found, (list, tuple)) else (str(found),)
