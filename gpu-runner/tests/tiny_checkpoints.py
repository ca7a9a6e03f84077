"""Small random checkpoints, and linears of theirs on an absmax grid."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from yaqa_runner.formats.container import QuantizedLinear
from yaqa_runner.grids.grid import FixedGrid

VOCABULARY = 320
SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
GPT2_SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "n_embd": 64,
    "n_head": 4,
    "n_layer": 2,
    "n_positions": 128,
    "bos_token_id": 0,
    "eos_token_id": 1,
}


def save_checkpoint(directory: Path, kind: str, tokenizer: bool = True, **settings: Any) -> Path:
    """A random bfloat16 model of ``kind`` with a byte-level tokenizer, saved as the Hub keeps it."""
    shape = GPT2_SHAPE if kind == "gpt2" else SHAPE
    config = AutoConfig.for_model(kind, **{**shape, **settings})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Norms and biases start as ones and zeros, which would hide a mix-up.
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
            elif "embed" not in name and "wte" not in name:
                parameter.mul_(4.0)
    model.to(torch.bfloat16).save_pretrained(directory)
    if tokenizer:
        save_tokenizer(directory)
    (directory / "LICENSE").write_text("A licence.\n", encoding="utf-8")
    return directory


def save_tokenizer(directory: Path) -> None:
    """GPT-2's way of splitting, bytes as tokens, a few merges."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<s>": 0, "</s>": 1, **{letter: number for number, letter in enumerate(alphabet, start=2)}}
    merges = [("t", "h"), ("th", "e"), ("Ġ", "a")]
    for left, right in merges:
        vocabulary[left + right] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.save(str(directory / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "chat_template": "{% for message in messages %}{{ message.content }}{% endfor %}",
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def load_original(directory: Path) -> PreTrainedModel:
    """The checkpoint in float32, eager attention."""
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager")
    return model.eval()


def absmax_grid(weight: torch.Tensor, bits: int, group: int, asymmetric: bool = False) -> FixedGrid:
    """Scales with at most eight significant bits, so that float16 and bfloat16 both hold them."""
    rows, columns = weight.shape
    groups = -(-columns // group)
    padded = torch.nn.functional.pad(weight, (0, groups * group - columns)).view(rows, groups, group)
    if not asymmetric:
        scale = padded.abs().amax(dim=2) / ((1 << (bits - 1)) - 1)
        scale = scale.clamp_min(2.0**-13).to(torch.bfloat16).to(torch.float32)
        return FixedGrid(scale, torch.zeros_like(scale), group, -(1 << (bits - 1)), (1 << (bits - 1)) - 1)
    highest = (1 << bits) - 1
    low, high = padded.amin(dim=2).clamp_max(0), padded.amax(dim=2).clamp_min(0)
    scale = ((high - low) / highest).clamp_min(2.0**-13).to(torch.bfloat16).to(torch.float32)
    zero = (-low / scale).round().clamp(1, highest)
    return FixedGrid(scale, -scale * zero, group, 0, highest)


def linear_weights(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Float32 ``[out, in]`` of every linear inside the blocks."""
    found = {}
    for name, module in model.named_modules():
        if name == "lm_head":
            continue
        if isinstance(module, Conv1D):
            found[name] = module.weight.detach().T.contiguous()
        elif isinstance(module, torch.nn.Linear):
            found[name] = module.weight.detach()
    return found


def quantize(model: PreTrainedModel, bits: int, group: int, asymmetric: bool = False) -> dict[str, QuantizedLinear]:
    """Every linear rounded to nearest; ``model`` gets the decoded weights."""
    return quantize_on(model, lambda weight: absmax_grid(weight, bits, group, asymmetric), f"absmax-{bits}-g{group}")


def quantize_on(
    model: PreTrainedModel, fit: Callable[[torch.Tensor], FixedGrid], name: str
) -> dict[str, QuantizedLinear]:
    """Every linear rounded to nearest on what ``fit`` gives; ``model`` gets the decoded weights."""
    linears = {}
    modules = dict(model.named_modules())
    for linear, weight in linear_weights(model).items():
        grid = fit(weight)
        codes = grid.nearest(weight)
        linears[linear] = QuantizedLinear(linear, codes, grid, name)
        decoded = grid.decode(codes)
        module = modules[linear]
        module.weight.data = decoded.T.contiguous() if isinstance(module, Conv1D) else decoded
    return linears


def token_ids(sequences: int = 2, length: int = 24) -> torch.Tensor:
    """Random ids ``[sequences, length]``."""
    return torch.randint(2, VOCABULARY, (sequences, length), generator=torch.Generator().manual_seed(7))


@torch.inference_mode()
def log_probabilities(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    """Float32 ``[sequences, length, vocabulary]``."""
    return model(input_ids=ids).logits.float().log_softmax(dim=-1)
