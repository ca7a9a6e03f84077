"""A finished file's model, run by transformers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers import PretrainedConfig, PreTrainedModel

from yaqa_runner.formats.source import ExportError
from yaqa_runner.model.auto_class import auto_class


class TorchReferenceModel:
    """Log-probabilities of a causal language model of transformers, in float32."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model.eval()

    @torch.inference_mode()
    def log_probabilities(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Float32 ``[sequences, length, vocabulary]`` on the CPU for ``input_ids`` ``[sequences, length]`` int64."""
        output = self.model(input_ids=input_ids.to(self.model.device), use_cache=False)
        logits: torch.Tensor = output.logits
        return logits.to(torch.float32).log_softmax(dim=-1).cpu()


def empty_model(config: PretrainedConfig) -> PreTrainedModel:
    """The model's modules and parameter names on the meta device: no weights, no memory."""
    loader = auto_class(config)
    if loader is None:
        raise ExportError(f"{config.model_type!r} is no language model that transformers has built in.")
    with torch.device("meta"):
        model: PreTrainedModel = loader.from_config(config, trust_remote_code=False)
    return model


def require_whole(report: Mapping[str, Any]) -> None:
    """Refuse what ``from_pretrained`` loaded only in part: it makes up a weight that it does not find.

    Raises:
        ExportError: a weight is missing, misshapen, or not one of the model's.
    """
    for kind in ("missing_keys", "mismatched_keys", "unexpected_keys"):
        names = sorted(str(name) for name in report.get(kind, ()))
        if names:
            word = kind.partition("_")[0]
            raise ExportError(f"The finished file does not hold the model's weights: {word} {', '.join(names[:3])}.")


def model_with_weights(
    config: PretrainedConfig, weights: Mapping[str, torch.Tensor], device: str = "cpu"
) -> TorchReferenceModel:
    """The architecture of ``config`` in float32 with ``weights`` keyed by parameter name; tied ones follow."""
    model_class = type(empty_model(config))
    model, report = model_class.from_pretrained(
        None, config=config, state_dict=dict(weights), dtype=torch.float32, output_loading_info=True
    )
    require_whole(report)
    return TorchReferenceModel(model.to(device))
