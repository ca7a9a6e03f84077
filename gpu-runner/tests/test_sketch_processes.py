"""Sketches across processes: split by ``torchrun``, killed and taken up again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tiny_checkpoints import save_checkpoint

from yaqa_runner.sketches.store import Sketch, open_sketch


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("models") / "llama", "llama")


def start(launcher: list[str], model: Path, output: Path, *more: str, sequences: int = 10) -> subprocess.Popen[str]:
    arguments = ["-m", "yaqa_runner", "sketch", str(model), "--sequences", str(sequences), "--length", "16"]
    arguments += ["--iterations", "3", "--threads", "1", "--calibration", str(model / "LICENSE"), *more]
    return subprocess.Popen(
        [sys.executable, *launcher, *arguments, "--output", str(output)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[1],
    )


def close(left: torch.Tensor, right: torch.Tensor) -> bool:
    return torch.allclose(left, right, rtol=1e-3, atol=1e-5 * float(right.abs().max()))


def assert_close(one: Sketch, other: Sketch) -> None:
    assert one.key == other.key
    assert one.layers.keys() == other.layers.keys()
    for name in one.layers:
        assert one.layers[name].tokens == other.layers[name].tokens
        mine, theirs = one.factors(name), other.factors(name)
        for left, right in ((mine.input, theirs.input), (mine.output, theirs.output)):
            assert close(left.whole(), right.whole()), name


def test_two_processes_give_the_sketch_of_one(model: Path, tmp_path: Path) -> None:
    alone = start([], model, tmp_path / "alone")
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    # Little memory makes windows within blocks, each with half steps that are reduced on their own.
    pair = start(launcher, model, tmp_path / "pair", "--memory", "1", "--json")
    refused = subprocess.run(
        [sys.executable, "-m", "yaqa_runner", "quantize", str(model), "--recipe", "w4a16", "--output", "nowhere"],
        env={**os.environ, "RANK": "0", "WORLD_SIZE": "2"},
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[1],
    )
    _, errors = alone.communicate(timeout=240)
    assert alone.returncode == 0, errors
    assert "memory plan: one sweep over 2 blocks" in errors and "between blocks in memory" in errors
    stdout, errors = pair.communicate(timeout=240)
    assert pair.returncode == 0, errors
    assert len([line for line in stdout.splitlines() if line.startswith("{")]) == 1
    assert json.loads(stdout)["ok"]
    assert errors.count("memory plan: one sweep over 2 blocks") == 1 and "between blocks on disk" in errors
    assert refused.returncode == 2 and "--reuse" in refused.stderr
    assert_close(open_sketch(tmp_path / "pair"), open_sketch(tmp_path / "alone"))


def test_a_killed_sketch_goes_on_and_ends_as_if_it_had_not_been(model: Path, tmp_path: Path) -> None:
    whole = start([], model, tmp_path / "whole", "--memory", "1", sequences=60)
    killed = start([], model, tmp_path / "sketch", "--memory", "1", sequences=60)
    state = tmp_path / "sketch.partial" / "block-0001.json"
    deadline = time.monotonic() + 240
    while not state.exists() and killed.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    killed.kill()
    killed.communicate(timeout=60)
    assert killed.returncode == -9
    assert state.exists() and not (tmp_path / "sketch").exists()
    again = start([], model, tmp_path / "sketch", "--memory", "1", "--verbose", sequences=60)
    _, errors = again.communicate(timeout=240)
    assert again.returncode == 0, errors
    assert "resuming the sketch with" in errors
    assert whole.communicate(timeout=240) and whole.returncode == 0
    assert open_sketch(tmp_path / "sketch").record.files == open_sketch(tmp_path / "whole").record.files
