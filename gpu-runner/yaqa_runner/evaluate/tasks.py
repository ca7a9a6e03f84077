"""Multiple-choice likelihood tasks through lm-eval, on the original and on finished folders.

lm-eval is an extra (``pip install 'yaqa-runner[evaluate]'``). It scores by log-likelihoods that come from the same
loaders as the KL figures, so every container can be asked, GGUF and ONNX included.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from yaqa_runner.evaluate.reference import evaluation_batch
from yaqa_runner.formats.container import ReferenceModel
from yaqa_runner.protocol.failures import InvalidSpec


class TextTokenizer(Protocol):
    """What is needed of a tokenizer."""

    def __call__(self, text: str, /, *, add_special_tokens: bool) -> Any: ...


@dataclass(frozen=True)
class TaskScore:
    """One figure of one task: ``value`` with its standard error over the task's questions."""

    task: str
    metric: str
    value: float
    standard_error: float | None
    questions: int


def require_lm_eval() -> None:
    """Before anything is loaded.

    Raises:
        InvalidSpec: lm-eval is not installed.
    """
    if importlib.util.find_spec("lm_eval") is None:
        raise InvalidSpec(
            "Tasks are scored by lm-eval, which is not installed here.", "pip install 'yaqa-runner[evaluate]'"
        )


def score_tasks(
    model: ReferenceModel,
    tokenizer: TextTokenizer,
    vocabulary: int,
    maximum_length: int,
    tasks: Sequence[str],
    folder: Path | None = None,
    limit: int | None = None,
    check: Callable[[], None] = lambda: None,
) -> list[TaskScore]:
    """Scores of ``model`` on ``tasks``, by lm-eval's names or those of YAML files in ``folder``.

    ``limit`` takes that many questions of each task.

    Raises:
        InvalidSpec: lm-eval is not installed, does not know a task, or a task generates text.
    """
    require_lm_eval()
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=None if folder is None else str(folder))
    unknown = [task for task in tasks if task not in manager.all_tasks]
    if unknown:
        raise InvalidSpec(
            f"lm-eval has no task named {unknown[0][:80]!r}.", "See lm-eval ls tasks, or give --tasks-folder."
        )
    found = simple_evaluate(
        model=_likelihoods(model, tokenizer, vocabulary, maximum_length, check),
        tasks=list(tasks),
        task_manager=manager,
        limit=limit,
        bootstrap_iters=0,
        log_samples=False,
    )
    scores = []
    for task, figures in sorted(found["results"].items()):
        questions = int(found["n-samples"][task]["effective"]) if task in found["n-samples"] else 0
        for key, value in figures.items():
            metric, separator, _ = key.partition(",")
            if not separator or metric.endswith("_stderr") or not isinstance(value, (int, float)):
                continue
            error = figures.get(key.replace(f"{metric},", f"{metric}_stderr,"))
            scores.append(
                TaskScore(task, metric, float(value), float(error) if isinstance(error, float) else None, questions)
            )
    return scores


def _likelihoods(
    model: ReferenceModel,
    tokenizer: TextTokenizer,
    vocabulary: int,
    maximum_length: int,
    check: Callable[[], None],
) -> Any:
    from lm_eval.api.model import LM

    class Likelihoods(LM):  # type: ignore[misc]
        """lm-eval's view of a model that gives log-probabilities."""

        def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
            pairs = []
            for request in requests:
                context, continuation = request.args
                # A space that ends the context belongs to the continuation's first token.
                kept = context.rstrip()
                continuation = context[len(kept) :] + continuation
                whole = tokenizer(kept + continuation, add_special_tokens=True)["input_ids"]
                start = len(tokenizer(kept, add_special_tokens=True)["input_ids"]) if kept else 1
                whole = whole if len(whole) > start else [*whole[:1], *whole]
                cut = max(0, len(whole) - maximum_length)
                pairs.append((whole[cut:], max(1, start - cut)))
            return continuation_likelihoods(model, pairs, vocabulary, check)

        def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
            raise InvalidSpec("This task scores whole documents.", "Ask for multiple-choice tasks.")

        def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
            raise InvalidSpec("This task generates text.", "Ask for multiple-choice likelihood tasks.")

    return Likelihoods()


def continuation_likelihoods(
    model: ReferenceModel, pairs: Sequence[tuple[list[int], int]], vocabulary: int, check: Callable[[], None]
) -> list[tuple[float, bool]]:
    """Summed log-likelihood of each sequence's tokens from ``start`` on, and whether each was the most likely one.

    ``pairs`` are token ids and ``start`` ≥ 1. Sequences of like length share a batch, padded on the right, which a
    causal model does not see.
    """
    results: list[tuple[float, bool]] = [(0.0, False)] * len(pairs)
    order = sorted(range(len(pairs)), key=lambda index: -len(pairs[index][0]))
    position = 0
    while position < len(order):
        check()
        length = len(pairs[order[position]][0])
        batch = order[position : position + evaluation_batch(length, vocabulary)]
        ids = torch.zeros(len(batch), length, dtype=torch.int64)
        for row, index in enumerate(batch):
            ids[row, : len(pairs[index][0])] = torch.tensor(pairs[index][0])
        values = model.log_probabilities(ids)
        for row, index in enumerate(batch):
            tokens, start = pairs[index]
            rows = values[row, start - 1 : len(tokens) - 1]
            wanted = ids[row, start : len(tokens)]
            total = float(rows.double().gather(-1, wanted[:, None]).sum())
            results[index] = (total, bool((rows.argmax(-1) == wanted).all()))
        position += len(batch)
    return results
