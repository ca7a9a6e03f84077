"""The job spec of a call of the Python API."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from yaqa_runner.api.arguments import DeviceName, Files, SketchKind, Texts
from yaqa_runner.model.fetch import fetch_snapshot
from yaqa_runner.model.snapshot import fingerprint_files, inspect_snapshot
from yaqa_runner.protocol.failures import InvalidSpec
from yaqa_runner.protocol.job_spec import JobSpec, describe_validation
from yaqa_runner.protocol.recipes import parse_recipe

DEFAULT_ITERATIONS = {"a": 6, "b": 1}


@dataclass(frozen=True)
class LocalSource:
    """A model on this machine: its folder, the name and the revision it goes by."""

    path: Path
    repo: str
    revision: str


@dataclass(frozen=True)
class TokenOptions:
    """Texts and tokens: no calibration file means sequences sampled from the model itself."""

    calibration: Files | None
    selection: Texts = ()
    report: Texts = ()
    sequences: int = 512
    length: int = 2048
    evaluation_sequences: int = 32
    seed: int = 0


@dataclass(frozen=True)
class SketchOptions:
    """How the sketch is taken, or which earlier one is used, and how its factors are damped."""

    kind: SketchKind = "a"
    iterations: int | None = None
    reuse: str | Path | None = None
    sigma_input: float | None = None
    sigma_output: float | None = None


@dataclass(frozen=True)
class MachineOptions:
    """What the run may use."""

    device: DeviceName = "auto"
    threads: int | None = None
    memory_bytes: int | None = None

    def limits(self) -> dict[str, object]:
        """For the job spec."""
        limits: dict[str, object] = {"device": self.device}
        if self.threads is not None:
            limits["threads"] = self.threads
        if self.memory_bytes is not None:
            limits["memoryBytes"] = self.memory_bytes
        return limits


def find_source(model: str | Path, revision: str | None) -> LocalSource:
    """The folder ``model``, or the Hub repo of that name, downloaded.

    Raises:
        InvalidSpec: it is neither a folder nor the name of a repo.
        SourceRefused: the repo cannot be downloaded.
    """
    folder = Path(model)
    if folder.is_dir():
        path = folder.resolve()
        return LocalSource(path, f"local/{_name(path.name)}", fingerprint_files(inspect_snapshot(path))[:40])
    repo = str(model)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*", repo):
        raise InvalidSpec(f"{repo!r} is neither a folder nor a Hub repo.", "Give a folder, or namespace/name.")
    path, commit = fetch_snapshot(repo, revision, None)
    return LocalSource(path, repo, commit or fingerprint_files(inspect_snapshot(path))[:40])


def local_job(
    *,
    source: LocalSource,
    recipes: list[str],
    output: Path,
    tokens: TokenOptions,
    sketch: SketchOptions,
    machine: MachineOptions,
) -> JobSpec:
    """The spec of a job that leaves its results at ``output``. Equal arguments give equal ids, so that a rerun resumes.

    Raises:
        InvalidSpec: an argument does not fit.
    """
    document = {
        "protocol": 1,
        "job": _stable_uuid(source.repo, source.revision, str(output)),
        "fence": 1,
        "source": {"repo": source.repo, "revision": source.revision, "path": str(source.path)},
        "calibration": _calibration(tokens),
        "evaluation": {
            "selection": text_list(tokens.selection),
            "report": text_list(tokens.report),
            "sequences": tokens.evaluation_sequences,
            "length": tokens.length,
            "verificationSequences": 4,
        },
        "sketch": _sketch(sketch),
        "variants": [
            {"id": _stable_uuid(source.repo, source.revision, name), "recipe": parse_recipe(name).to_wire()}
            for name in recipes
        ],
        "staging": {"kind": "directory", "path": str(output)},
        "limits": machine.limits(),
    }
    try:
        return JobSpec.model_validate(document)
    except ValidationError as error:
        raise InvalidSpec(
            f"An option does not fit: {describe_validation(error)}",
            "See yaqa-runner quantize --help, or help(yaqa_runner.quantize).",
        ) from error


def checked_label_samples(label_samples: int) -> int:
    """``label_samples`` itself.

    Raises:
        InvalidSpec: it is not 1 to 64.
    """
    if not 1 <= label_samples <= 64:
        raise InvalidSpec("--label-samples takes 1 to 64.", "Give a number in that range.")
    return label_samples


def text_list(texts: Texts) -> list[dict[str, str]]:
    """Domain and path of every text; one without a domain goes by its file's name."""
    found = []
    for index, item in enumerate(texts.items() if isinstance(texts, Mapping) else _listed(texts)):
        domain, file = item if isinstance(item, tuple) else (_domain(Path(item).stem, index), item)
        found.append({"domain": domain, "path": str(Path(file).resolve())})
    return found


Item = TypeVar("Item")


def _listed(files: Iterable[Item]) -> list[Item]:
    # A path alone is an iterable of letters too.
    return [files] if isinstance(files, (str, Path)) else list(files)  # type: ignore[list-item]


def _calibration(tokens: TokenOptions) -> dict[str, Any]:
    size = {"sequences": tokens.sequences, "length": tokens.length, "seed": tokens.seed}
    files = [] if tokens.calibration is None else _listed(tokens.calibration)
    if not files:
        return {"kind": "self", **size}
    return {"kind": "text", "files": [str(Path(file).resolve()) for file in files], **size}


def _sketch(options: SketchOptions) -> dict[str, Any]:
    iterations = options.iterations
    document: dict[str, Any] = {
        "kind": options.kind,
        "iterations": DEFAULT_ITERATIONS.get(options.kind, 1) if iterations is None else iterations,
        "sigmaInput": options.sigma_input,
        "sigmaOutput": options.sigma_output,
    }
    if options.reuse is not None:
        document["reuse"] = str(Path(options.reuse).resolve())
    return document


def _domain(stem: str, index: int) -> str:
    cleaned = re.sub(r"[^a-z0-9-]+", "-", stem.lower()).strip("-")[:32]
    return cleaned or f"text-{index + 1}"


def _name(folder: str) -> str:
    cleaned = re.sub(r"[^A-Za-z0-9._-]+", "-", folder).strip(".-_")[:96]
    return cleaned or "model"


def _stable_uuid(*parts: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, "\0".join(parts)))
