"""Memory or disk that ran out, by whatever a library says when it does."""

from __future__ import annotations

import errno


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` is how CPython, PyTorch or CUDA says that memory ran out."""
    if isinstance(error, MemoryError):
        return True
    name = type(error).__name__
    if name == "OutOfMemoryError":
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and (
        "can't allocate memory" in text or "not enough memory" in text or "out of memory" in text
    )


def is_disk_full(error: BaseException) -> bool:
    """Whether ``error`` says that a write met a full disk or quota. safetensors reports it as text only."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return True
    text = str(error)
    return "No space left on device" in text or "Disk quota exceeded" in text or "os error 28" in text
