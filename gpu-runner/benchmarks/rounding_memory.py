"""Peak host memory of the rounding stage, beyond the loaded model, against the largest layer's factors.

A Llama with random weights is written, its sketch is made of random samples (only sizes matter here), and the rounding
stage runs in a process of its own, which reads the kernel's own high-water mark (Linux). ``workingBytes`` are the most
that the process held above what it held with the model loaded; ``ratio`` is that by the bytes of the largest layer's
two float32 factors.

    python benchmarks/rounding_memory.py --json
    python benchmarks/rounding_memory.py --widths 2048 --linears up_proj down_proj --workers 1 --json
"""

from __future__ import annotations

import argparse
import ctypes
import json
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import psutil
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from yaqa_runner.calibration.tokens import TokenSet
from yaqa_runner.machine.cores import available_cores
from yaqa_runner.model.linears import LinearLayer
from yaqa_runner.model.load import load_source_model
from yaqa_runner.model.snapshot import inspect_snapshot
from yaqa_runner.pipeline.plan import plan_recipe
from yaqa_runner.pipeline.round_recipes import RecipeRounder
from yaqa_runner.protocol.recipes import parse_recipe
from yaqa_runner.rounding.settings import RoundingSettings
from yaqa_runner.sketches.settings import SketchSettings, sketch_key
from yaqa_runner.sketches.store import FreshLayer, SketchedLayer, SketchWriter, block_file, open_sketch

SETTINGS = SketchSettings("a", 1, 0)
KEY = sketch_key("0" * 64, "0" * 64, SETTINGS)


def make(folder: Path, width: int, intermediate: int, blocks: int) -> None:
    """The model and its sketch."""
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=width,
        intermediate_size=intermediate,
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


def measure(folder: Path, recipe: str, workers: int, linears: list[str]) -> dict[str, object]:
    """Load, note what that takes, round, note the peak."""
    source = load_source_model(inspect_snapshot(folder / "model"), torch.device("cpu"))
    planned = plan_recipe(parse_recipe(recipe), folder / "model", source)
    sketch = open_sketch(folder / "sketch", KEY)
    layers = [layer for layer in source.linears if not linears or layer.name.rpartition(".")[2] in linears]

    def run(some: list[LinearLayer]) -> None:
        settings = RoundingSettings(sigma_input=0.01, sigma_output=0.1, workers=workers)
        RecipeRounder(some, sketch, settings, folder / "codes").round([planned])

    # Compiled kernels and thread pools are not the layers' memory, and the model may be a mapped file not read so far.
    run([min(source.linears, key=lambda layer: layer.rows * layer.columns)])
    for parameter in source.model.parameters():
        parameter.sum()
    give_all_back()
    loaded = psutil.Process().memory_info().rss
    clear_high_water_mark()
    started = time.perf_counter()
    run(layers)
    seconds = time.perf_counter() - started
    working = high_water_mark() - loaded
    factors = max(4 * (layer.rows**2 + layer.columns**2) for layer in layers)
    return {
        "recipe": recipe,
        "workers": workers,
        "largestShape": max(((layer.rows, layer.columns) for layer in layers), key=lambda shape: max(shape)),
        "modelBytes": sum(parameter.nbytes for parameter in source.model.parameters()),
        "loadedBytes": loaded,
        "workingBytes": working,
        "largestFactorsBytes": factors,
        "ratio": round(working / factors, 3),
        "seconds": round(seconds, 1),
    }


def give_all_back() -> None:
    """What the C library keeps of freed memory would hide as much of what comes (glibc)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def clear_high_water_mark() -> None:
    """Forget the peak so far (Linux)."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def high_water_mark() -> int:
    """Most bytes resident since the last clearing."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")))


def measured_apart(folder: Path, recipe: str, workers: int, linears: list[str]) -> dict[str, object]:
    """``measure`` in a process of its own."""
    command = [sys.executable, __file__, "--measure", str(folder), "--recipe", recipe]
    command += ["--workers", str(workers), "--linears", *linears]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="+", default=[1024])
    parser.add_argument("--intermediate", type=int, help="width inside the feed-forward layers; 2.75 times the others")
    parser.add_argument("--blocks", type=int, default=1)
    parser.add_argument("--recipe", default="w4a16,tune=off")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="layers in flight; one uses all cores")
    parser.add_argument("--linears", nargs="*", default=[], help="only those, as up_proj; all when left out")
    parser.add_argument("--json", action="store_true", help="end with one JSON line")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure is not None:
        print(json.dumps(measure(arguments.measure, arguments.recipe, arguments.workers[0], arguments.linears)))
        return
    rows: list[dict[str, object]] = []
    for width in arguments.widths:
        with tempfile.TemporaryDirectory() as folder:
            make(Path(folder), width, arguments.intermediate or width * 11 // 4 // 256 * 256, arguments.blocks)
            for workers in arguments.workers:
                found = measured_apart(Path(folder), arguments.recipe, workers, arguments.linears)
                rows.append({"width": width, "blocks": arguments.blocks, "linears": arguments.linears or None, **found})
                shown = {name: value for name, value in rows[-1].items() if not name.endswith("Bytes")}
                sizes = {name: value for name, value in rows[-1].items() if name.endswith("Bytes")}
                print(
                    *(f"{name} {value}" for name, value in shown.items()),
                    *(
                        f"{name.removesuffix('Bytes')} {int(str(value)) / 2**20:.1f} MiB"
                        for name, value in sizes.items()
                    ),
                    sep="  ",
                    flush=True,
                )
    if arguments.json:
        device = f"cpu, {available_cores()} cores, {platform.machine()}, torch {torch.__version__}"
        print(json.dumps({"rows": rows, "device": device, "date": datetime.now(UTC).date().isoformat()}))


if __name__ == "__main__":
    main()
