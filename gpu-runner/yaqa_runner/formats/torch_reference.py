"""A finished file's model, run by transformers."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel


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
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    return model


def model_with_weights(
    config: PretrainedConfig, weights: Mapping[str, torch.Tensor], device: str = "cpu"
) -> TorchReferenceModel:
    """The architecture of ``config`` in float32 with ``weights`` keyed by parameter name; tied ones follow."""
    model_class = type(empty_model(config))
    model = model_class.from_pretrained(None, config=config, state_dict=dict(weights), dtype=torch.float32)
    return TorchReferenceModel(model.to(device))
