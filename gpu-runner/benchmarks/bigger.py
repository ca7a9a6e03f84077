"""A job of a model that is larger than the memory allowed, killed on the way, held to the unlimited run's.

A Llama with random weights is written as bfloat16; computed in float32 it has ``weightsBytes``. ``yaqa-runner run``
then sketches it, rounds it to the recipes, writes and measures them in a memory control group of ``limitBytes``
(version 1 or 2, made here, so this wants root), tunes its scales and measures the files, with all processes that it
starts. It is killed in the sketch, while rounding, tuning and measuring, and goes on. The other run has no control
group, but is told of as little memory, so that both choose the same steps. Sketch and files must be equal byte by byte,
and the measured KL within 1e-6. ``peakBytes`` is the most that the limited process had resident, mapped files included.
With ``--stage sketch`` nothing is rounded. Without control groups it says ``skipped``.

    python benchmarks/bigger.py --json
    python benchmarks/bigger.py --weights 6e7 --told 1e8 --width 256 --kills 4 --json
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from yaqa_runner.model.snapshot import file_sha256
from yaqa_runner.protocol.recipes import parse_recipe

DEMO = Path(__file__).resolve().parents[2] / "demo"
TEXTS = DEMO / "text"
JOB = "6f0c9f0e-1a70-4b5e-9d7b-0d8f6f4f9b11"
WEIGHT_SUFFIXES = (".gguf", ".safetensors", ".onnx", ".onnx_data")
GROUPS = Path("/sys/fs/cgroup")
POLL_SECONDS = 0.05
KL_TOLERANCE = 1e-6
RECIPES = ["gguf:q4_0,refine=0", "gptq:4,group=32,refine=0", "w4a16,group=32,refine=0"]
STAGES = ("sketch", "round", "tune", "evaluate")


def make(folder: Path, weights_bytes: float, width: int) -> int:
    """The model with the demo's tokenizer; its bytes as float32."""
    tokenizer = AutoTokenizer.from_pretrained(DEMO / "model")
    block = width * width * 5 // 2 + 6 * width * width
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=max(2, -(-int(weights_bytes) // (4 * block))),
        num_attention_heads=width // 64,
        num_key_value_heads=width // 256,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(folder, max_shard_size="200MB")
    tokenizer.save_pretrained(folder)
    forget_cached(folder)
    elements: int = sum(parameter.numel() for parameter in model.parameters())
    return 4 * elements


def forget_cached(folder: Path) -> None:
    """Have the system read the files of ``folder`` anew: pages of a file count for the group that first reads them, and
    those that whoever wrote it left behind would be memory that the limited run has for nothing."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@contextmanager
def control_group(limit: int) -> Iterator[Path | None]:
    """A control group of ``limit`` bytes of memory, by the file that takes members; ``None`` where none can be made."""
    name = f"yaqa-bigger-{os.getpid()}"
    for root, setting in ((GROUPS / "memory", "memory.limit_in_bytes"), (GROUPS, "memory.max")):
        folder = root / name
        try:
            folder.mkdir()
        except OSError:
            continue
        try:
            (folder / setting).write_text(str(limit), encoding="ascii")
        except OSError:
            folder.rmdir()
            continue
        try:
            yield folder / "cgroup.procs"
        finally:
            remove_group(folder)
        return
    yield None


def remove_group(folder: Path) -> None:
    """Remove the control group once the processes in it, which were killed with their parent, are gone."""
    for _ in range(100):
        for process in (folder / "cgroup.procs").read_text(encoding="ascii").split():
            os.kill(int(process), signal.SIGKILL)
        try:
            return folder.rmdir()
        except OSError:
            time.sleep(POLL_SECONDS)


def specification(folder: Path, output: Path, arguments: argparse.Namespace) -> Path:
    """The job's file."""
    size = {"sequences": arguments.sequences, "length": arguments.length}
    variants = [
        {"id": str(uuid.uuid5(uuid.UUID(JOB), recipe)), "recipe": parse_recipe(recipe).to_wire()}
        for recipe in arguments.recipes
    ]
    document = {
        "protocol": 1,
        "job": JOB,
        "fence": 1,
        "source": {"repo": "demo/bigger", "revision": "0" * 40, "path": str(folder)},
        "calibration": {"kind": "text", "files": [str(TEXTS / "calibration-prose.txt")], "seed": 0, **size},
        "evaluation": {
            "selection": [{"domain": "prose", "path": str(TEXTS / "selection-prose.txt")}],
            "report": [{"domain": "prose", "path": str(TEXTS / "report-prose.txt")}],
            "sequences": 2,
            "length": arguments.length,
            "verificationSequences": 1,
        },
        "sketch": {"kind": "a", "iterations": arguments.iterations},
        "tuning": {"passes": arguments.passes},
        "variants": variants,
        "staging": {"kind": "directory", "path": str(output)},
        "limits": {
            "threads": arguments.threads,
            "device": "cpu",
            "memoryBytes": int(arguments.told or arguments.limit),
        },
    }
    path = output.with_name(output.name + ".json")
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def start(model: Path, output: Path, arguments: argparse.Namespace, members: Path | None) -> subprocess.Popen[bytes]:
    """``yaqa-runner run``, in the control group where there is one."""
    command = [sys.executable, "-m", "yaqa_runner", "run", str(specification(model, output, arguments))]
    command += ["--out", str(output), *(["--sketch-only"] if arguments.stage == "sketch" else [])]

    def enter() -> None:
        if members is not None:
            members.write_text(str(os.getpid()), encoding="ascii")

    with output.with_name(output.name + ".log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=enter)


def resident_bytes(process: int) -> int:
    """Most bytes that ``process`` had resident so far; 0 when it is gone."""
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")), 0)


class Events:
    """What the job has said since it was started: the stage that it is in, and how far that is."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._read = log.stat().st_size if log.exists() else 0
        self.stage = ""
        self.share = 0.0

    def log_text(self) -> str:
        """The whole log."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def read(self) -> None:
        """Take in what was written since."""
        with self._log.open("rb") as file:
            file.seek(self._read)
            lines = file.read().split(b"\n")
        for line in lines[:-1]:
            self._read += len(line) + 1
            if not line.startswith(b"{"):
                continue
            event = json.loads(line)
            if event.get("event") == "stage" and event["status"] == "started":
                self.stage, self.share = event["stage"], 0.0
            elif event.get("event") == "progress":
                self.stage, self.share = event["stage"], event["done"] / event["total"]


def watch(process: subprocess.Popen[bytes], events: Events, kill_at: tuple[str, float] | None) -> tuple[bool, int]:
    """Kill ``process`` in the stage and at the share of it; whether that was needed, and the most it had resident."""
    peak = 0
    while process.poll() is None:
        peak = max(peak, resident_bytes(process.pid))
        events.read()
        if kill_at is not None and is_past((events.stage, events.share), kill_at):
            process.send_signal(signal.SIGKILL)
            process.wait()
            return True, peak
        time.sleep(POLL_SECONDS)
    if process.returncode != 0:
        log = events.log_text()
        raise RuntimeError(f"the job ended with exit code {process.returncode}:\n{log[-4000:]}")
    return False, peak


def is_past(now: tuple[str, float], place: tuple[str, float]) -> bool:
    """Whether a job that is ``now`` in a stage has come to ``place``, or beyond."""
    order = {name: number for number, name in enumerate(STAGES)}
    if now[0] not in order:
        return False
    return (order[now[0]], now[1]) >= (order[place[0]], place[1])


def kills_of(count: int, stage: str) -> list[tuple[str, float]]:
    """Where a job is killed: half of them in the sketch, the others in rounding, tuning and measuring."""
    if stage == "sketch":
        return [("sketch", (number + 1) / (count + 1)) for number in range(count)]
    later = [("tune", 0.2), ("round", 0.3), ("evaluate", 0.5), ("tune", 0.6), ("round", 0.7)][: count // 2]
    early = [("sketch", (number + 1) / (count - len(later) + 1)) for number in range(count - len(later))]
    return early + sorted(later, key=lambda place: (STAGES.index(place[0]), place[1]))


def limited(model: Path, output: Path, arguments: argparse.Namespace, members: Path) -> tuple[int, int, float]:
    """Kills that it took, the peak and the seconds of the run under the limit."""
    peak, started = 0, time.perf_counter()
    wanted = kills_of(arguments.kills, arguments.stage)
    for kills, place in enumerate([*wanted, None]):
        events = Events(output.with_name(output.name + ".log"))
        killed, seen = watch(start(model, output, arguments, members), events, place)
        peak = max(peak, seen)
        if not killed:
            return kills, peak, time.perf_counter() - started
        print(f"killed at {events.share:.0%} of {events.stage}, peak so far {peak / 1e9:.2f} GB", flush=True)
    raise AssertionError("the last run is not killed")


def result_of(output: Path) -> tuple[dict[str, Any], dict[str, float]]:
    """What has to be equal: the sketch's and the weights' files; and every variant's measured KL."""
    sketch = json.loads((output / "sketch" / "sketch.json").read_text(encoding="utf-8"))
    exact: dict[str, Any] = {"files": sketch["files"], "layers": sketch["layers"]}
    divergences: dict[str, float] = {}
    for path in sorted(output.glob("*/manifest.json")):
        manifest = json.loads(path.read_text(encoding="utf-8"))
        for measured in manifest["evaluation"]["measured"]:
            place = f"{path.parent.name} {measured['quantizer']}"
            divergences[place] = float(measured["report"]["klNats"]["mean"])
        for file in sorted(path.parent.rglob("*")):
            if file.suffix in WEIGHT_SUFFIXES:
                exact[str(file.relative_to(output))] = file_sha256(file)
    return exact, divergences


def is_equal(one: Path, other: Path) -> bool:
    """Whether two runs gave the same."""
    (files, figures), (other_files, other_figures) = result_of(one), result_of(other)
    near = figures.keys() == other_figures.keys() and all(
        abs(figures[name] - other_figures[name]) <= KL_TOLERANCE for name in figures
    )
    return files == other_files and near


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=float, default=2e9, help="bytes of float32 weights")
    parser.add_argument("--limit", type=float, default=1.2e9, help="bytes of the control group")
    parser.add_argument("--told", type=float, help="bytes that the job plans for; those of the group when left out")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--sequences", type=int, default=8)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--iterations", type=int, default=2)
    # Beside other programs two threads wait for each other's turn: eight times as long for small matrices.
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--width", type=int, default=1024, help="hidden size; as many blocks as the bytes take")
    parser.add_argument("--stage", choices=["all", "sketch"], default="all")
    # One set of codes serves all three, rounded and tuned once; refinement takes no more memory and most of the time.
    parser.add_argument("--recipes", nargs="+", default=RECIPES)
    parser.add_argument("--passes", type=int, default=4, help="of the scale tuning; 0 for none")
    parser.add_argument("--json", action="store_true", help="end with one JSON line")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, control_group(int(arguments.limit)) as members:
        if members is None:
            print(json.dumps({"skipped": "no memory control group can be made here"}))
            return 0
        folder = Path(scratch)
        size = make(folder / "model", arguments.weights, arguments.width)
        blocks = json.loads((folder / "model" / "config.json").read_text(encoding="utf-8"))["num_hidden_layers"]
        print(f"{size / 1e9:.2f} GB of weights in {blocks} blocks, {arguments.limit / 1e9:.2f} GB allowed", flush=True)
        kills, peak, seconds = limited(folder / "model", folder / "limited", arguments, members)
        print(f"under the limit: {seconds:.0f} s, peak {peak / 1e9:.2f} GB", flush=True)
        started = time.perf_counter()
        free = start(folder / "model", folder / "free", arguments, None)
        _, free_peak = watch(free, Events(folder / "free.log"), None)
        print(f"without: {time.perf_counter() - started:.0f} s, peak {free_peak / 1e9:.2f} GB", flush=True)
        equal = is_equal(folder / "limited", folder / "free")
    result = {
        "weightsBytes": size,
        "limitBytes": int(arguments.limit),
        "peakBytes": peak,
        "equal": equal,
        "kills": kills,
        "unlimitedPeakBytes": free_peak,
    }
    print(json.dumps(result) if arguments.json else result)
    return 0 if equal and peak <= arguments.limit else 1


if __name__ == "__main__":
    sys.exit(main())
