"""Remote runs: what the child gets to see, and what becomes of its events."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_jobs import JOB, spec_document

from yaqa_runner.cli.main import main
from yaqa_runner.protocol.failures import InvalidSpec, RunnerFailure
from yaqa_runner.protocol.job_spec import JobSpec, StoredSketch, parse_job_spec
from yaqa_runner.remote.launch import (
    EventRelay,
    RemoteRun,
    _files_of,
    child_environment,
    fetch_sketch,
    place_spec,
    shut_memory,
)


def hub_spec(**changes: Any) -> JobSpec:
    return parse_job_spec(json.dumps(spec_document(staging={"kind": "hub", "repo": "bot/run-1"}, **changes)))


def test_paths_of_the_repo_become_paths_of_this_machine(tmp_path: Path) -> None:
    inputs = tmp_path / "staging" / "inputs"
    (inputs / "sketch").mkdir(parents=True)
    (inputs / "prose.txt").write_text("text")
    spec = hub_spec(
        calibration={"kind": "text", "files": ["inputs/prose.txt"], "sequences": 1, "length": 8, "seed": 0},
        sketch={"kind": "a", "iterations": 2, "sigmaInput": 0, "sigmaOutput": 0, "reuse": "inputs/sketch"},
    )
    placed = place_spec(spec, tmp_path / "staging", tmp_path / "source", tmp_path / "out")
    parse_job_spec(json.dumps(placed))
    assert placed["calibration"]["files"] == [str(inputs / "prose.txt")]
    assert placed["sketch"]["reuse"] == str(inputs / "sketch")
    assert placed["source"]["path"] == str(tmp_path / "source")
    assert placed["staging"] == {"kind": "directory", "path": str(tmp_path / "out")}


def test_the_child_reads_an_adapter_and_its_base(tmp_path: Path) -> None:
    base = {"repo": "demo/base", "revision": "1" * 40}
    spec = hub_spec(source={"repo": "demo/tiny", "revision": "0" * 40, "base": base})
    placed = place_spec(spec, tmp_path, tmp_path / "adapter", tmp_path / "out", tmp_path / "base")
    assert parse_job_spec(json.dumps(placed)).source.base is not None
    read = _files_of(placed, tmp_path / "job.json")
    assert read[:3] == (tmp_path / "job.json", tmp_path / "adapter", tmp_path / "base")


@pytest.mark.parametrize("path", ["/etc/passwd", "inputs/../job.json", "inputs/absent.txt", "job.json", "inputs/link"])
def test_a_spec_cannot_name_files_outside_its_inputs(tmp_path: Path, path: str) -> None:
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    (tmp_path / "job.json").write_text("{}")
    (inputs / "link").symlink_to("/etc/passwd")
    spec = hub_spec(calibration={"kind": "text", "files": [path], "sequences": 1, "length": 8, "seed": 0})
    with pytest.raises(InvalidSpec):
        place_spec(spec, tmp_path, tmp_path, tmp_path / "out")


def test_the_child_sees_no_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "YAQA_STAGING_TOKEN", "GITHUB_TOKEN", "ACTIONS_RUNTIME_TOKEN", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "canary")
    environment = child_environment(tmp_path)
    assert "canary" not in environment.values()
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert environment["HOME"].startswith(str(tmp_path))


def test_compiled_kernels_go_to_the_child_and_none_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = tmp_path / "compiled"
    compiled.mkdir()
    (compiled / "kernel.nbc").write_bytes(b"compiled")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(compiled))
    for run in ("one", "two"):
        work = tmp_path / run
        work.mkdir()
        kernels = Path(child_environment(work)["NUMBA_CACHE_DIR"])
        assert kernels.is_relative_to(work)
        assert [file.name for file in kernels.iterdir()] == ["kernel.nbc"]
        (kernels / "planted.nbc").write_bytes(b"planted")
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    (tmp_path / "three").mkdir()
    assert child_environment(tmp_path / "three")["NUMBA_CACHE_DIR"].startswith(str(tmp_path / "three"))


@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() == 0, reason="skipped: root reads every process's environment"
)
def test_the_child_cannot_read_its_parents_environment() -> None:
    code = "import os; open(f'/proc/{os.getppid()}/environ', 'rb').read()"
    program = (
        "import subprocess, sys\n"
        "from yaqa_runner.remote.launch import shut_memory\n"
        "shut_memory()\n"
        f"sys.exit(subprocess.call([sys.executable, '-c', {code!r}], stderr=subprocess.DEVNULL))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 1


def test_events_are_numbered_and_the_result_is_held_back(capsys: pytest.CaptureFixture[str]) -> None:
    relay = EventRelay()
    relay.take('{"event":"warning","code":"a"}\n')
    relay.take("a stray print\n")
    relay.take('{"no":"event"}\n')
    relay.take('{"event":"result","ok":true}\n')
    printed = capsys.readouterr()
    assert [json.loads(line) for line in printed.out.splitlines()] == [{"event": "warning", "code": "a", "number": 1}]
    assert "a stray print" in printed.err
    assert relay.result == {"event": "result", "ok": True, "number": 2}
    relay.fail(RunnerFailure("internal", "The upload failed.", "Retry."), RemoteRun("bot/run-1", JOB, 1))
    events = [json.loads(line) for line in relay.bytes().splitlines()]
    assert [event["number"] for event in events] == [1, 2]
    assert events[-1]["ok"] is False


def test_without_a_token_the_run_says_which_is_missing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("YAQA_STAGING_TOKEN", raising=False)
    code = main(["remote", "--staging", "bot/run-1", "--job", JOB, "--fence", "1"])
    result = json.loads(capsys.readouterr().out)
    assert code == 2
    assert result["error"]["code"] == "invalid-spec"
    assert "YAQA_STAGING_TOKEN" in result["error"]["message"]


def test_a_hub_spec_needs_the_remote_command(tmp_path: Path) -> None:
    path = tmp_path / "job.json"
    path.write_text(json.dumps(spec_document(staging={"kind": "hub", "repo": "bot/run-1"})))
    done = subprocess.run(
        [sys.executable, "-m", "yaqa_runner", "run", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "yaqa-runner remote" in done.stdout


def test_memory_can_be_shut_twice() -> None:
    code = "from yaqa_runner.remote.launch import shut_memory; shut_memory(); shut_memory()"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert callable(shut_memory)


def test_a_stored_sketch_that_cannot_be_had_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = StoredSketch(repo="bot/sketches", revision="0" * 40, path="acme/one/0000/ffff")
    asked: dict[str, Any] = {}

    def download(repo: str, **options: Any) -> None:
        asked.update(options, repo=repo)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert fetch_sketch(stored, tmp_path, None) is None
    assert asked["token"] is False and asked["repo_type"] == "dataset" and asked["revision"] == "0" * 40
    (tmp_path / stored.path).mkdir(parents=True)
    assert fetch_sketch(stored, tmp_path, "hf_read") == tmp_path / stored.path
    assert asked["token"] == "hf_read"

    def fail(*_: Any, **__: Any) -> None:
        raise ConnectionError

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    assert fetch_sketch(stored, tmp_path, None) is None


@pytest.mark.parametrize("path", ["../x", "/x", "a//b", "a/../b", "a/.hidden", ""])
def test_a_stored_sketch_lies_in_a_plain_folder(path: str) -> None:
    document = spec_document()
    document["sketch"]["stored"] = {"repo": "bot/sketches", "revision": "0" * 40, "path": path}
    with pytest.raises(InvalidSpec):
        parse_job_spec(json.dumps(document))
