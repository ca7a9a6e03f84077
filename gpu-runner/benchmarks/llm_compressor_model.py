"""Runs in llm-compressor's environment: a whole model through its GPTQ.

    python llm_compressor_model.py MODEL TOKENS.safetensors BITS GROUP SYMMETRIC OUTPUT.safetensors

``TOKENS`` holds ``tokens`` ``[sequences, length]``; ``OUTPUT`` gets every linear's weight ``[out, in]`` float32 by
module name, as it stands in the model before packing, its scales rounded to float16. The last line is JSON.
"""

from __future__ import annotations

import json
import sys

import torch
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from datasets import Dataset
from llmcompressor import oneshot
from llmcompressor.modifiers.quantization import GPTQModifier
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM


def main() -> None:
    folder, tokens_path, bits, group, symmetric, output = sys.argv[1:]
    tokens = load_file(tokens_path)["tokens"]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    arguments = QuantizationArgs(
        num_bits=int(bits), symmetric=symmetric == "true", strategy="group", group_size=int(group)
    )
    heads = [name for name, module in model.named_modules() if module is model.get_output_embeddings()]
    modifier = GPTQModifier(
        config_groups={"group_0": QuantizationScheme(targets=["Linear"], weights=arguments)}, ignore=heads
    )
    rows = Dataset.from_dict({"input_ids": tokens.tolist(), "attention_mask": torch.ones_like(tokens).tolist()})
    oneshot(
        model=model,
        dataset=rows,
        recipe=modifier,
        max_seq_length=tokens.shape[1],
        num_calibration_samples=len(tokens),
    )
    decoded = {}
    for name, module in model.named_modules():
        if hasattr(module, "weight_scale"):
            # It keeps scales in the model's type; 16 bits, as everybody's are counted, need float16's.
            scale = module.weight_scale.detach().float()
            change = (scale.half().float() / scale).repeat_interleave(int(group), dim=1)
            weight = module.weight.detach().float()
            decoded[name] = weight * change[:, : weight.shape[1]]
    save_file(decoded, output)
    print(json.dumps({"linears": len(decoded)}))


if __name__ == "__main__":
    main()
