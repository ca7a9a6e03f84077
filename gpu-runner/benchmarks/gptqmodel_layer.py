"""Runs in gptqmodel's environment: seconds that its GPTQ takes for one layer, from the Hessian to the codes.

    python gptqmodel_layer.py LAYER.safetensors REPEATS GROUP THREADS

Arguments and the last line are those of ``peer_layer_seconds.py``.
"""

from __future__ import annotations

import time

import torch
from gptqmodel.quantization import QuantizeConfig
from gptqmodel.quantization.gptq import GPTQ
from peer_layer_seconds import print_layer_seconds


@torch.no_grad()
def round_layer(weight: torch.Tensor, inputs: torch.Tensor, group: int) -> tuple[float, float]:
    """Seconds by the clock and of the processor."""
    module = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    module.weight.data = weight.clone()
    quantizer = GPTQ(module, QuantizeConfig(bits=4, group_size=group, sym=True))
    quantizer.quantizer.configure(perchannel=True)
    quantizer.add_batch(inputs[None], torch.zeros(1))
    # Collecting the Hessian is the calibration's work, not the rounding's.
    quantizer.finalize_hessian()
    started, used = time.perf_counter(), time.process_time()
    quantizer.quantize()
    return time.perf_counter() - started, time.process_time() - used


if __name__ == "__main__":
    print_layer_seconds(round_layer)
