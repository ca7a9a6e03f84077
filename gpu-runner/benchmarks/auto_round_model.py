"""Runs in auto-round's environment: a whole model through AutoRound with its default number of iterations.

    python auto_round_model.py MODEL TOKENS.safetensors BITS GROUP SYMMETRIC OUTPUT.safetensors

``TOKENS`` holds ``tokens`` ``[sequences, length]``; ``OUTPUT`` gets every quantized linear's weight ``[out, in]``
float32 by module name, as it stands in the model before packing, which changes no value. The last line is JSON.
"""

from __future__ import annotations

import json
import sys

import torch
from auto_round import AutoRound
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer


def main() -> None:
    folder, tokens_path, bits, group, symmetric, output = sys.argv[1:]
    tokens = load_file(tokens_path)["tokens"]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    before = {name: module.weight.detach().clone() for name, module in model.named_modules() if _is_linear(module)}
    quantizer = AutoRound(
        model,
        AutoTokenizer.from_pretrained(folder),
        bits=int(bits),
        group_size=int(group),
        sym=symmetric == "true",
        dataset=[row[None] for row in tokens],
        nsamples=len(tokens),
        seqlen=tokens.shape[1],
        device_map="cpu",
        amp=False,
        enable_torch_compile=False,
    )
    quantized, _ = quantizer.quantize()
    decoded = {}
    for name, module in quantized.named_modules():
        if name in before and not torch.equal(module.weight.float(), before[name]):
            decoded[name] = module.weight.detach().float().contiguous().clone()
    save_file(decoded, output)
    print(json.dumps({"linears": len(decoded)}))


def _is_linear(module: torch.nn.Module) -> bool:
    return isinstance(module, torch.nn.Linear)


if __name__ == "__main__":
    main()
