"""What a model that takes over the child of a remote run finds around it: nothing that helps it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from yaqa_runner.remote.child_isolation import Places, measure_child_isolation, wrapped

CANARY = "hf_canary"

LOOK_AROUND = """
import os, socket, sys
from pathlib import Path
port, read, written, beside = int(sys.argv[1]), *map(Path, sys.argv[2:])
assert read.read_text() == "weights"
(written / "result").write_text("done")
found = []
for process in Path("/proc").glob("[0-9]*"):
    try:
        found.append(b"hf_canary" in (process / "environ").read_bytes())
    except OSError:
        pass
if any(found):
    print("a token of another process")
try:
    socket.create_connection(("127.0.0.1", port), timeout=2)
    print("the network")
except OSError:
    pass
try:
    beside.read_text()
    print("a file beside")
except OSError:
    pass
"""


@pytest.fixture
def agent() -> Iterator[None]:
    """What started the run and still holds the token in its environment: a container's first process, an agent."""
    process = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(300)"],
        env={"YAQA_STAGING_TOKEN": CANARY},
        stdin=subprocess.DEVNULL,
    )
    yield
    process.kill()
    process.wait()


def look_around(tmp_path: Path, *, isolated: bool) -> list[str]:
    tmp_path.chmod(0o755)
    read, written, beside = tmp_path / "in" / "model", tmp_path / "out", tmp_path / "beside"
    read.parent.mkdir()
    written.mkdir()
    read.write_text("weights")
    beside.write_text("of another run")
    places = Places((read,), (written,))
    level, reason = measure_child_isolation(places)
    if level not in ("own-account", "namespaces"):
        pytest.skip(f"skipped: no namespaces ({reason})")
    with socket.create_server(("127.0.0.1", 0)) as server:
        program = [sys.executable, "-c", LOOK_AROUND, str(server.getsockname()[1]), *map(str, (read, written, beside))]
        done = subprocess.run(
            wrapped(level, places, program) if isolated else program,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert (written / "result").read_text() == "done"
    return done.stdout.splitlines()


def test_a_model_that_takes_the_child_over_reaches_no_token_no_network_and_no_other_run(
    tmp_path: Path, agent: None
) -> None:
    assert look_around(tmp_path, isolated=True) == []


@pytest.mark.skipif(sys.platform != "linux", reason="skipped: looks at /proc")
def test_without_isolation_the_same_program_finds_them(tmp_path: Path, agent: None) -> None:
    assert look_around(tmp_path, isolated=False) == ["a token of another process", "the network", "a file beside"]


@pytest.mark.skipif(sys.platform != "linux", reason="skipped: looks at /proc")
def test_where_nothing_else_is_allowed_the_child_gains_no_rights(tmp_path: Path) -> None:
    places = Places((), (tmp_path,))
    program = ["grep", "-E", "^(CapEff|NoNewPrivs)", "/proc/self/status"]
    done = subprocess.run(wrapped("none", places, program), capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["CapEff:", "0" * 16, "NoNewPrivs:", "1"]


def test_a_place_that_the_child_could_not_read_is_not_called_isolated(tmp_path: Path) -> None:
    level, reason = measure_child_isolation(Places((tmp_path / "absent",), (tmp_path,)))
    assert level == "none"
    assert reason is not None or os.name != "posix"
