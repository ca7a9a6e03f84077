"""How the child of a remote run, which loads a stranger's model, is kept from what lies around it.

The token that a remote run holds writes the staging repos of every run. The process that holds it cannot be read, but
others of the machine may: the container's first process, the agent of a workflow. So the child gets as much of
``machine/isolated.py`` as the machine allows.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from yaqa_runner.machine import isolated

Level = Literal["own-account", "namespaces", "account", "none"]
"""``own-account``: namespaces and another account; ``account``: that alone; ``none``: nothing but that it gains no
rights."""

NOBODY = 65_534
"""The account that owns nothing, by the number that Linux gives it everywhere."""

PROBE_SECONDS = 30

PROBE = Path(isolated.__file__).with_name("isolation_probe.py")
ACCOUNT_PROBE = """
import os, sys
from pathlib import Path
account, written, *read = sys.argv[1:]
assert os.getuid() == int(account), "the account is the same"
for path in map(Path, read):
    list(path.iterdir()) if path.is_dir() else path.open("rb").close()
Path(written, "probe").touch()
"""

HIDDEN = ("/root", "/home", "/run", "/tmp", "/var/tmp", "/builds", "/github", "/__w")
"""Homes with keys in them, sockets of services, temporary folders, and where agents of workflows keep theirs."""


@dataclass(frozen=True)
class Places:
    """What the child reads and what it writes; all paths absolute."""

    read: tuple[Path, ...]
    written: tuple[Path, ...]


def measure_child_isolation(places: Places) -> tuple[Level, str | None]:
    """The most that the machine allows with the places that the child will have, and why it is no more."""
    if sys.platform != "linux":
        return "none", "only Linux has namespaces"
    levels: tuple[Level, ...] = ("own-account", "namespaces", "account") if os.geteuid() == 0 else ("namespaces",)
    reason = None
    for level in levels:
        failure = _probe(level, places)
        if failure is None:
            return level, reason
        reason = failure
    return "none", reason


def wrapped(level: Level, places: Places, program: Sequence[str]) -> list[str]:
    """The command line that starts ``program`` in isolation of ``level``."""
    if sys.platform != "linux":
        return list(program)
    plan: isolated.IsolationPlan = {
        "hidden": [*HIDDEN, tempfile.gettempdir(), str(Path.home())],
        # The package may lie beside its environment, in a checkout, and that in a folder which is hidden.
        "shown": [
            *(part for part in program if Path(part).is_absolute()),
            str(Path(isolated.__file__).parents[1]),
            *map(str, places.read),
        ],
        "read": [str(path) for path in places.read],
        "written": [str(path) for path in places.written],
        "user": NOBODY if level in ("own-account", "account") else None,
        "namespaces": level in ("own-account", "namespaces"),
    }
    return [sys.executable, "-I", isolated.__file__, json.dumps(plan), *program]


def _probe(level: Level, places: Places) -> str | None:
    """Why ``level`` does not hold here, or ``None``."""
    with tempfile.TemporaryDirectory(prefix="yaqa-probe-") as folder:
        place = Path(folder)
        place.chmod(0o755)
        hidden, shown, written = place / "hidden", place / "beside" / "shown", place / "written"
        for path in (hidden, shown, written):
            path.mkdir(parents=True)
        probed = Places((*places.read, shown), (*places.written, written))
        read = [str(path) for path in places.read]
        program = (
            [sys.executable, "-I", "-c", ACCOUNT_PROBE, str(NOBODY), str(written), *read]
            if level == "account"
            else [sys.executable, "-I", str(PROBE), str(hidden), str(shown), str(written), *read]
        )
        try:
            done = subprocess.run(
                wrapped(level, probed, program),
                env={"PATH": os.environ.get("PATH", "")},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=PROBE_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
        if done.returncode == 0:
            return None
        said = done.stderr.decode(errors="replace").strip().splitlines()
        return said[-1][:300] if said else f"exit code {done.returncode}"
