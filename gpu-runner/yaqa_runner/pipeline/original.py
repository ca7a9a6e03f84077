"""The original of a job: what its figures are against, brought to this machine as plain weights."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from yaqa_runner.formats.decoded_original import decoded_original
from yaqa_runner.formats.merged_adapter import inspect_adapter, merged_adapter
from yaqa_runner.model.fetch import fetch_snapshot
from yaqa_runner.model.snapshot import Snapshot, fingerprint_files, inspect_snapshot, read_license
from yaqa_runner.model.source_files import ADAPTER_CONFIG_FILE, ADAPTER_PATTERNS, ADAPTER_WEIGHTS_FILE
from yaqa_runner.protocol.job_spec import RepoSnapshot, Source
from yaqa_runner.protocol.manifest import ManifestBase
from yaqa_runner.sketches.launched import number_on_this_machine


@dataclass(frozen=True)
class Original:
    """A model that is to be quantized.

    Attributes:
        snapshot: Its files: decoded ones, where it is released quantized; merged ones, where it is an adapter.
        sha256: Of the files as they are stored: the model's, or the base's and the adapter's.
        stored: The form that the weights are stored in, where they are not plain; an adapter's base's.
        license: What its card says.
        base: The model that it is an adapter of.
    """

    snapshot: Snapshot
    sha256: str
    stored: Literal["float8", "mxfp4"] | None
    license: str | None
    base: ManifestBase | None = None


def obtain_original(source: Source, work: Path) -> Original:
    """Fetch and inspect ``source``; what is decoded or merged of it lies below ``work``.

    Raises:
        SourceRefused: it cannot be had, is unsafe or broken, or the adapter is of another base.
        UnsupportedModel: the weights are stored in a way, or the adapter is of a kind, that is not taken.
    """
    folder_name = source.repo.partition("/")[2]
    if source.base is None:
        stored = inspect_snapshot(_fetched(source))
        # Each process of a group has its own copy; an interrupted run's is written over.
        decoded = decoded_original(stored, work / f"decoded-{number_on_this_machine()}" / folder_name)
        return Original(decoded, fingerprint_files(stored), _form(stored), stored.license)
    adapter, _ = fetch_snapshot(source.repo, source.revision, source.path, patterns=ADAPTER_PATTERNS)
    inspect_adapter(adapter)
    base = inspect_snapshot(_fetched(source.base))
    sha256 = fingerprint_files(base, adapter / ADAPTER_CONFIG_FILE, adapter / ADAPTER_WEIGHTS_FILE)
    merged = work / f"merged-{sha256[:32]}" / folder_name
    # Whole where it is there: of this run before it was interrupted, or before it started several processes.
    if not merged.is_dir():
        work.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=work) as scratch:
            merged_adapter(decoded_original(base, Path(scratch)), adapter, merged)
    known_base = ManifestBase(repo=source.base.repo, revision=source.base.revision, license=base.license)
    own_license = read_license(adapter)
    return Original(inspect_snapshot(merged), sha256, _form(base), own_license or base.license, known_base)


def _fetched(snapshot: RepoSnapshot) -> Path:
    folder, _ = fetch_snapshot(snapshot.repo, snapshot.revision, snapshot.path)
    return folder


def _form(snapshot: Snapshot) -> Literal["float8", "mxfp4"] | None:
    return None if snapshot.form is None else snapshot.form.name
