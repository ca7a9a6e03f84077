"""The command line on a terminal, at the widths that people have."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from tiny_checkpoints import save_checkpoint

from yaqa_runner.cli.main import COMMANDS, main

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
# Where a line ends on a terminal: also where it is erased or the cursor leaves it.
LINE_ENDS = re.compile(r"[\r\n]|\x1b\[[0-9;]*[AJK]")


def run_on_terminal(arguments: list[str], columns: int) -> tuple[int, str]:
    """The exit code of ``yaqa-runner`` on a terminal of ``columns``, and everything it showed."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES", "NO_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-m", "yaqa_runner", *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**environment, "TERM": "xterm-256color", "OMP_NUM_THREADS": "1"},
        close_fds=True,
    )
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 65_536):
            shown += chunk
    except OSError:
        # Linux says EIO once the other end is closed.
        pass
    os.close(ours)
    return process.wait(timeout=240), shown.decode("utf-8", errors="replace")


def lines_of(shown: str) -> list[str]:
    return [ESCAPES.sub("", line) for line in LINE_ENDS.split(shown)]


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_help_explains_every_option(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    described = shown[shown.index("options:") :]
    for option in re.findall(r"^  (?:-h, )?(--[a-z-]+)", described, re.MULTILINE):
        # Its explanation stands on the option's own line or, after a long one, on the next.
        assert re.search(rf"^  (?:-h, )?{option}\b(?:.* {{2,}}\S|.*\n {{20,}}\S)", described, re.MULTILINE), option


@pytest.mark.parametrize("columns", [80, 120])
def test_quantize_shows_its_stages_and_a_summary(columns: int, tmp_path: Path) -> None:
    model = save_checkpoint(tmp_path / "llama", "llama")
    arguments = ["quantize", str(model), "--recipe", "gguf:q8_0", "--sequences", "4", "--length", "16"]
    arguments += ["--evaluation-sequences", "2", "--iterations", "1", "--output", str(tmp_path / "out")]
    code, shown = run_on_terminal(arguments, columns)
    assert code == 0, shown
    assert "Traceback" not in shown
    lines = lines_of(shown)
    assert any(line.startswith("round") for line in lines), shown
    assert any("KL(original" in line for line in lines), shown
    assert not any(re.match(r"\S sketch \(", line) for line in lines), "the memory plan takes no room from the bar"
    assert any(line.strip().startswith("gguf:") for line in lines), shown
    assert not any("…" in line for line in lines if line.strip().startswith("gguf:")), "a cut word in the summary"
    assert "Finished folders are in" in " ".join(lines)
    path = str(tmp_path / "out")
    assert [line for line in lines if path not in line and len(line) > columns] == []
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l"), "the cursor comes back"


@pytest.mark.parametrize("columns", [80, 120])
def test_a_refusal_is_told_and_the_cursor_comes_back(columns: int, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    code, shown = run_on_terminal(
        ["quantize", str(tmp_path / "empty"), "--recipe", "gguf:q8_0", "--output", str(tmp_path / "out")], columns
    )
    assert code == 3, shown
    assert "Traceback" not in shown and "source-refused" in shown
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")
