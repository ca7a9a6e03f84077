"""Codes in files: those of three quantizers are several times the model, and memory is for the layer under work."""

from __future__ import annotations

from pathlib import Path

import torch


def keep_in_file(codes: torch.Tensor, path: Path) -> torch.Tensor:
    """``codes`` int16, CPU, moved to ``path``, of which the result is a view.

    It is read when it is looked at, and the system takes its pages back where memory is short. Writing to the result
    changes no file; the file may be deleted while the result is in use.

    Raises:
        OSError: the disk is full, or the folder cannot be written to.
    """
    path.write_bytes(codes.contiguous().numpy().data)
    return torch.from_file(str(path), shared=False, size=codes.numel(), dtype=torch.int16).view(codes.shape)
