"""Memory of the host, as far as this process may use it."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import psutil

_MEMBERSHIP = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")


def host_memory(memory_bytes: int | None = None) -> int:
    """Bytes of the host, of its control group, or ``memory_bytes``, whichever is least."""
    total = int(psutil.virtual_memory().total)
    if memory_bytes is not None:
        total = min(total, memory_bytes)
    return min([total, *_control_group_limits()])


def _control_group_limits() -> list[int]:
    """Limits in bytes of this process's control groups, of version 1 and 2, and of all that they lie in."""
    try:
        lines = _MEMBERSHIP.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return []
    limits: list[int] = []
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and controllers == "":
            limits.extend(_limits_up(_GROUPS, path, "memory.max"))
        elif "memory" in controllers.split(","):
            limits.extend(_limits_up(_GROUPS / "memory", path, "memory.limit_in_bytes"))
    return limits


def _limits_up(root: Path, path: str, name: str) -> list[int]:
    # Inside a container the path may be the host's, and the group that is seen be the root.
    below = PurePosixPath(path.lstrip("/"))
    limits: list[int] = []
    for part in (below, *below.parents):
        try:
            text = (root / part / name).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdigit():
            limits.append(int(text))
    return limits
