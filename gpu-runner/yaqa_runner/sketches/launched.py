"""What ``torchrun`` tells a process of the group that it started; read before torch is imported."""

from __future__ import annotations

import os


def launched_processes() -> int:
    """How many processes ``torchrun`` started, this one included; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def leads_its_group() -> bool:
    """Whether this process is the one that writes and speaks; true without ``torchrun``."""
    return os.environ.get("RANK", "0") == "0"


def number_on_this_machine() -> int:
    """This process's number among those on its machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))
