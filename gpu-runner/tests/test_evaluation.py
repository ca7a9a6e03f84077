"""Figures follow their definitions, in bounded memory, and the gate picks the best."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_checkpoints import save_checkpoint

from yaqa_runner.calibration.splits import EvaluationSet
from yaqa_runner.calibration.tokens import TokenSet
from yaqa_runner.evaluate import verification as verification_module
from yaqa_runner.evaluate.gate import choose
from yaqa_runner.evaluate.measure import measure
from yaqa_runner.evaluate.reference import OriginalReference
from yaqa_runner.evaluate.statistics import Comparison, clustered_estimate, compare, join, summarize, token_kl
from yaqa_runner.evaluate.verification import choose_verification, verification_kl, write_verification
from yaqa_runner.formats.torch_reference import TorchReferenceModel
from yaqa_runner.model.load import SourceModel, load_source_model
from yaqa_runner.model.snapshot import inspect_snapshot
from yaqa_runner.protocol.failures import RunnerFailure


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> SourceModel:
    directory = save_checkpoint(tmp_path_factory.mktemp("models") / "llama", "llama")
    return load_source_model(inspect_snapshot(directory), torch.device("cpu"))


def texts(count: int = 2, sequences: int = 5, length: int = 10) -> list[EvaluationSet]:
    generator = torch.Generator().manual_seed(0)
    return [
        EvaluationSet("report", f"text-{n}", TokenSet(torch.randint(2, 300, (sequences, length), generator=generator)))
        for n in range(count)
    ]


class Flat:
    """Predicts every token alike, or whatever it is told to."""

    def __init__(self, vocabulary: int, value: float | None = None) -> None:
        self.vocabulary = vocabulary
        self.value = -math.log(vocabulary) if value is None else value

    def log_probabilities(self, input_ids: torch.Tensor) -> torch.Tensor:
        return torch.full((*input_ids.shape, self.vocabulary), self.value)


def test_kl_is_the_sum_of_its_definition() -> None:
    generator = torch.Generator().manual_seed(0)
    p, q = (torch.randn(3, 700, 11, generator=generator).log_softmax(-1) for _ in range(2))
    expected = torch.nn.functional.kl_div(q, p, log_target=True, reduction="none").sum(-1)
    assert torch.allclose(token_kl(p, q), expected, atol=1e-6)
    assert float(token_kl(p, p).abs().max()) == 0


def test_a_mean_kl_is_never_below_zero() -> None:
    # Two models that agree to the last digits of float32.
    noise = torch.tensor([[1e-8, -3e-8, 1e-9]])
    agree, losses = torch.ones(1, 3, dtype=torch.bool), torch.ones(1, 2)
    assert summarize([Comparison(noise, agree, losses, losses)]).kl_nats.mean == 0


def test_the_standard_error_clusters_by_sequence_within_texts() -> None:
    # All tokens of a sequence alike: the error is that of 4 values, however many tokens repeat them.
    values = torch.tensor([1.0, 2.0, 3.0, 6.0])
    mean, error = clustered_estimate([values[:, None].expand(4, 100)])
    assert mean == pytest.approx(3.0)
    assert error == pytest.approx(float(values.std()) / 2)
    # Texts that differ, but not within: no error.
    assert clustered_estimate([torch.zeros(3, 5), torch.ones(3, 5)]) == (0.5, 0.0)
    assert clustered_estimate([torch.ones(1, 5)]) == (1.0, 0.0)


def test_metrics_against_a_flat_model(source: SourceModel, tmp_path: Path) -> None:
    reference = OriginalReference(source, tmp_path)
    sets = texts()
    reference.prepare(sets)
    flat = Flat(source.vocabulary)
    metrics = summarize([measure(flat, item, reference) for item in sets])
    assert metrics.perplexity.quantized == pytest.approx(source.vocabulary, rel=1e-4)
    assert metrics.sequences == 10 and metrics.tokens == 100
    entropy = [-(p.exp() * p).sum(-1) for p in (reference.log_probabilities(item, 0, 5) for item in sets)]
    expected = math.log(source.vocabulary) - float(torch.stack(entropy).mean())
    assert metrics.kl_nats.mean == pytest.approx(expected, rel=1e-4)
    assert metrics.kl_nats.median <= metrics.kl_nats.p90 <= metrics.kl_nats.p99


def test_the_original_against_itself_is_zero(source: SourceModel, tmp_path: Path) -> None:
    reference = OriginalReference(source, tmp_path)
    same = TorchReferenceModel(source.model)  # type: ignore[arg-type]
    metrics = summarize([measure(same, item, reference) for item in texts()])
    assert abs(metrics.kl_nats.mean) < 1e-7
    assert metrics.top_one_agreement == 1
    assert metrics.perplexity.ratio == pytest.approx(1)


def test_cached_and_recomputed_references_agree(
    source: SourceModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = texts()
    cached, recomputed = OriginalReference(source, tmp_path / "a"), OriginalReference(source, tmp_path / "b")
    cached.prepare(sets)
    monkeypatch.setattr("yaqa_runner.evaluate.reference.DISK_SHARE", 0.0)
    recomputed.prepare(sets)
    assert len(list((tmp_path / "a").iterdir())) == 2 and not list((tmp_path / "b").iterdir())
    one, two = cached.log_probabilities(sets[1], 1, 4), recomputed.log_probabilities(sets[1], 1, 4)
    assert torch.allclose(one, two, atol=1e-5)


def test_batches_join_to_the_whole() -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 11, (4, 9), generator=generator)
    p, q = (torch.randn(4, 9, 11, generator=generator).log_softmax(-1) for _ in range(2))
    whole = summarize([compare(tokens, p, q)])
    parts = [compare(tokens[rows], p[rows], q[rows]) for rows in (slice(0, 3), slice(3, 4))]
    assert summarize([join(parts)]) == whole


@pytest.mark.parametrize("broken", [Flat(7), Flat(320, float("nan"))])
def test_files_of_another_vocabulary_or_without_numbers_fail(source: SourceModel, tmp_path: Path, broken: Flat) -> None:
    with pytest.raises(RunnerFailure):
        measure(broken, texts()[0], OriginalReference(source, tmp_path))


def test_verification_tensors_stay_in_bounds_and_give_the_kl(
    source: SourceModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = OriginalReference(source, tmp_path)
    sets = texts()
    whole = choose_verification(sets, reference, 4)
    assert tuple(whole.log_probabilities.shape) == (4, 10, source.vocabulary)
    # In turn from both texts.
    assert torch.equal(whole.input_ids[1], sets[1].tokens.tokens[0])
    monkeypatch.setattr(verification_module, "MAXIMUM_BYTES", 4 * source.vocabulary * 13)
    bounded = choose_verification(sets, reference, 4)
    assert bounded.positions.shape == (4, 3)
    assert bounded.positions[0].tolist() == [0, 4, 9] or bounded.positions[0].tolist() == [0, 5, 9]
    path = tmp_path / "verification.safetensors"
    write_verification(bounded, path)
    stored = load_file(path)
    assert stored["input_ids"].dtype == torch.int64 and stored["log_probabilities"].dtype == torch.float32
    flat = Flat(source.vocabulary)
    expected = token_kl(stored["log_probabilities"], flat.log_probabilities(stored["positions"])).mean()
    assert verification_kl(flat, bounded).mean == pytest.approx(float(expected), rel=1e-5)


def texts_of(mean: float, spread: float = 0.01, seed: int = 0) -> list[torch.Tensor]:
    """KL of two texts of eight sequences, which differ by ``spread``."""
    generator = torch.Generator().manual_seed(seed)
    noise = spread * torch.randn(2, 8, 1, generator=generator)
    return [mean + part.expand(8, 5) for part in noise - noise.mean()]


def test_the_gate_picks_the_least_kl_and_the_simpler_of_equals() -> None:
    gate = choose({"rtn": texts_of(0.3), "one-sided": texts_of(0.2), "two-sided": texts_of(0.1)})
    assert gate.winner == "two-sided" and "50 % less" in gate.reason
    assert gate.selection[-1].kl_nats.mean == pytest.approx(0.1)
    worse = choose({"rtn": texts_of(0.3), "one-sided": texts_of(0.1), "two-sided": texts_of(0.2)})
    assert worse.winner == "one-sided"
    assert choose(dict.fromkeys(("rtn", "one-sided", "two-sided"), texts_of(0.1))).winner == "rtn"
    assert choose(dict.fromkeys(("two-sided-cautious", "two-sided"), texts_of(0.1))).winner == "two-sided-cautious"
    tuned = choose({"one-sided": texts_of(0.3), "two-sided": texts_of(0.2), "two-sided-tuned": texts_of(0.1)})
    assert tuned.winner == "two-sided-tuned" and "tuned scales" in tuned.reason
    with pytest.raises(ValueError):
        choose({})


def test_of_what_the_selection_text_does_not_tell_apart_the_gate_picks_what_took_most_from_calibration() -> None:
    behind = texts_of(0.1001, seed=1)
    gate = choose({"one-sided": texts_of(0.3), "two-sided": texts_of(0.1), "two-sided-tuned": behind})
    assert gate.winner == "two-sided-tuned"
    assert "does not tell it from the least KL" in gate.reason and "two-sided rounding 0.10000" in gate.reason
    # The same distance on every sequence is no chance.
    surely = choose({"two-sided": texts_of(0.1), "two-sided-tuned": texts_of(0.1001)})
    assert surely.winner == "two-sided"
    # Nothing that rests on the sketch is given preference over rounding without it.
    plain = choose({"one-sided": texts_of(0.1), "two-sided": behind, "two-sided-tuned": behind})
    assert plain.winner == "one-sided"
    # Nor what lies beyond it, although something else that rests on the sketch has the least.
    beyond = choose({"two-sided-cautious": texts_of(0.1), "one-sided": texts_of(0.10002), "two-sided": behind})
    assert beyond.winner == "two-sided-cautious"
