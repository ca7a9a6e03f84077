"""Peak host memory of the rounding stage, beyond the loaded model, against the largest layer's factors.

A Llama of a few blocks with random weights is written, its sketch is made of random samples (only sizes matter here),
and the rounding stage runs in a process of its own, which reads the kernel's own high-water mark. ``ratio`` is the
peak above what the loaded model takes, less the scales that the stage hands on, by the bytes of the largest
layer's two float32 factors.

    python benchmarks/rounding_memory.py --width 1024 --json
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from yaqa_runner.calibration.tokens import TokenSet
from yaqa_runner.model.load import load_source_model
from yaqa_runner.model.snapshot import inspect_snapshot
from yaqa_runner.pipeline.rounding_stage import RoundedRecipe, round_recipes
from yaqa_runner.pipeline.run_job import plan_recipes
from yaqa_runner.protocol.recipes import parse_recipe
from yaqa_runner.sketch.settings import SketchSettings, sketch_key
from yaqa_runner.sketch.store import FreshLayer, SketchedLayer, SketchWriter, block_file, open_sketch

SETTINGS = SketchSettings("a", 1, 0)
KEY = sketch_key("0" * 64, "0" * 64, SETTINGS)


def make(folder: Path, width: int, blocks: int) -> None:
    """The model and its sketch."""
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=width,
        intermediate_size=width * 11 // 4 // 256 * 256,
        num_hidden_layers=blocks,
        num_attention_heads=width // 64,
        num_key_value_heads=width // 128,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder / "model")
    source = load_source_model(inspect_snapshot(folder / "model"), torch.device("cpu"))
    writer = SketchWriter(folder / "sketch", KEY)
    generator = torch.Generator().manual_seed(0)
    for block in range(blocks):
        fresh = []
        for layer in source.linears:
            if layer.block != block:
                continue
            factors = [
                (samples := torch.randn(size + 8, size, generator=generator)).T @ samples / size
                for size in (layer.columns, layer.rows)
            ]
            entry = SketchedLayer(
                name=layer.name,
                shape=(layer.rows, layer.columns),
                block=block,
                file=block_file(block),
                second_moment=layer.name,
                tokens=1,
                effective_rank_input=1.0,
                effective_rank_output=1.0,
                cosine_similarity=None,
            )
            fresh.append(FreshLayer(entry, factors[0], factors[1], factors[0]))
        writer.write_block(block, fresh)
    writer.finish(SETTINGS, "0" * 64, TokenSet(torch.zeros(1, 8, dtype=torch.int64)), list(range(blocks)))


def held_bytes(rounded: RoundedRecipe) -> int:
    """Bytes of the grids that the stage hands on, its codes being in files; shared tensors count once."""
    tensors = {}
    for linears in rounded.linears.values():
        for linear in linears.values():
            grid = linear.grid
            for tensor in (grid.scale, grid.offset, *grid.stored.values()):
                tensors[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
    return sum(tensors.values())


def measure(folder: Path, recipe: str, workers: int) -> dict[str, object]:
    """Load, note what that takes, round, note the peak."""
    source = load_source_model(inspect_snapshot(folder / "model"), torch.device("cpu"))
    (planned,) = plan_recipes([parse_recipe(recipe)], folder / "model", source)
    sketch = open_sketch(folder / "sketch", KEY)
    # Compiled kernels and thread pools are not the layers' memory.
    first = min(source.linears, key=lambda layer: layer.rows * layer.columns)
    nothing = (lambda *rest: None, lambda *rest: None, lambda: None, lambda *rest: None)
    round_recipes([first], [planned], sketch, 0.01, 0.1, workers, folder / "codes", *nothing)
    loaded = psutil.Process().memory_info().rss
    clear_high_water_mark()
    rounded = round_recipes(source.linears, [planned], sketch, 0.01, 0.1, workers, folder / "codes", *nothing)
    peak = high_water_mark()
    factors = max(4 * (layer.rows**2 + layer.columns**2) for layer in source.linears)
    held = held_bytes(rounded[planned.recipe.canonical])
    return {
        "recipe": recipe,
        "workers": workers,
        "modelBytes": sum(parameter.nbytes for parameter in source.model.parameters()),
        "loadedBytes": loaded,
        "peakBytes": peak,
        "handedOnBytes": held,
        "largestFactorsBytes": factors,
        "ratio": (peak - loaded - held) / factors,
    }


def clear_high_water_mark() -> None:
    """Forget the peak so far (Linux)."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def high_water_mark() -> int:
    """Most bytes resident since the last clearing, or since the start where the kernel tells no better."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--recipe", default="w4a16,tune=off")
    parser.add_argument("--workers", type=int, default=1, help="layers in flight; one uses all cores")
    parser.add_argument("--json", action="store_true", help="end with one JSON line")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure is not None:
        print(json.dumps(measure(arguments.measure, arguments.recipe, arguments.workers)))
        return
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), arguments.width, arguments.blocks)
        command = [sys.executable, __file__, "--measure", folder, "--recipe", arguments.recipe]
        command += ["--workers", str(arguments.workers)]
        found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
    for name, value in found.items():
        print(f"{name:>22}: {value / 2**20:.1f} MiB" if name.endswith("Bytes") else f"{name:>22}: {value}")
    if arguments.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
