"""Asks llama.cpp's converter for the layout of a model's GGUF file."""

from __future__ import annotations

import atexit
import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from yaqa_runner.formats.gguf.converter_package import converter_folder, converter_name
from yaqa_runner.formats.gguf.layout import Layout, read_layout
from yaqa_runner.formats.source import ExportError, SourceSnapshot
from yaqa_runner.version import __version__

_log = logging.getLogger(__name__)

_KEPT_LAYOUTS = 8
# Nothing of these is the converter's business.
_SECRETS = ("TOKEN", "SECRET", "PASSWORD", "CREDENTIAL", "API_KEY")


def layout_of(snapshot: SourceSnapshot) -> Layout:
    """The layout of ``snapshot``; asked for once as long as its files stay as they are.

    Raises:
        ExportError: llama.cpp has no form for the model, one of its tensors or its tokenizer.
    """
    with _lock:
        key = _fingerprint(snapshot)
        found = _layouts.pop(key, None)
        # A job that kept it has ended, and removed it with all else.
        if found is None or not found.directory.is_dir():
            found = _converted(snapshot.directory, key)
            for note in found.notes:
                _log.warning("%s: %s", snapshot.model_name, note)
        _layouts[key] = found
        while len(_layouts) > _KEPT_LAYOUTS:
            oldest = next(iter(_layouts))
            directory = _layouts.pop(oldest).directory
            if directory.parent != _kept_in:
                shutil.rmtree(directory, ignore_errors=True)
        return found


def keep_layouts_in(folder: Path) -> None:
    """Have layouts of this process in ``folder``, where one that goes on with its work finds them; its to remove."""
    global _kept_in
    with _lock:
        folder.mkdir(parents=True, exist_ok=True)
        _kept_in = folder


def end_converter() -> None:
    """End the converter's process, which holds as much memory as a small model; the next question starts another."""
    global _process
    with _lock:
        if _process is not None:
            _process.end()
            _process = None


def _fingerprint(snapshot: SourceSnapshot) -> str:
    converter = converter_folder()
    # A layout outlives its process: the converter may be another one when the work is taken up.
    digest = hashlib.sha256(f"{__version__} {converter_name()}\n".encode())
    for path in sorted([*converter.glob("*.py"), *converter.glob("conversion/*.py"), *snapshot.directory.iterdir()]):
        if path.is_file():
            state = path.stat()
            digest.update(f"{path.name} {path.resolve()} {state.st_size} {state.st_mtime_ns}\n".encode())
    return digest.hexdigest()


class _Process:
    """The converter's process; it ends with this one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        environment = {
            name: value for name, value in os.environ.items() if not any(word in name.upper() for word in _SECRETS)
        }
        environment |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "yaqa_runner.formats.gguf.converter_process", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env=environment,
        )
        self._answer()

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, snapshot: Path, output: Path) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"snapshot": str(snapshot), "output": str(output)}) + "\n")
        self._process.stdin.flush()
        self._answer()

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _answer(self) -> None:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self.end()
            raise ExportError("llama.cpp's converter ended without an answer; its messages are in the log.")
        answer: dict[str, Any] = json.loads(line)
        if answer.get("ok"):
            return
        if answer.get("kind") == "refused":
            raise ExportError(str(answer["error"]))
        raise ExportError(f"llama.cpp's converter failed on this model: {answer.get('error')}")


_lock = threading.Lock()
_layouts: dict[str, Layout] = {}
_process: _Process | None = None
_scratch: Path | None = None
_kept_in: Path | None = None


def _converted(directory: Path, key: str) -> Layout:
    global _process, _scratch
    # A job that has ended took the folder with it; what this process asks afterwards is kept apart.
    kept = None if _kept_in is None or not _kept_in.is_dir() else _kept_in / key
    if kept is not None and kept.is_dir():
        return read_layout(kept)
    folder = converter_folder()
    if _process is not None and (not _process.is_alive or _process.folder != folder):
        _process.end()
        _process = None
    if _process is None:
        _process = _Process(folder)
    if _scratch is None:
        _scratch = Path(tempfile.mkdtemp(prefix="yaqa-layouts-"))
        atexit.register(_end, os.getpid())
    output = Path(tempfile.mkdtemp(dir=_scratch if kept is None else kept.parent))
    try:
        _process.ask(directory.resolve(), output)
        return read_layout(output if kept is None else output.rename(kept))
    except BaseException:
        shutil.rmtree(output, ignore_errors=True)
        raise


def _end(owner: int) -> None:
    # A fork of this process inherits the registration, and the folder is not its own.
    if os.getpid() != owner:
        return
    if _process is not None:
        _process.end()
    if _scratch is not None:
        shutil.rmtree(_scratch, ignore_errors=True)
