"""Which files of a model folder hold its weights: one answer for everything that reads them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from yaqa_runner.model.source_files import PICKLE_SUFFIXES

MAXIMUM_JSON_BYTES = 64 * 1024 * 1024
SHARD_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\.safetensors")
WHOLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"


class UnreadableSource(ValueError):
    """A folder that cannot be read as a model. ``cause`` names what, ``remedy`` what to do about it."""

    def __init__(self, cause: str, remedy: str) -> None:
        super().__init__(cause)
        self.cause = cause
        self.remedy = remedy


def read_json_object(path: Path) -> dict[str, Any]:
    """A JSON object from a model folder.

    Raises:
        UnreadableSource: unreadable, over 64 MiB, not JSON, or not an object.
    """
    try:
        if path.stat().st_size > MAXIMUM_JSON_BYTES:
            raise UnreadableSource(f"{path.name} is larger than {MAXIMUM_JSON_BYTES} bytes.", "Push a sound file.")
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UnreadableSource(
            f"{path.name} cannot be read: {error.strerror}.", "Push the file and try again."
        ) from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, UnreadableSource):
            raise
        raise UnreadableSource(f"{path.name} is not valid JSON.", "Push a sound file.") from error
    if not isinstance(value, dict):
        raise UnreadableSource(f"{path.name} is not a JSON object.", "Push a sound file.")
    return value


def weight_files(directory: Path) -> tuple[Path, ...]:
    """The safetensors files of ``directory``, with transformers' precedence: a whole file before an index.

    An index beside a whole file is left over from an older push; its shards may not even be there.

    Raises:
        UnreadableSource: there are none, or an index names one that is missing or outside the folder.
    """
    whole, index = directory / WHOLE_FILE, directory / INDEX_FILE
    if whole.is_file():
        return (whole,)
    if index.is_file():
        return _indexed_files(index)
    pickles = sorted(path.name for path in directory.iterdir() if path.suffix in PICKLE_SUFFIXES)
    if pickles:
        raise UnreadableSource(
            f"The weights are only there as pickles ({', '.join(pickles[:3])}), which are never loaded: there are no "
            "safetensors weights.",
            "Convert them to safetensors (save_pretrained does) and push again.",
        )
    raise UnreadableSource(f"There are no safetensors weights: no {WHOLE_FILE}.", "Push the weights as safetensors.")


def _indexed_files(index: Path) -> tuple[Path, ...]:
    mapping = read_json_object(index).get("weight_map")
    if not isinstance(mapping, dict) or not mapping:
        raise UnreadableSource(f"{index.name} has no weight_map.", "Push a sound index file.")
    names = sorted({str(value) for value in mapping.values()})
    for name in names:
        if SHARD_NAME.fullmatch(name) is None or ".." in name:
            raise UnreadableSource(
                f"{index.name} names a file outside the folder: {name[:200]!r}.", "Push a sound index file."
            )
        if not (index.parent / name).is_file():
            raise UnreadableSource(f"{index.name} names {name}, which is missing.", "Push every shard.")
    return tuple(index.parent / name for name in names)
