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
from yaqa_runner.model.snapshot import inspect_snapshot  # noqa: E402
from yaqa_runner.protocol.failures import as_failure  # noqa: E402
from yaqa_runner.protocol.recipes import parse_recipe  # noqa: E402

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


def folder_tensors(folder: Path) -> dict[str, tuple[int, ...]]:
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
    kept = {PARTS.sub(".weight", name) for name in folder_tensors(variant.folder)}
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


def quantized_rows(model: Path, containers: list[str], output: Path) -> list[dict[str, Any]]:
    """What becomes of ``model`` in ``containers``, all by one run: they share its sketch.

    Where that ends without a result, each container has a run of its own.
    """
    stages: list[str] = []
    late: set[str] = set()

    def on_event(event: Any) -> None:
        if event.event == "stage" and event.status == "started":
            stages.append(event.stage)
        if event.event == "warning" and event.code == "variant-refused" and set(stages) & set(COSTLY_STAGES):
            late.add(event.message)

    rows = {container: {"container": container, "recipe": RECIPES[container]} for container in containers}
    try:
        made = quantize(
            model,
            [RECIPES[container] for container in containers],
            output=output,
            sequences=4,
            length=32,
            evaluation_sequences=2,
            iterations=1,
            threads=1,
            on_event=on_event,
        )
    except BaseException as error:
        if len(containers) > 1:
            shutil.rmtree(output, ignore_errors=True)
            return [row for one in containers for row in quantized_rows(model, [one], output.parent / one)]
        failure = as_failure(error)
        crashed = failure.code not in ("source-refused", "unsupported-model")
        outcome = "crashed" if crashed else "late" if set(stages) & set(COSTLY_STAGES) else "refused"
        if crashed:
            logging.getLogger(__name__).warning("%s in %s", model.name, containers[0], exc_info=True)
        return [{**rows[containers[0]], "outcome": outcome, "note": failure.message}]
    by_recipe = {parse_recipe(recipe).canonical: container for container, recipe in RECIPES.items()}
    for refused in made.refused:
        outcome = "late" if refused.message in late else "refused"
        rows[by_recipe[refused.recipe]] |= {"outcome": outcome, "note": refused.message}
    for variant in made.variants:
        container = by_recipe[variant.recipe]
        rows[container] |= finished(variant, container, model, output / "verification.safetensors")
    return list(rows.values())


def finished(variant: QuantizedVariant, container: str, model: Path, verification: Path) -> dict[str, Any]:
    """What is told of a finished variant."""
    source = inspect_snapshot(model).shapes
    total = sum(torch.Size(shape).numel() for shape in source.values())
    found = {
        "outcome": "finished",
        "folder": str(variant.folder),
        "verification": str(verification),
        "manifestKl": variant.manifest.verification.kl_nats,
        "share": sum(layer.shape[0] * layer.shape[1] for layer in variant.manifest.layers) / total,
        "kept": sorted({weight.reason for weight in variant.manifest.unquantized}),
        "unaccounted": unaccounted(variant, container, source),
    }
    engine = {"compressed-tensors": "transformers", "gptq": "plain-gptq"}.get(container)
    if engine is None:
        return found
    try:
        return {**found, **engine_kl(engine, variant.folder, verification)}
    except Exception as error:
        logging.getLogger(__name__).warning("%s in %s", model.name, engine, exc_info=True)
        return {
            **found,
            "outcome": "wrong",
            "note": f"{engine} does not open it: {type(error).__name__}: {error}"[:600],
        }


def one_kind(kind: str, folder: Path, containers: list[str]) -> dict[str, Any]:
    """All containers of one kind."""
    work = folder / kind
    shutil.rmtree(work, ignore_errors=True)
    started = time.monotonic()
    try:
        model = tiny_architectures.save_tiny_model(kind, work / "model", dtype=torch.float32)
    except Exception as error:
        return {"kind": kind, "unmade": f"{type(error).__name__}: {error}"[:400], "rows": []}
    rows = quantized_rows(model, containers, work / "all")
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
