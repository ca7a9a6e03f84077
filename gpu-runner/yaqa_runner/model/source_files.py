"""Which files of a source are looked at, and which of them each container takes along as they stand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from yaqa_runner.config import read_list

_TABLE: dict[str, Any] = read_list("source-files.json")
_FILES: dict[str, list[str]] = _TABLE["files"]

# What of a repo is worth downloading and linking: never code, never pickles.
SOURCE_PATTERNS: tuple[str, ...] = tuple(pattern for patterns in _FILES.values() for pattern in patterns)
# Any one of them is enough for a tokenizer: the others only say more about it.
VOCABULARY_FILES: tuple[str, ...] = tuple(_TABLE["vocabularies"])
# What belongs to a model beside its weights and their configuration.
COMPANION_PATTERNS: tuple[str, ...] = tuple(
    pattern for kind, patterns in _FILES.items() if kind not in ("configuration", "weights") for pattern in patterns
)
TOKENIZER_PATTERNS: tuple[str, ...] = tuple(_FILES["tokenizer"])
LICENCE_PATTERNS: tuple[str, ...] = tuple(_FILES["licence"])
ADAPTER_CONFIG_FILE: str = _TABLE["adapter"]["configuration"]
ADAPTER_WEIGHTS_FILE: str = _TABLE["adapter"]["weights"]
# Of a repo that holds an adapter. A whole model's folder has none of the first two: transformers would load them too.
ADAPTER_PATTERNS: tuple[str, ...] = (ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE, *COMPANION_PATTERNS)
PICKLE_SUFFIXES: tuple[str, ...] = tuple(_TABLE["pickleSuffixes"])
MAXIMUM_COPIED_BYTES: int = _TABLE["maximumCopiedBytes"]


def copied_patterns(container: str) -> tuple[str, ...]:
    """Patterns of the files that a variant in ``container`` takes along byte for byte."""
    kinds: list[str] = _TABLE["containers"][container]["copied"]
    return tuple(pattern for kind in kinds for pattern in _FILES[kind])


def publishable_patterns(container: str) -> tuple[str, ...]:
    """Patterns of everything that a variant in ``container`` may consist of, its manifest aside."""
    written: list[str] = _TABLE["containers"][container]["written"]
    return (*written, *copied_patterns(container))


def is_listed(path: str, patterns: tuple[str, ...]) -> bool:
    """Whether ``path``, relative and with slashes, is one of ``patterns``. ``*`` never stands for a folder."""
    return any(re.fullmatch(re.escape(pattern).replace(r"\*", "[A-Za-z0-9._-]+"), path) for pattern in patterns)


def listed_files(directory: Path, patterns: tuple[str, ...]) -> list[str]:
    """Paths below ``directory`` of the files among ``patterns``, with slashes, sorted."""
    found = {
        path.relative_to(directory).as_posix()
        for pattern in patterns
        for path in directory.glob(pattern)
        if path.is_file()
    }
    return sorted(path for path in found if is_listed(path, patterns))
