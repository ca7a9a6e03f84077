"""Does with each folder what a run does before it computes: look, load the configuration, tokenizer and model, ask it.

``load_each.py CASES.json``: a list of ``{name, folder, seconds, mebibytes}``. Each is done by a process of its own,
which is ended at its bound of processor time or memory (beyond what importing PyTorch takes). One JSON object a line.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import torch
from yaqa_runner.evaluate.hard_texts import tokenizer_record
from yaqa_runner.model.load import load_source_model, load_tokenizer
from yaqa_runner.model.snapshot import inspect_snapshot, link_snapshot
from yaqa_runner.protocol.failures import as_failure

#: What somebody's pattern may take its time over.
LONG = "a" * 40 + "! " + "word " * 40
#: A process that waits takes no processor time: it is ended after so many times its bound.
PATIENCE = 20
PAGE = os.sysconf("SC_PAGE_SIZE")


def do(folder: Path, work: Path) -> dict[str, str]:
    """What becomes of the model in ``folder``."""
    try:
        snapshot = inspect_snapshot(folder)
        link_snapshot(snapshot, work / "linked")
        tokenizer = load_tokenizer(snapshot)
        if tokenizer is not None:
            tokenizer(LONG)
            tokenizer_record(tokenizer)
        model = load_source_model(snapshot, torch.device("cpu"))
        logits = model.logits(torch.arange(8)[None] % 100)
        if not torch.isfinite(logits).all():
            return {"outcome": "accepted", "message": "its logits are not finite"}
        return {"outcome": "accepted", "message": ""}
    except BaseException as error:  # noqa: BLE001
        failure = as_failure(error)
        return {
            "outcome": "refused",
            "code": failure.code,
            "message": failure.message[:300],
        }


def resident(pid: int) -> int:
    """Bytes of memory that ``pid`` holds; 0 when it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
    except (OSError, IndexError):
        return 0


def taken(pid: int) -> float:
    """Seconds of processor time that ``pid`` has taken."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def watch(case: dict[str, object], work: Path) -> dict[str, object]:
    """Do one case in a child, and end it at its bounds."""
    reading, writing = os.pipe()
    base = resident(os.getpid())
    started = time.monotonic()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        work.mkdir(parents=True)
        os.write(writing, json.dumps(do(Path(str(case["folder"])), work)).encode())
        os._exit(0)
    os.close(writing)
    ended: dict[str, object] | None = None
    peak = 0
    bound = float(str(case["seconds"]))
    while True:
        done, status, usage = os.wait4(pid, os.WNOHANG)
        if done:
            break
        peak = max(peak, resident(pid) - base)
        if ended is None and peak > float(str(case["mebibytes"])) * 2**20:
            ended = {"outcome": "memory"}
        if ended is None and (
            taken(pid) > bound or time.monotonic() - started > PATIENCE * bound
        ):
            ended = {"outcome": "time"}
        if ended is not None:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
    with os.fdopen(reading, "rb") as stream:
        said = stream.read()
    if ended is None:
        ended = (
            json.loads(said)
            if said
            else {"outcome": "died", "message": f"status {status}"}
        )
    return {
        "name": case["name"],
        **ended,
        "seconds": round(usage.ru_utime + usage.ru_stime, 2),
        "mebibytes": round(peak / 2**20),
    }


def main() -> None:
    """Do all cases."""
    torch.set_num_threads(1)
    path = Path(sys.argv[1])
    for index, case in enumerate(json.loads(path.read_text(encoding="utf-8"))):
        sys.stdout.write(json.dumps(watch(case, path.parent / f"work-{index}")) + "\n")
        sys.stdout.flush()


main()
