"""Multiple-choice tasks: likelihoods by hand, and lm-eval itself where it is installed."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from tiny_checkpoints import save_checkpoint
from tiny_jobs import document, run

from yaqa_runner.cli.main import main
from yaqa_runner.evaluate.tasks import continuation_likelihoods, require_lm_eval
from yaqa_runner.formats.torch_reference import TorchReferenceModel
from yaqa_runner.model.load import load_source_model
from yaqa_runner.model.snapshot import inspect_snapshot
from yaqa_runner.protocol.failures import InvalidSpec

HAS_LM_EVAL = importlib.util.find_spec("lm_eval") is not None


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("models") / "llama", "llama", num_hidden_layers=1)


def test_likelihoods_do_not_depend_on_the_batch_and_are_those_of_the_logits(model: Path) -> None:
    reference = TorchReferenceModel(load_source_model(inspect_snapshot(model), torch.device("cpu")).model)
    pairs = [([5, 6, 7, 8], 2), ([9, 10], 1), ([11, 12, 13, 14, 15, 16], 5)]
    together = continuation_likelihoods(reference, pairs, 320, lambda: None)
    for (tokens, start), (total, greedy) in zip(pairs, together, strict=True):
        values = reference.log_probabilities(torch.tensor([tokens]))[0]
        expected = sum(float(values[place - 1, tokens[place]]) for place in range(start, len(tokens)))
        assert total == pytest.approx(expected, abs=1e-4)
        assert greedy == all(int(values[place - 1].argmax()) == tokens[place] for place in range(start, len(tokens)))


@pytest.mark.skipif(HAS_LM_EVAL, reason="lm-eval is installed")
def test_without_lm_eval_the_remedy_is_told(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InvalidSpec, match="not installed") as caught:
        require_lm_eval()
    assert "yaqa-runner[evaluate]" in caught.value.remedy


@pytest.mark.skipif(not HAS_LM_EVAL, reason="lm-eval is not installed: pip install 'yaqa-runner[evaluate]'")
def test_a_local_task_scores_the_original_and_a_variant(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    run(document(model, tmp_path / "out", "gguf:q8_0,refine=0,tune=off"), tmp_path / "out")
    questions = [
        {"question": f"the {word} a", "choices": ["the th", " a the", "xyz"], "answer": number % 3}
        for number, word in enumerate(("sea", "sky", "hat", "the", "end", "cat", "dog", "sun"))
    ]
    (tmp_path / "questions.jsonl").write_text("\n".join(map(json.dumps, questions)), encoding="utf-8")
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    (tasks / "tiny.yaml").write_text(
        f"""task: tiny_choice
dataset_path: json
dataset_kwargs:
  data_files:
    test: {tmp_path / "questions.jsonl"}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
metric_list:
  - metric: acc
""",
        encoding="utf-8",
    )
    arguments = ["evaluate", str(model), "--variant", str(tmp_path / "out" / "gguf-q8-0-refine-0-tune-off")]
    arguments += ["--task", "tiny_choice", "--tasks-folder", str(tasks), "--device", "cpu", "--json"]
    assert main(arguments) == 0
    scores = json.loads(capfd.readouterr().out.strip().splitlines()[-1])["scores"]
    assert list(scores) == ["original", "gguf:q8_0,refine=0,tune=off"]
    for found in scores.values():
        (score,) = found
        assert (score["task"], score["metric"], score["questions"]) == ("tiny_choice", "acc", 8)
        assert 0 <= score["value"] <= 1
    assert main(["evaluate", str(model), "--task", "no_such_task", "--device", "cpu"]) == 2
    assert "no task named" in capfd.readouterr().err
