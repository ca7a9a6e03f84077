"""Runs in MLX's environment: opens MLX folders with mlx-lm on the processor, and compares weights and answers.

    python mlx_opens.py FOLDER…

Beside each folder lies ``wanted.safetensors``: ``ids`` ``[S, T]``, their ``log_probabilities``, and what each linear
should decode to. The last line is JSON: the largest differences by folder.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_map
from mlx_lm.utils import load_model


def widened(array: mx.array) -> mx.array:
    """Numbers in float32, so that the processor computes as transformers does; packed words as they are."""
    return array.astype(mx.float32) if mx.issubdtype(array.dtype, mx.floating) else array


def main() -> None:
    found = {}
    for folder in map(Path, sys.argv[1:]):
        model, _ = load_model(folder)
        wanted = mx.load(str(folder.with_name("wanted.safetensors")))
        ids, log_probabilities = wanted.pop("ids"), wanted.pop("log_probabilities")
        modules = dict(model.named_modules())
        exact = 0.0
        for name, weight in wanted.items():
            module = modules[name]
            biases = getattr(module, "biases", None)
            scales = widened(module.scales), None if biases is None else widened(biases)
            form = module.group_size, module.bits, module.mode
            # What the modes of FP4 give in bfloat16 is exact there.
            wide = widened(mx.dequantize(module.weight, *scales, *form))
            exact = max(exact, float(mx.abs(wide - weight).max()))
        model.update(tree_map(widened, model.parameters()))
        logits = model(ids.astype(mx.int32))
        answer = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        found[folder.parent.name] = {
            "linears": len(wanted),
            "weights": exact,
            "answer": float(mx.abs(answer - log_probabilities).max()),
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
