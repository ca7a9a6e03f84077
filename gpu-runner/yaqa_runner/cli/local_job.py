"""Job specs for people: what the command line's options mean."""

from __future__ import annotations

import argparse
import re
import uuid
from pathlib import Path

from pydantic import ValidationError

from yaqa_runner.model.fetch import fetch_snapshot
from yaqa_runner.model.load import choose_device
from yaqa_runner.model.snapshot import fingerprint_files, inspect_snapshot
from yaqa_runner.pipeline.calibrate import make_splits
from yaqa_runner.pipeline.run_context import load_run
from yaqa_runner.pipeline.run_monitor import RunMonitor
from yaqa_runner.pipeline.sketch import obtain_sketch
from yaqa_runner.protocol.failures import InvalidSpec
from yaqa_runner.protocol.interrupt import InterruptFlag
from yaqa_runner.protocol.job_spec import JobSpec, describe_validation
from yaqa_runner.protocol.recipes import parse_recipe
from yaqa_runner.protocol.reporter import Reporter
from yaqa_runner.sketch.parallel import joined_ranks, own_device
from yaqa_runner.sketch.store import Sketch

DEFAULT_ITERATIONS = {"a": 6, "b": 1}


def job_from_options(options: argparse.Namespace) -> JobSpec:
    """The job spec of ``yaqa-runner quantize``. Equal options give the same job id, so that a rerun resumes.

    Raises:
        InvalidSpec: an option does not fit.
        SourceRefused: the model is neither a folder nor a repo that can be downloaded.
    """
    return _spec(options, list(options.recipe), options.selection, options.report)


def sketch_from_options(
    options: argparse.Namespace, reporter: Reporter, flag: InterruptFlag, label_samples: int
) -> Sketch:
    """Take the sketch of ``yaqa-runner sketch`` at ``--output``.

    Under ``torchrun`` every process takes its share of the sequences, and the first one writes.
    """
    # The recipe is never made; a job spec wants one.
    spec = _spec(options, ["gguf:q8_0"], [], [])
    monitor = RunMonitor(reporter, flag)
    output = options.output.resolve()
    with joined_ranks(own_device(choose_device(spec.limits.device))) as ranks:
        context = load_run(spec=spec, output=output, monitor=monitor, label_samples=label_samples, device=ranks.device)
        splits = make_splits(context=context)
        return obtain_sketch(context=context, calibration=splits.calibration, target=output, ranks=ranks).sketch


def _spec(options: argparse.Namespace, recipes: list[str], selection: list[str], report: list[str]) -> JobSpec:
    folder = Path(options.model)
    if folder.is_dir():
        path, repo = folder.resolve(), f"local/{_name(folder.resolve().name)}"
        revision = fingerprint_files(inspect_snapshot(path))[:40]
    else:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*", options.model):
            raise InvalidSpec(
                f"{options.model!r} is neither a folder nor a Hub repo.", "Give a folder, or namespace/name."
            )
        path, commit = fetch_snapshot(options.model, options.revision, None)
        repo, revision = options.model, commit if commit is not None else fingerprint_files(inspect_snapshot(path))[:40]
    calibration = {"sequences": options.sequences, "length": options.length, "seed": options.seed}
    if options.calibration:
        calibration |= {"kind": "text", "files": [str(file.resolve()) for file in options.calibration]}
    else:
        calibration |= {"kind": "self"}
    iterations = DEFAULT_ITERATIONS[options.sketch_kind] if options.iterations is None else options.iterations
    sketch = {
        "kind": options.sketch_kind,
        "iterations": iterations,
        "sigmaInput": getattr(options, "sigma_input", 0.1),
        "sigmaOutput": getattr(options, "sigma_output", 0.1),
    }
    if getattr(options, "reuse", None) is not None:
        sketch["reuse"] = str(options.reuse.resolve())
    limits: dict[str, object] = {"device": options.device}
    if options.threads is not None:
        limits["threads"] = options.threads
    if options.memory is not None:
        limits["memoryBytes"] = options.memory
    document = {
        "protocol": 1,
        "job": str(_stable_uuid(repo, revision, str(options.output.resolve()))),
        "fence": 1,
        "source": {"repo": repo, "revision": revision, "path": str(path)},
        "calibration": calibration,
        "evaluation": {
            "selection": _texts(selection),
            "report": _texts(report),
            "sequences": getattr(options, "evaluation_sequences", 2),
            "length": options.length,
            "verificationSequences": 4,
        },
        "sketch": sketch,
        "variants": [
            {"id": str(_stable_uuid(repo, revision, recipe)), "recipe": parse_recipe(recipe).to_wire()}
            for recipe in recipes
        ],
        "staging": {"kind": "directory", "path": str(options.output.resolve())},
        "limits": limits,
    }
    try:
        return JobSpec.model_validate(document)
    except ValidationError as error:
        raise InvalidSpec(
            f"An option does not fit: {describe_validation(error)}", "See yaqa-runner quantize --help."
        ) from error


def _texts(given: list[str]) -> list[dict[str, str]]:
    texts = []
    for index, item in enumerate(given):
        domain, separator, file = item.partition("=")
        if not separator:
            file, domain = item, _domain(Path(item).stem, index)
        texts.append({"domain": domain, "path": str(Path(file).resolve())})
    return texts


def _domain(stem: str, index: int) -> str:
    cleaned = re.sub(r"[^a-z0-9-]+", "-", stem.lower()).strip("-")[:32]
    return cleaned or f"text-{index + 1}"


def _name(folder: str) -> str:
    cleaned = re.sub(r"[^A-Za-z0-9._-]+", "-", folder).strip(".-_")[:96]
    return cleaned or "model"


def _stable_uuid(*parts: str) -> uuid.UUID:
    return uuid.uuid5(uuid.NAMESPACE_URL, "\0".join(parts))
