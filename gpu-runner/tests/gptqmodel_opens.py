"""Runs in gptqmodel's environment: opens GPTQ folders with its torch kernel, generates, and compares weights.

    python gptqmodel_opens.py FOLDER…

Beside each folder lies ``weights.safetensors`` with what each linear should decode to. The last line is JSON: the
largest difference by folder, and whether it generated.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from gptqmodel import BACKEND, GPTQModel
from safetensors.torch import load_file


def main() -> None:
    found = {}
    for folder in map(Path, sys.argv[1:]):
        model = GPTQModel.load(str(folder), device="cpu", backend=BACKEND.TORCH, dtype=torch.float16).model
        wanted = load_file(folder.with_name("weights.safetensors"))
        decoded = {name: module.dequantize_weight().T for name, module in model.named_modules() if name in wanted}
        differences = [float((decoded[name].float() - weight).abs().max()) for name, weight in wanted.items()]
        ids = model.generate(input_ids=torch.tensor([[5, 6, 7]]), max_new_tokens=4, min_new_tokens=4, do_sample=False)
        found[str(folder)] = {"linears": len(decoded), "difference": max(differences), "tokens": ids.shape[1]}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
