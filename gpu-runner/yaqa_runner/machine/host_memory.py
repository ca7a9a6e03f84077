"""Memory of the host, as far as this process may use it."""

from __future__ import annotations

from pathlib import Path

import psutil


def host_memory(memory_bytes: int | None = None) -> int:
    """Bytes of the host, of its control group, or ``memory_bytes``, whichever is least."""
    total = int(psutil.virtual_memory().total)
    if memory_bytes is not None:
        total = min(total, memory_bytes)
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
        return min(total, int(limit)) if limit.isdigit() else total
    except OSError:
        return total
