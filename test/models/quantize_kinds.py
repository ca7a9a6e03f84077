"""Makes tiny models and quantizes each in every container: ``python quantize_kinds.py FOLDER < KINDS``.

A kind a line comes in, a JSON line a kind goes out: what became of every container, and what transformers computes from
the finished folder where no other engine is asked. GGUF and ONNX are left for the engines of the caller, who also ends
this process where a kind takes too long or too much memory.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "gpu-runner/tests"), str(ROOT / "test/engines")]

import open_folder  # noqa: E402
import tiny_architectures  # noqa: E402
import torch  # noqa: E402
from safetensors import safe_open  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from transformers.utils import logging as transformers_logging  # noqa: E402
from yaqa_runner.api.quantize import quantize  # noqa: E402
from yaqa_runner.api.results import QuantizedVariant  # noqa: E402
from yaqa_runner.protocol.failures import as_failure  # noqa: E402

RECIPES = {
    "gguf": "gguf:q8_0,tune=off,refine=0",
    "onnx": "onnx:q8,tune=off,refine=0",
    "compressed-tensors": "w8a16,group=32,tune=off,refine=0",
    "gptq": "gptq:8,group=32,tune=off,refine=0",
}
# What takes the longest; a refusal that comes after one of them began is late.
COSTLY_STAGES = ("sketch", "round", "tune", "export", "gate")
# A part of a quantized linear in a safetensors file.
PARTS = re.compile(r"\.(weight_packed|weight_scale|weight_shape|weight_zero_point|qweight|qzeros|scales|g_idx)$")


def source_tensors(folder: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors in a folder's safetensors files."""
    shapes = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as handle:
            for name in handle.keys():  # noqa: SIM118
                shapes[name] = tuple(handle.get_slice(name).get_shape())
    return shapes


def unaccounted(variant: QuantizedVariant, container: str, source: dict[str, tuple[int, ...]]) -> list[str]:
    """Tensors of the source that are neither quantized nor listed nor, byte for byte, in the folder."""
    manifest = variant.manifest
    quantized = {layer.name for layer in manifest.layers}
    listed = {weight.name for weight in manifest.unquantized}
    kept = {PARTS.sub(".weight", name) for name in source_tensors(variant.folder)}
    found = []
    for name, shape in source.items():
        if name.removesuffix(".weight") in quantized or name in listed or name in kept:
            continue
        # Vectors are carried over by the container's own tables; its engine's KL holds them.
        if container in ("gguf", "onnx") and len(shape) < 2:
            continue
        if any(layer.startswith(name.removesuffix(".gate_up_proj").removesuffix(".down_proj")) for layer in quantized):
            continue
        found.append(name)
    return found


def engine_kl(engine: str, folder: Path, verification: Path) -> dict[str, Any]:
    """KL by the folder as ``open_folder`` opens it, on the positions of the verification tensors."""
    version, log_probabilities, _ = open_folder.ENGINES[engine](folder)
    return {
        "engine": f"{engine} {version}",
        "engineKl": open_folder.mean_kl(load_file(verification), log_probabilities),
    }


def one_container(model: Path, container: str, work: Path, sketch: Path | None) -> dict[str, Any]:
    """What becomes of ``model`` in ``container``."""
    output = work / container
    stages: list[str] = []

    def on_event(event: Any) -> None:
        if event.event == "stage" and event.status == "started":
            stages.append(event.stage)

    row: dict[str, Any] = {"container": container, "recipe": RECIPES[container]}
    try:
        made = quantize(
            model,
            RECIPES[container],
            output=output,
            sequences=4,
            length=32,
            evaluation_sequences=2,
            iterations=1,
            sketch=sketch,
            threads=1,
            on_event=on_event,
        )
    except BaseException as error:
        failure = as_failure(error)
        crashed = failure.code not in ("source-refused", "unsupported-model")
        late = any(stage in COSTLY_STAGES for stage in stages)
        outcome = "crashed" if crashed else "late" if late else "refused"
        if crashed:
            logging.getLogger(__name__).warning("%s in %s", model.name, container, exc_info=True)
        return {**row, "outcome": outcome, "note": failure.message}
    (variant,) = made.variants
    source = source_tensors(model)
    total = sum(torch.Size(shape).numel() for shape in source.values())
    row |= {
        "outcome": "finished",
        "folder": str(variant.folder),
        "sketch": str(output / "sketch"),
        "verification": str(output / "verification.safetensors"),
        "manifestKl": variant.manifest.verification.kl_nats,
        "share": sum(layer.shape[0] * layer.shape[1] for layer in variant.manifest.layers) / total,
        "kept": sorted({weight.reason for weight in variant.manifest.unquantized}),
        "unaccounted": unaccounted(variant, container, source),
    }
    engine = {"compressed-tensors": "transformers", "gptq": "plain-gptq"}.get(container)
    if engine is None:
        return row
    try:
        return {**row, **engine_kl(engine, variant.folder, output / "verification.safetensors")}
    except Exception as error:
        logging.getLogger(__name__).warning("%s in %s", model.name, engine, exc_info=True)
        return {**row, "outcome": "wrong", "note": f"{engine} does not open it: {type(error).__name__}: {error}"[:600]}


def one_kind(kind: str, folder: Path, containers: list[str]) -> dict[str, Any]:
    """All containers of one kind."""
    work = folder / kind
    shutil.rmtree(work, ignore_errors=True)
    started = time.monotonic()
    try:
        model = tiny_architectures.save_tiny_model(kind, work / "model", dtype=torch.float32)
    except Exception as error:
        return {"kind": kind, "unmade": f"{type(error).__name__}: {error}"[:400], "rows": []}
    rows: list[dict[str, Any]] = []
    sketch: Path | None = None
    for container in containers:
        row = one_container(model, container, work, sketch)
        sketch = sketch or (Path(row["sketch"]) if "sketch" in row else None)
        rows.append(row)
    return {"kind": kind, "rows": rows, "seconds": round(time.monotonic() - started, 1)}


def main() -> None:
    """Reads kinds until the input ends."""
    torch.set_num_threads(1)
    transformers_logging.disable_progress_bar()
    folder = Path(sys.argv[1])
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(one_kind(request["kind"], folder, request["containers"])), flush=True)


if __name__ == "__main__":
    main()
