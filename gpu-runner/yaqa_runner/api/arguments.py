"""Arguments that the functions of the Python API share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, TypeAlias

Files: TypeAlias = Iterable[str | Path]
"""Text files."""

Texts: TypeAlias = Mapping[str, str | Path] | Iterable[str | Path | tuple[str, str | Path]]
"""Text files by domain, or files and pairs of domain and file; a file without a domain goes by its name."""

DeviceName: TypeAlias = Literal["auto", "cpu", "cuda"]
SketchKind: TypeAlias = Literal["a", "b"]
