"""Runs in llm-compressor's environment: seconds that its GPTQ takes for one layer, from the Hessian to the weights.

    python llm_compressor_layer.py LAYER.safetensors REPEATS GROUP THREADS

Arguments and the last line are those of ``peer_layer_seconds.py``. The calls and their defaults are those of
``GPTQModifier``: what is timed is what it does with a layer once its Hessian is collected.
"""

from __future__ import annotations

import time

import torch
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from llmcompressor.modifiers.gptq import GPTQModifier
from llmcompressor.modifiers.gptq.gptq_quantize import quantize_weight
from llmcompressor.modifiers.gptq.helpers import accumulate_hessian, make_empty_hessian, prepare_batch
from llmcompressor.modifiers.quantization.calibration import initialize_observer, observe
from peer_layer_seconds import print_layer_seconds


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


if __name__ == "__main__":
    print_layer_seconds(round_layer)
