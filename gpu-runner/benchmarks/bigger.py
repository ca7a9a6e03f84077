"""The sketch of a model that is larger than the memory allowed, killed on the way, held to the unlimited run's.

A Llama with random weights is written as bfloat16; computed in float32 it has ``weightsBytes``. ``yaqa-runner sketch``
then runs in a memory control group of ``limitBytes`` (version 1 or 2, made here, so this wants root), is killed each
time it has finished some more blocks, and goes on. The result must be the files of a run without a limit, byte by byte.
``peakBytes`` is the most that the limited process had resident, mapped files included. Without control groups it says
``skipped``.

    python benchmarks/bigger.py --json
    python benchmarks/bigger.py --weights 6e8 --kills 2 --json
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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

DEMO = Path(__file__).resolve().parents[2] / "demo"
WIDTH = 1024
INTERMEDIATE = 2048
GROUPS = Path("/sys/fs/cgroup")
POLL_SECONDS = 0.05


def make(folder: Path, weights_bytes: float) -> int:
    """The model with the demo's tokenizer; its bytes as float32."""
    tokenizer = AutoTokenizer.from_pretrained(DEMO / "model")
    block = WIDTH * WIDTH * 5 // 2 + 3 * WIDTH * INTERMEDIATE
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=INTERMEDIATE,
        num_hidden_layers=max(2, -(-int(weights_bytes) // (4 * block))),
        num_attention_heads=WIDTH // 64,
        num_key_value_heads=WIDTH // 256,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(folder, max_shard_size="200MB")
    tokenizer.save_pretrained(folder)
    elements: int = sum(parameter.numel() for parameter in model.parameters())
    return 4 * elements


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
            folder.rmdir()
        return
    yield None


def start(model: Path, output: Path, arguments: argparse.Namespace, members: Path | None) -> subprocess.Popen[str]:
    """``yaqa-runner sketch``, in the control group where there is one."""
    command = [sys.executable, "-m", "yaqa_runner", "sketch", str(model), "--output", str(output)]
    command += ["--calibration", str(DEMO / "text" / "calibration-prose.txt"), "--threads", str(arguments.threads)]
    for name in ("sequences", "length", "iterations"):
        command += [f"--{name}", str(getattr(arguments, name))]

    def enter() -> None:
        if members is not None:
            members.write_text(str(os.getpid()), encoding="ascii")

    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=enter)


def resident_bytes(process: int) -> int:
    """Most bytes that ``process`` had resident so far; 0 when it is gone."""
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")), 0)


def watch(process: subprocess.Popen[str], partial: Path, blocks: int) -> tuple[bool, int]:
    """Kill ``process`` once ``blocks`` are finished; whether that was needed, and the most it had resident."""
    peak = 0
    while process.poll() is None:
        peak = max(peak, resident_bytes(process.pid))
        if len(list(partial.glob("block-*.json"))) >= blocks:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            return True, peak
        time.sleep(POLL_SECONDS)
    _, errors = process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"the sketch ended with exit code {process.returncode}:\n{errors[-4000:]}")
    return False, peak


def limited(
    model: Path, output: Path, blocks: int, arguments: argparse.Namespace, members: Path
) -> tuple[int, int, float]:
    """Kills that it took, the peak and the seconds of the run under the limit."""
    partial = output.with_name(output.name + ".partial")
    peak, kills, started = 0, 0, time.perf_counter()
    while True:
        wanted = blocks * (kills + 1) // (arguments.kills + 1) if kills < arguments.kills else blocks + 1
        killed, seen = watch(start(model, output, arguments, members), partial, wanted)
        peak = max(peak, seen)
        if not killed:
            return kills, peak, time.perf_counter() - started
        kills += 1
        print(f"killed with {len(list(partial.glob('block-*.json')))} of {blocks} blocks finished", flush=True)


def files_of(sketch: Path) -> dict[str, object]:
    """Size and hash of every file, and the factors' evidence, as ``sketch.json`` has them."""
    record = json.loads((sketch / "sketch.json").read_text(encoding="utf-8"))
    return {"files": record["files"], "layers": record["layers"]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=float, default=2e9, help="bytes of float32 weights")
    parser.add_argument("--limit", type=float, default=1.2e9, help="bytes of the control group")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--sequences", type=int, default=8)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--iterations", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="end with one JSON line")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, control_group(int(arguments.limit)) as members:
        if members is None:
            print(json.dumps({"skipped": "no memory control group can be made here"}))
            return 0
        folder = Path(scratch)
        size = make(folder / "model", arguments.weights)
        blocks = json.loads((folder / "model" / "config.json").read_text(encoding="utf-8"))["num_hidden_layers"]
        print(f"{size / 1e9:.2f} GB of weights in {blocks} blocks, {arguments.limit / 1e9:.2f} GB allowed", flush=True)
        kills, peak, seconds = limited(folder / "model", folder / "limited", blocks, arguments, members)
        print(f"under the limit: {seconds:.0f} s, peak {peak / 1e9:.2f} GB", flush=True)
        started = time.perf_counter()
        _, free_peak = watch(start(folder / "model", folder / "free", arguments, None), folder / "none", blocks + 1)
        print(f"without: {time.perf_counter() - started:.0f} s, peak {free_peak / 1e9:.2f} GB", flush=True)
        equal = files_of(folder / "limited") == files_of(folder / "free")
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
