"""Runs in gptqmodel's environment: a whole model through its GPTQ.

    python gptqmodel_model.py MODEL TOKENS.safetensors BITS GROUP SYMMETRIC OUTPUT.safetensors

``TOKENS`` holds ``tokens`` ``[sequences, length]``; ``OUTPUT`` gets every quantized linear's weight ``[out, in]``
float32 by module name, as gptqmodel's own torch kernel gives it back. The last line is JSON.
"""

from __future__ import annotations

import json
import os
import sys

import torch

# Its default on a machine of two cores is one, which its own loader then finds too few.
os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")

from gptqmodel import BACKEND, GPTQModel, QuantizeConfig
from gptqmodel.nn_modules.qlinear.torch import TorchLinear
from gptqmodel.utils.model import convert_gptq_v1_to_v2_format_module
from safetensors.torch import load_file, save_file


def main() -> None:
    folder, tokens_path, bits, group, symmetric, output = sys.argv[1:]
    tokens = load_file(tokens_path)["tokens"]
    settings = QuantizeConfig(
        bits=int(bits),
        group_size=int(group),
        sym=symmetric == "true",
        desc_act=False,
        device="cpu",
        offload_to_disk=False,
    )
    model = GPTQModel.load(folder, settings, backend=BACKEND.TORCH, dtype=torch.float32)
    rows = [{"input_ids": row[None], "attention_mask": torch.ones_like(row[None])} for row in tokens]
    model.quantize(rows, batch_size=4, backend=BACKEND.TORCH)
    decoded = {}
    for name, module in model.model.named_modules():
        if isinstance(module, TorchLinear):
            # What was just packed has v1's zero points, one less than the kernel takes; loading would convert them.
            if module.qzero_format() == 1:
                convert_gptq_v1_to_v2_format_module(module, int(bits), torch.int32)
            decoded[name] = module.dequantize_weight().T.float().contiguous().clone()
    save_file(decoded, output)
    print(json.dumps({"linears": len(decoded)}))


if __name__ == "__main__":
    main()
