"""Runs in llm-compressor's environment: seconds that its GPTQ takes for one layer, from the Hessian to the weights.

    python llm_compressor_layer.py LAYER.safetensors REPEATS GROUP THREADS

The file holds ``weight`` ``[out, in]`` and ``inputs`` ``[samples, in]``. The calls and their defaults are those of
``GPTQModifier``: what is timed is what it does with a layer once its Hessian is collected. The last line is
``{"seconds": [...], "processorSeconds": [...]}``: by the clock, and of all threads together.
"""

from __future__ import annotations

import json
import sys
import time

import torch
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from llmcompressor.modifiers.gptq import GPTQModifier
from llmcompressor.modifiers.gptq.gptq_quantize import quantize_weight
from llmcompressor.modifiers.gptq.helpers import accumulate_hessian, make_empty_hessian, prepare_batch
from llmcompressor.modifiers.quantization.calibration import initialize_observer, observe
from safetensors.torch import load_file


@torch.no_grad()
def round_layer(weight: torch.Tensor, inputs: torch.Tensor, group: int) -> tuple[float, float]:
    """Seconds by the clock and of the processor."""
    settings = QuantizationArgs(num_bits=4, symmetric=True, strategy="group", group_size=group)
    modifier = GPTQModifier()
    module = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    module.weight.data = weight.clone()
    module.quantization_scheme = QuantizationScheme(targets=["Linear"], weights=settings)
    initialize_observer(module, "weight")
    hessian, samples = accumulate_hessian(inputs, module, make_empty_hessian(module), torch.zeros(()))
    started, used = time.perf_counter(), time.process_time()
    observe(module, "weight")
    scales = [module.weight_observer.get_qparams()]
    given = prepare_batch([module], scales, {module: hessian}, {module: samples})
    _, _, nearest = quantize_weight(*given, settings, modifier.block_size, modifier.dampening_frac)
    seconds, processor_seconds = time.perf_counter() - started, time.process_time() - used
    if nearest.any():
        raise RuntimeError("llm-compressor could not invert the Hessian and rounded to nearest")
    return seconds, processor_seconds


def main() -> None:
    path, repeats, group, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    torch.set_num_threads(threads)
    tensors = load_file(path)
    weight, inputs = tensors["weight"], tensors["inputs"]
    # Threads start and libraries load in the first call.
    round_layer(weight[:group, :group].clone(), inputs[:, :group], group)
    taken = [round_layer(weight, inputs, group) for _ in range(repeats)]
    print(json.dumps({"seconds": [own[0] for own in taken], "processorSeconds": [own[1] for own in taken]}))


if __name__ == "__main__":
    main()
