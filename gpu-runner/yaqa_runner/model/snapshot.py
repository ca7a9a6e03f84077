"""The snapshot folder of a source, inspected before anything in it is loaded."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError, safe_open

from yaqa_runner.model.source_files import SOURCE_PATTERNS, listed_files
from yaqa_runner.model.stored_form import StoredForm, StoredTensor, decoded_shapes, stored_form
from yaqa_runner.model.weight_files import UnreadableSource, read_json_object, weight_files
from yaqa_runner.protocol.failures import SourceRefused

MAXIMUM_README_BYTES = 1024 * 1024
# Real front matter has a few kilobytes; a parser's time and stack grow with it.
MAXIMUM_FRONT_MATTER_CHARACTERS = 64 * 1024
# No published transformer is deeper; a config that says so is broken or hostile.
MAXIMUM_BLOCKS = 2048
LICENSE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
HASH_CHUNK_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class Snapshot:
    """A source that may be loaded.

    Attributes:
        directory: The folder.
        config: ``config.json``, parsed.
        weight_files: The safetensors files that hold the weights, sorted by name.
        shapes: Shape of every weight in them, by stored name; decoded, where they are stored in another form.
        license: The licence id of the model card's front matter, where there is one.
        form: How the weights are stored, where they are not plain.
    """

    directory: Path
    config: dict[str, Any]
    weight_files: tuple[Path, ...]
    shapes: dict[str, tuple[int, ...]]
    license: str | None
    form: StoredForm | None = None

    @property
    def elements(self) -> int:
        """Numbers that all weight files stand for."""
        total = 0
        for shape in self.shapes.values():
            count = 1
            for size in shape:
                count *= size
            total += count
        return total


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from the snapshot.

    Raises:
        SourceRefused: unreadable, over 64 MiB, not JSON, or not an object.
    """
    try:
        return read_json_object(path)
    except UnreadableSource as error:
        raise SourceRefused(error.cause, error.remedy) from error


def inspect_snapshot(directory: Path) -> Snapshot:
    """Check a source without loading it.

    Raises:
        SourceRefused: no config, remote code, pickle-only weights, a bad index, a broken safetensors header,
            sizes in the config that the weights contradict.
        UnsupportedModel: the weights are quantized already, but for the forms that originals are released in.
    """
    if not directory.is_dir():
        raise SourceRefused("The source folder does not exist.", "Give a folder that holds a model snapshot.")
    if not any(directory.iterdir()):
        raise SourceRefused("The repo is empty.", "Push a model: config.json, safetensors weights and a tokenizer.")
    refuse_links_elsewhere(directory, SOURCE_PATTERNS)
    if not (directory / "config.json").is_file():
        raise SourceRefused("The repo has no config.json.", "Push a model in the layout that save_pretrained writes.")
    config = read_json(directory / "config.json")
    _refuse_remote_code(config, "config.json")
    tokenizer_config = directory / "tokenizer_config.json"
    if tokenizer_config.is_file():
        _refuse_remote_code(read_json(tokenizer_config), tokenizer_config.name)
    form = stored_form(config)
    weight_files = _weight_files(directory)
    stored: dict[str, StoredTensor] = {}
    for path in weight_files:
        stored.update(_header_tensors(path))
    if not stored:
        raise SourceRefused("The safetensors files hold no tensors.", "Push the model's weights.")
    shapes = decoded_shapes(form, stored)
    snapshot = Snapshot(directory, config, weight_files, shapes, read_license(directory), form)
    _refuse_absurd_sizes(snapshot)
    return snapshot


def fingerprint_files(snapshot: Snapshot, *further: Path) -> str:
    """Sha256 over the config and every weight file, and ``further`` ones, by name and content."""
    total = hashlib.sha256()
    for path in (snapshot.directory / "config.json", *snapshot.weight_files, *further):
        total.update(f"{path.name}\0{file_sha256(path)}\n".encode())
    return total.hexdigest()


def file_sha256(path: Path, check: Callable[[], None] | None = None) -> str:
    """Hex sha256 of a file; ``check`` runs between chunks and may raise."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(HASH_CHUNK_BYTES):
            if check is not None:
                check()
            digest.update(chunk)
    return digest.hexdigest()


def link_snapshot(snapshot: Snapshot, target: Path) -> Path:
    """Make ``target`` a folder of links to the snapshot's allowed files, and return it.

    Containers name files after the folder, so the folder is named after the model; what is not on the allow list
    cannot reach a published folder.
    """
    target.mkdir(parents=True, exist_ok=True)
    for path in listed_files(snapshot.directory, SOURCE_PATTERNS):
        link = target / path
        link.parent.mkdir(parents=True, exist_ok=True)
        if link.is_symlink() or link.exists():
            link.unlink()
        link.symlink_to((snapshot.directory / path).resolve())
    return target


def refuse_links_elsewhere(directory: Path, patterns: tuple[str, ...], what: str = "model") -> None:
    """Refuse a file that is really another one of this machine: what it holds would be published as the model's.

    Raises:
        SourceRefused: a file that ``patterns`` list is a link out of ``directory``.
    """
    within = [directory.resolve()]
    if directory.parent.name == "snapshots":
        # The layout of huggingface_hub's cache: each file is a link to its content beside the snapshots.
        within.append((directory.parent.parent / "blobs").resolve())
    for path in listed_files(directory, patterns):
        target = (directory / path).resolve()
        if not any(target.is_relative_to(folder) for folder in within):
            raise SourceRefused(
                f"{path} is a link that leads out of the {what}'s folder.",
                f"Put the file itself there, if it belongs to the {what}.",
            )


def _refuse_remote_code(config: dict[str, Any], name: str) -> None:
    if config.get("auto_map"):
        raise SourceRefused(
            f"{name} asks for code from the repo (auto_map), which is never run.",
            "Push the model in an architecture that transformers has built in, without auto_map.",
        )


def _weight_files(directory: Path) -> tuple[Path, ...]:
    try:
        return weight_files(directory)
    except UnreadableSource as error:
        raise SourceRefused(error.cause, error.remedy) from error


def _header_tensors(path: Path) -> dict[str, StoredTensor]:
    tensors: dict[str, StoredTensor] = {}
    try:
        with safe_open(path, framework="pt", device="cpu") as handle:
            for name in handle.keys():  # noqa: SIM118
                part = handle.get_slice(name)
                tensors[name] = StoredTensor(str(part.get_dtype()), tuple(int(size) for size in part.get_shape()))
            return tensors
    except (SafetensorError, OSError, ValueError) as error:
        raise SourceRefused(f"{path.name} is not a readable safetensors file: {error}", "Push a sound file.") from error


def _refuse_absurd_sizes(snapshot: Snapshot) -> None:
    """A config can ask for terabytes; the weights on disk say what is plausible."""
    config = snapshot.config
    blocks = config.get("num_hidden_layers", config.get("n_layer"))
    if isinstance(blocks, int) and (blocks > MAXIMUM_BLOCKS or blocks > len(snapshot.shapes)):
        raise SourceRefused(
            f"config.json asks for {blocks} layers; the weights cannot hold them.", "Push the config of these weights."
        )
    hidden = config.get("hidden_size", config.get("n_embd"))
    for key in ("vocab_size", "intermediate_size", "n_inner"):
        size = config.get(key)
        if isinstance(hidden, int) and isinstance(size, int) and hidden * size > snapshot.elements:
            raise SourceRefused(
                f"config.json asks for {key} {size} by hidden size {hidden}, more than the weights hold.",
                "Push the config of these weights.",
            )


def read_license(directory: Path) -> str | None:
    """The licence id of a folder's model card, where it has one."""
    readme = directory / "README.md"
    try:
        if not readme.is_file() or readme.stat().st_size > MAXIMUM_README_BYTES:
            return None
        text = readme.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    match = re.match(r"---\r?\n(.*?)\r?\n---\r?\n", text, re.DOTALL)
    if match is None or len(match.group(1)) > MAXIMUM_FRONT_MATTER_CHARACTERS:
        return None
    try:
        front = yaml.safe_load(match.group(1))
    except (yaml.YAMLError, RecursionError, ValueError):
        return None
    value = front.get("license") if isinstance(front, dict) else None
    return value if isinstance(value, str) and LICENSE_ID.fullmatch(value) else None
