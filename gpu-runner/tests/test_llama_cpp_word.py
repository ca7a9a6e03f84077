"""What the runner alone says of llama.cpp's word on a finished GGUF."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from yaqa_runner.cli import llama_cpp_word as module
from yaqa_runner.cli.llama_cpp_word import llama_cpp_command, llama_cpp_word


def verifier(tmp_path: Path, checks: list[str]) -> list[str]:
    script = tmp_path / "verify.py"
    script.write_text(f"print({json.dumps(json.dumps({'variants': [{'checks': checks}]}))})\n", encoding="utf-8")
    return [sys.executable, str(script)]


def test_a_machine_without_it_is_told_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "CHECKOUT", tmp_path)
    assert llama_cpp_command() is None
    assert llama_cpp_word(tmp_path, tmp_path / "verification.safetensors").startswith("not judged by llama.cpp")


@pytest.mark.parametrize(
    ("checks", "word"),
    [
        (["files: 2", "llama.cpp 1: KL 0.1", "floor: ok"], "llama.cpp 1: KL 0.1"),
        (["files: 2", "failed: llama.cpp does not run it"], "failed: llama.cpp does not run it"),
        (["files: 2"], "not judged by llama.cpp: it said nothing"),
    ],
)
def test_its_word_is_passed_on(checks: list[str], word: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    command = verifier(tmp_path, checks)
    monkeypatch.setattr(module, "llama_cpp_command", lambda: command)
    assert llama_cpp_word(tmp_path, tmp_path / "verification.safetensors") == word


def test_a_verifier_that_breaks_is_no_failure_of_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "llama_cpp_command", lambda: [sys.executable, "-c", "raise SystemExit(3)"])
    assert llama_cpp_word(tmp_path, tmp_path) == "not judged by llama.cpp: IndexError"
