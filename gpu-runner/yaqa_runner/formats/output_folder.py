"""A folder that appears whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def output_folder(output: Path) -> Iterator[Path]:
    """Yield a scratch folder beside ``output``; move its files into place when the block ends well.

    An ``output`` that exists is replaced. On an error the scratch folder is removed and ``output`` stays as it was.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    try:
        yield scratch
        scratch.chmod(0o755)
        if output.exists():
            # rename() cannot replace a folder that holds files.
            old = Path(tempfile.mkdtemp(prefix=f".{output.name}.old.", dir=output.parent))
            output.rename(old / "replaced")
            scratch.rename(output)
            shutil.rmtree(old)
        else:
            scratch.rename(output)
    finally:
        if scratch.exists():
            shutil.rmtree(scratch, ignore_errors=True)


def files_of(output: Path) -> list[Path]:
    """Every file under ``output``, sorted."""
    return sorted(path for path in output.rglob("*") if path.is_file())
