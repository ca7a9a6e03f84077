"""A job whose sketch is taken on several processes."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
from tiny_checkpoints import save_checkpoint
from tiny_jobs import spec_document

from yaqa_runner.pipeline import spread_sketch as module
from yaqa_runner.pipeline.earlier_sketch import seems_to_serve
from yaqa_runner.pipeline.run_job import run_job
from yaqa_runner.pipeline.spread_sketch import processes_for, spread_sketch
from yaqa_runner.protocol.failures import Interrupted
from yaqa_runner.protocol.interrupt import InterruptFlag
from yaqa_runner.protocol.job_spec import JobSpec, parse_job_spec
from yaqa_runner.protocol.recipes import parse_recipe
from yaqa_runner.protocol.reporter import Reporter, json_line_sink


def job(model: Path, output: Path, **changes: Any) -> dict[str, Any]:
    return spec_document(
        source={"repo": "demo/tiny", "revision": "0" * 40, "path": str(model)},
        variants=[{"id": str(uuid.uuid4()), "recipe": parse_recipe("gguf:q8_0").to_wire()}],
        staging={"kind": "directory", "path": str(output)},
        limits={"threads": 2, "device": "cpu"},
        **changes,
    )


def test_two_processes_take_the_sketch_and_one_makes_the_variants(tmp_path: Path) -> None:
    model = save_checkpoint(tmp_path / "llama", "llama", intermediate_size=128)
    spec = tmp_path / "job.json"
    output = tmp_path / "out"
    calibration = {"kind": "text", "files": [str(model / "LICENSE")], "sequences": 8, "length": 16, "seed": 1}
    spec.write_text(json.dumps(job(model, output, calibration=calibration)))
    done = subprocess.run(
        [sys.executable, "-m", "yaqa_runner", "run", str(spec), "--out", str(output), "--processes", "2"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        cwd=Path(__file__).parents[1],
    )
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["ok"] for event in events if event["event"] == "result"] == [True]
    assert not [event for event in events if event["event"] == "warning" and event["code"] == "sketch-not-spread"]
    told = [(e["status"], e.get("detail")) for e in events if e["event"] == "stage" and e["stage"] == "sketch"]
    assert told == [
        ("started", "on 2 processes"),
        ("finished", "on 2 processes"),
        ("skipped", "it was finished before"),
    ]
    assert any(event["event"] == "progress" and event["stage"] == "sketch" for event in events)
    manifest = json.loads((output / "gguf-q8-0" / "manifest.json").read_text())
    assert manifest["seconds"]["sketch"] > 0 and manifest["sketch"]["reused"] is False


def spread(spec: JobSpec, tmp_path: Path, flag: InterruptFlag, processes: int = 2) -> list[dict[str, Any]]:
    stream = io.StringIO()
    reporter = Reporter(json_line_sink(stream), spec.job, spec.fence)
    spread_sketch(spec, tmp_path / "job.json", tmp_path / "out", processes, reporter, flag)
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_group_that_fails_is_told_of_and_an_interrupted_one_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = parse_job_spec(json.dumps(job(tmp_path, tmp_path / "out")))
    program = tmp_path / "python"
    program.write_text('#!/bin/sh\necho stray; echo \'{"event":"warning","code":"slow","message":"m"}\'; exit 1\n')
    program.chmod(0o755)
    monkeypatch.setattr(module.sys, "executable", str(program))
    events = spread(spec, tmp_path, InterruptFlag())
    assert [event["code"] for event in events if event["event"] == "warning"] == ["slow", "sketch-not-spread"]

    program.write_text("#!/bin/sh\nexec sleep 600\n")
    flag = InterruptFlag()
    flag.set()
    with pytest.raises(Interrupted):
        spread(spec, tmp_path, flag)


def test_nothing_is_started_where_one_process_or_an_earlier_sketch_does(tmp_path: Path) -> None:
    spec = parse_job_spec(json.dumps(job(tmp_path, tmp_path / "out")))
    assert spread(spec, tmp_path, InterruptFlag(), processes=1) == []
    (tmp_path / "out" / "sketch").mkdir(parents=True)
    (tmp_path / "out" / "sketch" / "sketch.json").write_text("{}")
    assert spread(spec, tmp_path, InterruptFlag()) == []
    assert processes_for(spec, None) == 1 and processes_for(spec, 3) == 3


def test_an_earlier_sketch_is_spread_anew_only_where_it_does_not_serve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = save_checkpoint(tmp_path / "llama", "llama", intermediate_size=128)
    text = tmp_path / "text.txt"
    text.write_text("Some Words of a Text, and Some More.\n" * 8, encoding="utf-8")
    calibration = {"kind": "text", "files": [str(text)], "sequences": 4, "length": 16, "seed": 1}
    first = job(model, tmp_path / "first", calibration=calibration)
    stream = io.StringIO()
    parsed = parse_job_spec(json.dumps(first))
    run_job(parsed, tmp_path / "first", Reporter(json_line_sink(stream), parsed.job, parsed.fence), InterruptFlag())

    def spec(**changes: Any) -> JobSpec:
        sketch = {**first["sketch"], "reuse": str(tmp_path / "first")}
        return parse_job_spec(json.dumps({**first, "sketch": sketch, **changes}))

    assert seems_to_serve(spec(), tmp_path)
    assert spread(spec(), tmp_path, InterruptFlag()) == []
    assert not seems_to_serve(spec(calibration={**calibration, "seed": 2}), tmp_path)
    assert not seems_to_serve(spec(sketch={**first["sketch"], "reuse": str(model)}), tmp_path), "there is none"
    tokenizer = json.loads((model / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer["normalizer"] = {"type": "Lowercase"}
    (model / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    monkeypatch.setattr(module.sys, "executable", "/bin/true")
    events = spread(spec(), tmp_path, InterruptFlag())
    assert [event["code"] for event in events if event["event"] == "warning"] == ["sketch-not-reused"]
    assert [event["detail"] for event in events if event["event"] == "stage"][:1] == ["on 2 processes"]
    (model / "tokenizer.json").write_text("{}", encoding="utf-8")
    assert seems_to_serve(spec(), tmp_path), "the run says what is wrong with it"
