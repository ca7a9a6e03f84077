"""Brings what a remote run quantizes to its machine, before anything of it is opened."""

from __future__ import annotations

from pathlib import Path

from yaqa_runner.model.fetch import fetch_snapshot
from yaqa_runner.model.source_files import ADAPTER_PATTERNS, SOURCE_PATTERNS
from yaqa_runner.protocol.job_spec import Source


def fetch_source(source: Source, token: str | None) -> tuple[Path, Path | None]:
    """The folders of the source and, where it is an adapter, of its base, read with ``token``.

    Raises:
        SourceRefused: one of them cannot be had.
        RunnerFailure: the disk is full.
    """
    read = token or False
    if source.base is None:
        return fetch_snapshot(source.repo, source.revision, None, read, SOURCE_PATTERNS)[0], None
    adapter, _ = fetch_snapshot(source.repo, source.revision, None, read, ADAPTER_PATTERNS)
    base, _ = fetch_snapshot(source.base.repo, source.base.revision, None, read, SOURCE_PATTERNS)
    return adapter, base
