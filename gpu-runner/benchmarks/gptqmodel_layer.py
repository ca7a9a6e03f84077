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


def main() -> None:
    path, repeats, group, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    torch.set_num_threads(threads)
    tensors = load_file(path)
    weight, inputs = tensors["weight"], tensors["inputs"]
    seconds, processor_seconds = [], []
    for _ in range(repeats):
        module = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        module.weight.data = weight.clone()
        quantizer = GPTQ(module, QuantizeConfig(bits=4, group_size=group, sym=True))
        quantizer.quantizer.configure(perchannel=True)
        with torch.no_grad():
            quantizer.add_batch(inputs[None], torch.zeros(1))
            # Collecting the Hessian is the calibration's work, not the rounding's.
            quantizer.finalize_hessian()
            started, used = time.perf_counter(), time.process_time()
            quantizer.quantize()
            seconds.append(time.perf_counter() - started)
            processor_seconds.append(time.process_time() - used)
    print(json.dumps({"seconds": seconds, "processorSeconds": processor_seconds}))


if __name__ == "__main__":
    main()
