"""Token sequences are mixed, repeatable, disjoint, and short texts are told of."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_checkpoints import save_checkpoint

from yaqa_runner.calibration.overlap import HeldOut
from yaqa_runner.calibration.self_sample import pick, sample_sequences
from yaqa_runner.calibration.splits import build_splits
from yaqa_runner.calibration.text import calibration_from_text, evaluation_from_text, tokenize_file
from yaqa_runner.model.load import SourceModel, load_source_model
from yaqa_runner.model.snapshot import inspect_snapshot
from yaqa_runner.monitor import Monitor
from yaqa_runner.protocol.failures import InvalidSpec
from yaqa_runner.protocol.job_spec import Evaluation, EvaluationText, SelfCalibration, TextCalibration


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> SourceModel:
    directory = save_checkpoint(tmp_path_factory.mktemp("models") / "llama", "llama")
    return load_source_model(inspect_snapshot(directory), torch.device("cpu"))


def words(seed: int, count: int) -> str:
    generator = random.Random(seed)
    return " ".join("".join(generator.choices("abcdefghij", k=generator.randint(2, 8))) for _ in range(count))


def text_file(folder: Path, name: str, seed: int, count: int = 2000) -> Path:
    path = folder / name
    path.write_text(words(seed, count), encoding="utf-8")
    return path


def silent(code: str, message: str) -> None:
    raise AssertionError(f"unexpected warning {code}: {message}")


def test_sequences_are_repeatable_and_mixed_over_files(source: SourceModel, tmp_path: Path) -> None:
    files = [text_file(tmp_path, "one.txt", 1), text_file(tmp_path, "two.txt", 2)]
    sets = [calibration_from_text(files, source.tokenizer, 20, 32, seed, HeldOut(), silent) for seed in (5, 5, 6)]
    assert sets[0].sha256 == sets[1].sha256 != sets[2].sha256
    assert tuple(sets[0].tokens.shape) == (20, 32)
    first_file = {
        tuple(row) for row in tokenize_file(files[0], source.tokenizer, 10**6)[: 32 * 200].reshape(-1, 32).tolist()
    }
    from_first = sum(tuple(row) in first_file for row in sets[0].tokens.tolist())
    assert from_first == 10


def test_a_text_shorter_than_one_sequence_is_repeated_and_told_of(source: SourceModel, tmp_path: Path) -> None:
    path = tmp_path / "short.txt"
    path.write_text("a few words", encoding="utf-8")
    warnings: list[str] = []
    tokens = calibration_from_text([path], source.tokenizer, 3, 64, 0, HeldOut(), lambda code, _: warnings.append(code))
    assert tuple(tokens.tokens.shape) == (3, 64)
    period = len(tokenize_file(path, source.tokenizer, 100))
    assert tokens.tokens[0, :period].tolist() == tokens.tokens[0, period : 2 * period].tolist()
    assert "calibration-text-short" in warnings


def test_too_little_text_is_filled_with_other_windows_and_told_of(source: SourceModel, tmp_path: Path) -> None:
    path = text_file(tmp_path, "some.txt", 3, 60)
    warnings: list[str] = []
    tokens = calibration_from_text(
        [path], source.tokenizer, 40, 32, 0, HeldOut(), lambda code, _: warnings.append(code)
    )
    assert tokens.sequences == 40
    assert len({tuple(row) for row in tokens.tokens.tolist()}) > 20
    assert warnings == ["calibration-text-short"]


def test_held_out_text_never_reaches_calibration_even_at_another_offset(source: SourceModel, tmp_path: Path) -> None:
    held = words(7, 400)
    report = tmp_path / "report.txt"
    report.write_text(held, encoding="utf-8")
    calibration = tmp_path / "calibration.txt"
    calibration.write_text(words(8, 400) + " xyz " + held + " " + words(9, 400), encoding="utf-8")
    evaluation = Evaluation(
        selection=[EvaluationText(domain="one", path=str(text_file(tmp_path, "selection.txt", 10)))],
        report=[EvaluationText(domain="one", path=str(report))],
        sequences=16,
        length=32,
        verification_sequences=1,
    )
    splits = build_splits(
        source,
        TextCalibration(kind="text", files=[str(calibration)], sequences=64, length=48, seed=0),
        evaluation,
    )
    grams = {
        tuple(row[start : start + 24])
        for row in splits.report[0].tokens.tokens.tolist()
        for start in range(len(row) - 23)
    }
    for row in splits.calibration.tokens.tolist():
        repeated = sum(tuple(row[start : start + 24]) in grams for start in range(len(row) - 23))
        assert repeated <= 0.5 * len(row)


def test_the_same_text_for_two_splits_is_refused(source: SourceModel, tmp_path: Path) -> None:
    path = text_file(tmp_path, "same.txt", 4, 300)
    held = HeldOut()
    report = evaluation_from_text(path, source.tokenizer, 1000, 32, held, lambda code, message: None)
    held.add(report.tokens.numpy())
    with pytest.raises(InvalidSpec, match="repeats"):
        evaluation_from_text(path, source.tokenizer, 1000, 32, held, lambda code, message: None)
    with pytest.raises(InvalidSpec, match="also in the selection or report"):
        calibration_from_text([path], source.tokenizer, 4, 32, 0, held, lambda code, message: None)


def test_a_short_evaluation_text_gives_two_sequences(source: SourceModel, tmp_path: Path) -> None:
    path = tmp_path / "short.txt"
    path.write_text(words(5, 12), encoding="utf-8")
    warnings: list[str] = []
    tokens = evaluation_from_text(path, source.tokenizer, 8, 100, HeldOut(), lambda code, _: warnings.append(code))
    assert tokens.sequences == 2 and tokens.length < 100
    assert set(warnings) == {"evaluation-text-short"}


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\xfa", b"text\0with nul"])
def test_files_that_are_no_text_are_refused(source: SourceModel, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.txt"
    path.write_bytes(content)
    with pytest.raises(InvalidSpec):
        tokenize_file(path, source.tokenizer, 100)
    with pytest.raises(InvalidSpec):
        tokenize_file(tmp_path / "missing.txt", source.tokenizer, 100)


def test_samples_of_the_model_do_not_depend_on_the_batch(source: SourceModel) -> None:
    whole = sample_sequences(source.model, 5, 12, 3, 0, batch=5)
    parts = sample_sequences(source.model, 5, 12, 3, 0, batch=2)
    assert torch.equal(whole.tokens, parts.tokens)
    assert bool((whole.tokens[:, 0] == 0).all())
    assert not torch.equal(whole.tokens, sample_sequences(source.model, 5, 12, 4, 0).tokens)


def test_draws_follow_the_distribution() -> None:
    logits = torch.tensor([0.1, 0.2, 0.7]).log().expand(20_000, 3)
    uniform = torch.rand(20_000, generator=torch.Generator().manual_seed(0))
    shares = torch.bincount(pick(logits, uniform), minlength=3) / 20_000
    assert torch.allclose(shares, torch.tensor([0.1, 0.2, 0.7]), atol=0.02)
    assert int(pick(torch.zeros(1, 4), torch.tensor([0.999999999]))) == 3


def test_without_texts_all_three_splits_are_sampled_and_differ(source: SourceModel) -> None:
    warnings: list[str] = []
    splits = build_splits(
        source,
        SelfCalibration(kind="self", sequences=4, length=400, seed=0),
        Evaluation(selection=[], report=[], sequences=2, length=16, verification_sequences=1),
        Monitor(warn=lambda code, _: warnings.append(code)),
    )
    assert warnings == ["length-capped"]
    assert splits.calibration.length == 128
    assert splits.report[0].domain == "self"
    hashes = {splits.calibration.sha256, splits.selection[0].tokens.sha256, splits.report[0].tokens.sha256}
    assert len(hashes) == 3


def test_the_overlap_of_a_window_is_the_share_of_its_grams() -> None:
    held = HeldOut()
    window = np.arange(64, dtype=np.int64)
    assert held.share(window) == 0.0
    held.add(window[None, :])
    assert held.share(window[5:60]) == 1.0
    assert held.share(np.arange(100, 164, dtype=np.int64)) == 0.0
    assert 0.3 < held.share(np.concatenate([window[:40], np.arange(100, 124)])) < 0.7
