"""Runs in gptqmodel's environment: seconds that its GPTQ takes for one layer, from the Hessian to the codes.

    python gptqmodel_layer.py LAYER.safetensors REPEATS GROUP THREADS

The file holds ``weight`` ``[out, in]`` and ``inputs`` ``[samples, in]``. The last line is
``{"seconds": [...], "processorSeconds": [...]}``: by the clock, and of all threads together.
"""

from __future__ import annotations

import json
import sys
import time

import torch
from gptqmodel.quantization import QuantizeConfig
from gptqmodel.quantization.gptq import GPTQ
from safetensors.torch import load_file


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
