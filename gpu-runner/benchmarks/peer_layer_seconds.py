"""Runs in a peer's environment: the seconds that its GPTQ takes for one layer, said on the last line."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

import torch
from safetensors.torch import load_file


def print_layer_seconds(round_layer: Callable[[torch.Tensor, torch.Tensor, int], tuple[float, float]]) -> None:
    """Time ``round_layer`` (weight, inputs, group; seconds by the clock and of the processor) as ``sys.argv`` asks.

    Arguments are ``LAYER.safetensors REPEATS GROUP THREADS``; the file holds ``weight`` ``[out, in]`` and ``inputs``
    ``[samples, in]``. The last line is ``{"seconds": [...], "processorSeconds": [...]}``: by the clock, and of all
    threads together.
    """
    path, repeats, group, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    torch.set_num_threads(threads)
    tensors = load_file(path)
    weight, inputs = tensors["weight"], tensors["inputs"]
    # Threads start and libraries load in the first call.
    round_layer(weight[:group, :group].clone(), inputs[:, :group], group)
    taken = [round_layer(weight, inputs, group) for _ in range(repeats)]
    print(json.dumps({"seconds": [own[0] for own in taken], "processorSeconds": [own[1] for own in taken]}))
