"""A finished variant's folder: its files, hashed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from yaqa_runner.model.snapshot import file_sha256
from yaqa_runner.protocol.failures import InvalidSpec
from yaqa_runner.protocol.manifest import Manifest, ManifestFile

MANIFEST_NAME = "manifest.json"
IMPORTANCE_FOLDER = "imatrix"
"""Of a variant: what lies beside it for who quantizes the model himself, and is not counted among its bytes."""


def read_manifest(directory: Path) -> Manifest:
    """The manifest of a finished variant.

    Raises:
        InvalidSpec: the folder holds none, or one of another version.
    """
    try:
        return Manifest.model_validate_json((directory / MANIFEST_NAME).read_bytes())
    except (OSError, ValidationError) as error:
        raise InvalidSpec(
            f"{directory} holds no finished variant.",
            "Give a folder that yaqa-runner quantize wrote, manifest included.",
        ) from error


def published_files(directory: Path) -> list[Path]:
    """Every file of a variant but its manifest, sorted."""
    return sorted(
        path
        for path in directory.rglob("*")
        if path.is_file() and path.relative_to(directory).as_posix() != MANIFEST_NAME
    )


def own_files(directory: Path) -> list[Path]:
    """The files that a variant is: neither its manifest nor what lies beside it, sorted."""
    return [path for path in published_files(directory) if path.parent != directory / IMPORTANCE_FOLDER]


def published_bytes(directory: Path) -> int:
    """Bytes of the files that a variant is."""
    return sum(path.stat().st_size for path in own_files(directory))


def hash_files(directory: Path, check: Callable[[], None]) -> list[ManifestFile]:
    """Path, size and sha256 of every file of a variant, manifest excluded."""
    return [
        ManifestFile(
            path=path.relative_to(directory).as_posix(), size=path.stat().st_size, sha256=file_sha256(path, check)
        )
        for path in published_files(directory)
    ]
