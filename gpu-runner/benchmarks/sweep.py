"""The sketch by one sweep over the blocks, against the whole model's passes that it replaces: seconds and peak memory.

Each way runs in a process of its own on the same tokens, with the same memory to plan for, and leaves a sketch; the
largest relative difference of two factors is told. ``passSeconds`` is what forward and backward passes take, without
what is made of their inputs and gradients, which is the same either way. Seconds are the processor's, of all threads,
so that others on the machine do not count; ``wallSeconds`` are the clock's.

    python benchmarks/sweep.py --json
    python benchmarks/sweep.py --models demo --sequences 32 --json
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from real_models import real_model
from rounding_memory import clear_high_water_mark, give_all_back, high_water_mark

from yaqa_runner.calibration.tokens import TokenSet
from yaqa_runner.machine.cores import available_cores
from yaqa_runner.model.load import SourceModel, load_source_model
from yaqa_runner.model.snapshot import inspect_snapshot
from yaqa_runner.monitor import Monitor
from yaqa_runner.sketches import sweep
from yaqa_runner.sketches.compute import SketchInputs, WholePasses
from yaqa_runner.sketches.settings import SketchSettings
from yaqa_runner.sketches.store import open_sketch
from yaqa_runner.sketches.sweep import BlockPasses
from yaqa_runner.sketches.take import PlannedSketch, plan_sketch

DEMO = Path(__file__).resolve().parents[2] / "demo"
WAYS = ("whole", "sweep")


class PassSeconds:
    """Adds up the processor's seconds of passes, without those of whoever looks at them."""

    def __init__(self) -> None:
        self.total = 0.0
        self._watched = 0.0

    def time(self, owner: Any, name: str, visited: bool) -> None:
        """Count what ``owner.name`` takes; with ``visited``, without what its last argument, a visitor, does."""
        timed = getattr(owner, name)

        def run(*values: Any) -> Any:
            watched = self._watched
            arguments = (*values[:-1], self._watching(values[-1])) if visited else values
            started = time.process_time()
            found = timed(*arguments)
            self.total += time.process_time() - started - (self._watched - watched)
            return found

        setattr(owner, name, run)

    def _watching(self, visit: Callable[..., None]) -> Callable[..., None]:
        def watched(*values: Any) -> None:
            started = time.process_time()
            visit(*values)
            self._watched += time.process_time() - started

        return watched


def tokens_of(folder: Path, source: SourceModel, sequences: int, length: int) -> TokenSet:
    """Equal parts of the calibration texts beside the model."""
    assert source.tokenizer is not None
    texts = sorted((folder if folder != DEMO / "model" else DEMO / "text").glob("calibration-*.txt"))
    rows: list[torch.Tensor] = []
    for number, path in enumerate(texts):
        wanted = sequences * (number + 1) // len(texts) - sequences * number // len(texts)
        # Eight characters a token are more than any of these texts has.
        text = path.read_text(encoding="utf-8")[: 8 * length * wanted]
        ids = source.tokenizer(text, add_special_tokens=False, verbose=False).input_ids[: wanted * length]
        rows.append(torch.tensor(ids).reshape(wanted, length))
    return TokenSet(torch.cat(rows))


def measure(way: str, folder: Path, output: Path, arguments: argparse.Namespace) -> dict[str, object]:
    """Take the sketch one way; seconds and bytes."""
    torch.set_num_threads(arguments.threads)
    source = load_source_model(inspect_snapshot(folder), torch.device("cpu"))
    tokens = tokens_of(folder, source, arguments.sequences, arguments.length)
    inputs = SketchInputs(source, "0" * 64, tokens, SketchSettings(arguments.kind, arguments.iterations, 0))
    planned = plan_sketch(inputs, directory=output, memory_bytes=arguments.memory)
    if way == "whole":
        planned = PlannedSketch(inputs, None, arguments.memory)
    seconds = PassSeconds()
    if way == "whole":
        for name in ("inputs", "gradients"):
            seconds.time(WholePasses, name, visited=True)
    else:
        for name in ("inputs", "gradients"):
            seconds.time(BlockPasses, name, visited=True)
        seconds.time(sweep, "_forward", visited=False)
    # The model may be a mapped file not read so far.
    for parameter in source.model.parameters():
        parameter.sum()
    give_all_back()
    clear_high_water_mark()
    processor, wall = time.process_time(), time.perf_counter()
    planned.take(directory=output, monitor=Monitor(warn=lambda code, message: print(code, message, file=sys.stderr)))
    return {
        "way": way,
        "plan": planned.describe(),
        "seconds": round(time.process_time() - processor, 1),
        "passSeconds": round(seconds.total, 1),
        "wallSeconds": round(time.perf_counter() - wall, 1),
        "peakBytes": high_water_mark(),
        "modelBytes": source.parameter_bytes,
    }


def largest_difference(one: Path, other: Path) -> float:
    """Of two sketches' factors, the largest relative one."""
    left, right = open_sketch(one, verify=False), open_sketch(other, verify=False)
    worst = 0.0
    for name in left.layers:
        for part in ("input", "output", "second_moment"):
            found, expected = (getattr(sketch.factors(name), part).whole() for sketch in (left, right))
            worst = max(worst, float((found - expected).norm() / expected.norm()))
    return worst


def compared(model: str, arguments: argparse.Namespace) -> dict[str, object]:
    """Both ways, each in a process of its own."""
    folder = DEMO / "model" if model == "demo" else real_model(model)
    with tempfile.TemporaryDirectory() as scratch:
        rows: list[dict[str, Any]] = []
        for way in WAYS:
            command = [sys.executable, __file__, "--measure", way, str(folder), str(Path(scratch) / way)]
            for name in ("sequences", "length", "kind", "iterations", "threads"):
                command += [f"--{name}", str(getattr(arguments, name))]
            if arguments.memory is not None:
                command += ["--memory", str(arguments.memory)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            rows.append(json.loads(done.stdout.splitlines()[-1]))
            print(
                f"{model:>10} {way:>6} {rows[-1]['seconds']:8.1f} s, {rows[-1]['passSeconds']:8.1f} s of passes,"
                f" peak {rows[-1]['peakBytes'] / 2**30:.2f} GiB",
                flush=True,
            )
        difference = largest_difference(Path(scratch) / "sweep", Path(scratch) / "whole")
    whole, swept = rows
    shares = {
        "secondsShare": round(swept["seconds"] / whole["seconds"], 3),
        "passSecondsShare": round(swept["passSeconds"] / whole["passSeconds"], 3),
        "peakShare": round(swept["peakBytes"] / whole["peakBytes"], 3),
    }
    print(f"{model:>10}  {shares}  largest difference {difference:.1e}", flush=True)
    return {"model": model, "ways": rows, **shares, "largestDifference": difference}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["demo", "smollm2"])
    parser.add_argument("--sequences", type=int, default=32)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--kind", choices=("a", "b"), default="a")
    parser.add_argument("--iterations", type=int, default=6)
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--memory", type=int, help="host bytes to plan for; all when left out")
    parser.add_argument("--json", action="store_true", help="end with one JSON line")
    parser.add_argument("--measure", nargs=3, metavar=("WAY", "MODEL", "OUTPUT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure is not None:
        way, folder, output = arguments.measure
        print(json.dumps(measure(way, Path(folder), Path(output), arguments)))
        return
    models = [compared(model, arguments) for model in arguments.models]
    if arguments.json:
        about = {name: getattr(arguments, name) for name in ("sequences", "length", "kind", "iterations", "threads")}
        device = f"cpu, {available_cores()} cores, {platform.machine()}, torch {torch.__version__}"
        print(json.dumps({"models": models, **about, "device": device, "date": datetime.now(UTC).date().isoformat()}))


if __name__ == "__main__":
    main()
