"""``yaqa-runner evaluate``: tasks on the original and on finished folders, side by side."""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from yaqa_runner.evaluate.tasks import TaskScore, require_lm_eval, score_tasks
from yaqa_runner.formats import container_for
from yaqa_runner.formats.container import ReferenceModel
from yaqa_runner.formats.decoded_original import decoded_original
from yaqa_runner.formats.torch_reference import TorchReferenceModel
from yaqa_runner.model.load import choose_device, load_source_model
from yaqa_runner.model.snapshot import Snapshot, inspect_snapshot
from yaqa_runner.pipeline.publish_folder import read_manifest
from yaqa_runner.protocol.failures import InvalidSpec
from yaqa_runner.protocol.interrupt import InterruptFlag
from yaqa_runner.protocol.recipes import parse_recipe

DEFAULT_MAXIMUM_LENGTH = 2048


def evaluate_from_options(options: argparse.Namespace, flag: InterruptFlag) -> dict[str, list[TaskScore]]:
    """Scores by name: ``original``, then the recipe of every folder.

    Raises:
        InvalidSpec: lm-eval is missing, a task is unknown, or a folder holds no variant.
        SourceRefused: the model cannot be loaded.
    """
    require_lm_eval()
    folders = [(folder, read_manifest(folder).recipe) for folder in options.variant]
    with tempfile.TemporaryDirectory() as scratch:
        snapshot = decoded_original(inspect_snapshot(options.model), Path(scratch))
        return _scores(options, flag, snapshot, folders)


def _scores(
    options: argparse.Namespace, flag: InterruptFlag, snapshot: Snapshot, folders: list[tuple[Path, str]]
) -> dict[str, list[TaskScore]]:
    device = choose_device(options.device)
    source = load_source_model(snapshot, device)
    if source.tokenizer is None:
        raise InvalidSpec("The model has no tokenizer, and tasks are text.", "Give a model with its tokenizer.")
    tokenizer, vocabulary = source.tokenizer, source.vocabulary
    length = min(source.maximum_length or DEFAULT_MAXIMUM_LENGTH, DEFAULT_MAXIMUM_LENGTH)

    def score(model: ReferenceModel) -> list[TaskScore]:
        return score_tasks(
            model, tokenizer, vocabulary, length, options.task, options.tasks_folder, options.limit, flag.check
        )

    scores = {"original": score(TorchReferenceModel(source.model))}
    del source
    for folder, recipe in folders:
        scores[recipe] = score(container_for(parse_recipe(recipe)).load(folder, device.type, snapshot.directory))
    return scores


def scores_document(scores: dict[str, list[TaskScore]]) -> dict[str, Any]:
    """For JSON."""
    return {"ok": True, "scores": {name: [asdict(score) for score in found] for name, found in scores.items()}}
