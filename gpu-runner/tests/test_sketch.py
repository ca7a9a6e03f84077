"""Sketches agree with the literal reference, whatever order, batch or memory plan computes them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from taken_sketches import PLENTY, Whole, take
from tiny_checkpoints import save_checkpoint

from yaqa_runner.calibration.tokens import TokenSet
from yaqa_runner.model.linears import LinearLayer
from yaqa_runner.model.load import SourceModel, load_source_model
from yaqa_runner.model.snapshot import inspect_snapshot
from yaqa_runner.protocol.failures import Interrupted
from yaqa_runner.rounding.linalg.factor import prepare_factor
from yaqa_runner.sketches import compute as compute_module
from yaqa_runner.sketches.capture import visit_gradients, visit_inputs
from yaqa_runner.sketches.compute import shared_input_representatives
from yaqa_runner.sketches.contraction import (
    add_sequence_moments,
    add_sequence_moments_through,
    add_weighted_moment,
    cheapest_order,
    mirror,
    quadratic_forms,
)
from yaqa_runner.sketches.evidence import effective_rank, estimate_cosine
from yaqa_runner.sketches.iteration import FactorPlace, IterationA, IterationB
from yaqa_runner.sketches.labels import sampled_label_gradient
from yaqa_runner.sketches.memory import plan_memory
from yaqa_runner.sketches.reference import cosine_similarity, sketch_a, sketch_b
from yaqa_runner.sketches.regularize import regularize, regularized_moment
from yaqa_runner.sketches.settings import SketchSettings, sketch_key
from yaqa_runner.sketches.store import LayerFactors, SketchUnreadable, link_sketch, open_sketch
from yaqa_runner.sketches.triangle import Triangle, pack_triangle, packed_triangle

CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SourceModel:
    directory = save_checkpoint(tmp_path_factory.mktemp("models") / request.param, request.param)
    return load_source_model(inspect_snapshot(directory), CPU)


@pytest.fixture(scope="module")
def tokens() -> TokenSet:
    return TokenSet(torch.randint(2, 300, (6, 12), generator=torch.Generator().manual_seed(1)))


def triangle(matrix: torch.Tensor) -> Triangle:
    """The symmetric ``matrix`` as a sketch stores it."""
    packed = pack_triangle(matrix)
    return packed_triangle(lambda start, stop: packed[start:stop], len(packed))


def captured(source: SourceModel, tokens: TokenSet, seed: int) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Inputs and gradients of every linear, ``[S, T, n]``, by autograd through retained outputs."""
    found: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    outputs: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    handles = [
        layer.module.register_forward_hook(
            lambda module, inputs, output, name=layer.name: outputs.__setitem__(name, (inputs[0], output))
        )
        for layer in source.linears
    ]
    source.model.requires_grad_(True)
    try:
        logits = source.model(input_ids=tokens.tokens, use_cache=False).logits
        labels_gradient = sampled_label_gradient(logits.detach(), seed, 0, 0)
        labels = (torch.softmax(logits.detach(), -1) - labels_gradient).argmax(-1)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
        names = list(outputs)
        gradients = torch.autograd.grad(loss, [outputs[name][1] for name in names])
        for name, gradient in zip(names, gradients, strict=True):
            found[name] = (outputs[name][0].detach(), gradient.detach())
    finally:
        for handle in handles:
            handle.remove()
        source.model.requires_grad_(False)
    return found


def close(actual: torch.Tensor, expected: torch.Tensor) -> bool:
    return torch.allclose(actual.double(), expected.double(), rtol=2e-3, atol=1e-4 * float(expected.abs().max()))


def test_hooks_capture_inputs_and_gradients_of_the_summed_loss(source: SourceModel, tokens: TokenSet) -> None:
    expected = captured(source, tokens, 3)
    seen: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    visit_gradients(
        source.model, source.linears, tokens.tokens, 3, 0, 1, lambda layer, x, g: seen.__setitem__(layer.name, (x, g))
    )
    assert set(seen) == {layer.name for layer in source.linears}
    for name, (x, g) in seen.items():
        assert close(x, expected[name][0]), name
        assert close(g, expected[name][1]), name
    assert all(parameter.grad is None for parameter in source.model.parameters())


@pytest.mark.parametrize("recompute", [False, True])
def test_gradients_of_later_blocks_do_not_go_through_earlier_ones(
    source: SourceModel, tokens: TokenSet, recompute: bool
) -> None:
    expected = captured(source, tokens, 3)
    last = max(layer.block for layer in source.linears)
    assert last > 0
    earlier = next(layer for layer in source.linears if layer.block == 0)
    wanted: list[bool] = []
    handle = earlier.module.register_forward_hook(lambda module, inputs, output: wanted.append(output.requires_grad))
    seen: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    later = [layer for layer in source.linears if layer.block == last]
    try:
        visit_gradients(
            source.model,
            later,
            tokens.tokens,
            3,
            0,
            1,
            lambda layer, x, g: seen.__setitem__(layer.name, (x, g)),
            recompute,
        )
    finally:
        handle.remove()
    assert wanted and not any(wanted)
    assert set(seen) == {layer.name for layer in later}
    for name, (x, g) in seen.items():
        assert close(x, expected[name][0]) and close(g, expected[name][1]), name


def test_sketch_a_is_the_literal_power_iteration(source: SourceModel, tokens: TokenSet, tmp_path: Path) -> None:
    data = captured(source, tokens, 3)
    sketch = take(source, tokens, SketchSettings("a", 4, 3), tmp_path / "a")
    for layer in source.linears[:5]:
        x, g = (part.flatten(0, 1) for part in data[layer.name])
        expected_input, expected_output = sketch_a(x, g, 4)
        factors = Whole.of(sketch, layer.name)
        assert close(factors.input, expected_input), layer.name
        assert close(factors.output, expected_output), layer.name
        assert close(factors.second_moment, x.double().T @ x.double() / len(x)), layer.name


def test_the_first_half_step_is_the_second_moment(source: SourceModel, tokens: TokenSet, tmp_path: Path) -> None:
    sketch = take(source, tokens, SketchSettings("a", 1, 3), tmp_path / "a")
    for layer in source.linears:
        factors = Whole.of(sketch, layer.name)
        assert torch.equal(factors.input, factors.second_moment)
        assert torch.equal(factors.output, torch.eye(layer.rows))


@pytest.mark.parametrize("rounds", [1, 2])
def test_sketch_b_is_the_literal_sum_over_sequences(
    source: SourceModel, tokens: TokenSet, tmp_path: Path, rounds: int
) -> None:
    data = captured(source, tokens, 3)
    sketch = take(source, tokens, SketchSettings("b", rounds, 3), tmp_path / "b")
    for layer in source.linears[:4]:
        x, g = data[layer.name]
        expected_input, expected_output = sketch_b(x, g, rounds)
        factors = Whole.of(sketch, layer.name)
        assert close(factors.input / factors.input.trace(), expected_input / expected_input.trace()), layer.name
        assert close(factors.output / factors.output.trace(), expected_output / expected_output.trace()), layer.name
        gradients = g.double().transpose(1, 2) @ x.double()
        trace = float(gradients.square().sum()) / tokens.count
        assert float(factors.input.trace() * factors.output.trace()) == pytest.approx(trace, rel=1e-3)


@pytest.mark.parametrize("kind", ["a", "b"])
def test_streaming_gives_what_caching_gives(source: SourceModel, tokens: TokenSet, tmp_path: Path, kind: str) -> None:
    settings = SketchSettings(kind, 3, 3, label_samples=2)  # type: ignore[arg-type]
    cached = take(source, tokens, settings, tmp_path / "cached")
    assert plan_memory(source.linears, 6, 12, settings, 1, CPU).mode == "streaming"
    streaming = take(source, tokens, settings, tmp_path / "streaming", budget=1)
    for layer in source.linears:
        one, other = (Whole.of(sketch, layer.name) for sketch in (cached, streaming))
        assert close(one.input, other.input), layer.name
        assert close(one.output, other.output), layer.name
        assert close(one.second_moment, other.second_moment), layer.name


def test_running_out_of_memory_halves_the_batch_and_changes_nothing(
    source: SourceModel, tokens: TokenSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = SketchSettings("a", 3, 3)
    expected = take(source, tokens, settings, tmp_path / "plenty")

    def scarce(model: object, layers: list[LinearLayer], batch: torch.Tensor, *rest: object) -> None:
        if len(batch) > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes.")
        visit_gradients(model, layers, batch, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(compute_module, "visit_gradients", scarce)
    warnings: list[str] = []
    scarcely = take(source, tokens, settings, tmp_path / "scarce", warn=lambda code, _: warnings.append(code))
    assert warnings and set(warnings) == {"batch-halved"}
    for layer in source.linears:
        assert close(Whole.of(scarcely, layer.name).output, Whole.of(expected, layer.name).output)


def test_one_sequence_that_does_not_fit_goes_on_without_keeping_activations(
    source: SourceModel, tokens: TokenSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = SketchSettings("a", 3, 3)
    expected = take(source, tokens, settings, tmp_path / "plenty")

    def scarce(*rest: object) -> None:
        if not rest[-1]:
            raise MemoryError
        visit_gradients(*rest)  # type: ignore[arg-type]

    monkeypatch.setattr(compute_module, "visit_gradients", scarce)
    warnings: list[str] = []
    scarcely = take(source, tokens, settings, tmp_path / "scarce", warn=lambda code, _: warnings.append(code))
    assert warnings == ["batch-halved", "batch-halved", "activations-recomputed"]
    for layer in source.linears:
        assert close(Whole.of(scarcely, layer.name).output, Whole.of(expected, layer.name).output)


def test_a_sequence_that_never_fits_fails(
    source: SourceModel, tokens: TokenSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*rest: object) -> None:
        raise MemoryError

    monkeypatch.setattr(compute_module, "visit_gradients", never)
    with pytest.raises(MemoryError):
        take(source, tokens, SketchSettings("a", 2, 3), tmp_path / "never")


def test_recomputed_activations_give_the_same_pairs(source: SourceModel, tokens: TokenSet) -> None:
    def pairs(recompute: bool) -> dict[str, list[tuple[torch.Tensor, torch.Tensor]]]:
        seen: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {}

        def visit(layer: LinearLayer, x: torch.Tensor, g: torch.Tensor) -> None:
            seen.setdefault(layer.name, []).append((x, g))

        visit_gradients(source.model, source.linears, tokens.tokens, 3, 0, 2, visit, recompute)
        return seen

    kept, anew = pairs(False), pairs(True)
    assert kept.keys() == anew.keys()
    for name, found in kept.items():
        assert len(found) == len(anew[name]) == 2
        for (x, g), (other_x, other_g) in zip(found, anew[name], strict=True):
            assert close(other_x, x) and close(other_g, g), name
    # Nothing of it stays in the model.
    plain = source.model(input_ids=tokens.tokens[:1]).logits
    assert not plain.requires_grad


@pytest.mark.parametrize("budget", [PLENTY, 1])
def test_an_interrupted_sketch_goes_on_where_it_was(
    source: SourceModel, tokens: TokenSet, tmp_path: Path, budget: int
) -> None:
    settings = SketchSettings("a", 4, 3)
    expected = take(source, tokens, settings, tmp_path / "whole", budget)
    calls = [0]

    def count() -> None:
        calls[0] += 1

    take(source, tokens, settings, tmp_path / "counted", budget, count)
    stop_at = int(calls[0] * 0.7)
    calls[0] = 0

    def interrupt() -> None:
        calls[0] += 1
        if calls[0] == stop_at:
            raise Interrupted

    with pytest.raises(Interrupted):
        take(source, tokens, settings, tmp_path / "resumed", budget, interrupt)
    assert not (tmp_path / "resumed").exists()
    calls[0] = 0
    resumed = take(source, tokens, settings, tmp_path / "resumed", budget, count)
    if budget == 1:
        assert calls[0] < stop_at
    assert {name: file.sha256 for name, file in resumed.record.files.items()} == {
        name: file.sha256 for name, file in expected.record.files.items()
    }


@pytest.mark.parametrize("kind", ["a", "b"])
def test_an_unfinished_half_step_goes_on_where_it_was(
    source: SourceModel, tokens: TokenSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    settings = SketchSettings(kind, 2, 3)  # type: ignore[arg-type]
    expected = take(source, tokens, settings, tmp_path / "whole", 1)
    monkeypatch.setattr(compute_module, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(compute_module, "CHECKPOINT_SHARE", 0)
    for stop_at in (4, 9):
        batches = [0]

        def interrupt(counted: list[int] = batches, last: int = stop_at) -> None:
            counted[0] += 1
            if counted[0] == last:
                raise Interrupted

        with pytest.raises(Interrupted):
            take(source, tokens, settings, tmp_path / "resumed", 1, interrupt)
    calls = [0]
    resumed = take(source, tokens, settings, tmp_path / "resumed", 1, lambda: calls.__setitem__(0, calls[0] + 1))
    # 11 of the batches were done before; every window takes two passes of six, and six more for the evidence.
    assert calls[0] == 2 * 18 - 11
    assert resumed.record.files == expected.record.files


def test_the_plan_puts_factors_where_they_fit(source: SourceModel) -> None:
    settings = SketchSettings("a", 3, 3)
    gpu = torch.device("cuda")
    cached = plan_memory(source.linears, 6, 12, settings, PLENTY, gpu)
    assert (cached.mode, cached.place, cached.recompute, cached.passes) == ("cached", "device", False, 1)
    factors = sum(4 * (3 * layer.columns**2 + 2 * layer.rows**2) for layer in source.linears)
    whole = plan_memory(source.linears, 10**6, 12, settings, factors, gpu)
    assert (whole.mode, whole.place, len(whole.windows)) == ("streaming", "device", 1)
    pinned = plan_memory(source.linears, 10**6, 12, settings, factors - 1, gpu, pinned=factors)
    assert (pinned.place, len(pinned.windows), pinned.passes) == ("pinned", 1, 3)
    windows = plan_memory(source.linears, 10**6, 12, settings, factors - 1, gpu, pinned=factors - 1)
    assert (windows.place, len(windows.windows), windows.passes) == ("device", 2, 6)
    assert "2 windows of linears" in windows.describe()
    assert plan_memory(source.linears, 6, 12, settings, 1, CPU).recompute


def test_rounded_operands_change_factors_by_no_more_than_their_rounding() -> None:
    generator = torch.Generator().manual_seed(0)
    x, g = torch.randn(4, 50, 96, generator=generator), torch.randn(4, 50, 64, generator=generator) * 1e-6
    for kind in (IterationA, IterationB):
        factors = []
        for precision in ("float32", "bfloat16"):
            iteration = kind(64, 96, FactorPlace(CPU, precision))  # type: ignore[arg-type]
            for step in (1, 2):
                iteration.begin(step)
                iteration.add(x, g)
                iteration.finish()
            factors.append(iteration.scaled_factors())
        for exact, rounded in zip(*factors, strict=True):
            difference = float((rounded - exact).norm() / exact.norm())
            assert 0 < difference < 5e-3


def test_label_samples_share_what_depends_on_their_inputs_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn(2, 50, 96, generator=generator) for _ in range(2)]
    samples = [[torch.randn(2, 50, 64, generator=generator) for _ in range(4)] for _ in batches]
    widths: list[int] = []

    def counted(seen: torch.Tensor, *others: object) -> torch.Tensor:
        widths.append(seen.shape[1])
        return quadratic_forms(seen, *others)  # type: ignore[arg-type]

    monkeypatch.setattr("yaqa_runner.sketches.iteration.quadratic_forms", counted)
    found = []
    for shared in (True, False):
        iteration = IterationA(64, 96, FactorPlace(CPU))
        for step in (1, 2):
            iteration.begin(step)
            for x, gradients in zip(batches, samples, strict=True):
                for g in gradients:
                    iteration.add(x if shared else x.clone(), g)
                if step == 2 and shared:
                    # As when an unfinished half step is kept.
                    kept = iteration.sums()
                    assert float(kept["counts"][0]) % 400 == 0
            iteration.finish()
        found.append(iteration.scaled_factors())
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-5 * float(other.abs().max()))
    assert [widths.count(96), widths.count(64)] == [2 + 8, 8 + 8]


def test_passes_in_bfloat16_change_factors_by_little(source: SourceModel, tokens: TokenSet, tmp_path: Path) -> None:
    settings = SketchSettings("a", 3, 0)
    exact = take(source, tokens, settings, tmp_path / "exact")
    narrow = take(source, tokens, settings, tmp_path / "narrow", precision="bfloat16")
    for layer in source.linears:
        one, other = Whole.of(exact, layer.name), Whole.of(narrow, layer.name)
        difference = (other.second_moment - one.second_moment).norm() / one.second_moment.norm()
        assert 0 < float(difference) < 0.02


@pytest.mark.skipif(not torch.cuda.is_available(), reason="skipped: no CUDA")
@pytest.mark.parametrize("pinned", [False, True])
@pytest.mark.parametrize("kind", [IterationA, IterationB])
def test_factors_on_cuda_differ_by_no_more_than_their_rounding(
    kind: type[IterationA] | type[IterationB], pinned: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    x, g = torch.randn(4, 50, 96, generator=generator), torch.randn(4, 50, 2100, generator=generator) * 1e-6
    places = FactorPlace(CPU), FactorPlace(CPU if pinned else torch.device("cuda"), "bfloat16", pinned)
    found = []
    for place, device in zip(places, ("cpu", "cuda"), strict=True):
        iteration = kind(2100, 96, place)
        for step in (1, 2, 3):
            iteration.begin(step)
            for row in range(4):
                iteration.add(x[row : row + 1].to(device), g[row : row + 1].to(device))
            iteration.finish()
        found.append(iteration.scaled_factors())
    for exact, rounded in zip(*found, strict=True):
        assert rounded.device.type == ("cpu" if pinned else "cuda")
        assert float((rounded.cpu() - exact).norm() / exact.norm()) < 1e-2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="skipped: no CUDA")
@pytest.mark.parametrize("budget", [PLENTY, 1])
def test_a_sketch_taken_on_cuda_is_the_cpus(tokens: TokenSet, tmp_path: Path, budget: int) -> None:
    directory = save_checkpoint(tmp_path / "model", "llama")
    settings = SketchSettings("a", 2, 3)
    here, there = (load_source_model(inspect_snapshot(directory), torch.device(name)) for name in ("cpu", "cuda"))
    expected = take(here, tokens, settings, tmp_path / "cpu", budget)
    found = take(there, tokens, settings, tmp_path / "cuda", budget)
    for layer in here.linears:
        for one, other in zip(
            (expected.factors(layer.name).input, expected.factors(layer.name).second_moment),
            (found.factors(layer.name).input, found.factors(layer.name).second_moment),
            strict=True,
        ):
            # The model itself may compute in another precision there; labels drawn near a tie may differ.
            assert float((one - other).norm() / one.norm()) < 3e-2, layer.name


def test_a_checkpoint_of_other_settings_is_not_taken_up(source: SourceModel, tokens: TokenSet, tmp_path: Path) -> None:
    calls = [0]

    def interrupt() -> None:
        calls[0] += 1
        if calls[0] == 6:
            raise Interrupted

    with pytest.raises(Interrupted):
        take(source, tokens, SketchSettings("a", 4, 3), tmp_path / "sketch", 1, interrupt)
    other = take(source, tokens, SketchSettings("a", 4, 99), tmp_path / "sketch", 1)
    clean = take(source, tokens, SketchSettings("a", 4, 99), tmp_path / "clean", 1)
    assert other.record.files == clean.record.files
    assert not list(tmp_path.glob("*.partial"))


def test_equal_inputs_are_stored_once(source: SourceModel, tokens: TokenSet) -> None:
    representatives = shared_input_representatives(source, tokens.tokens[:1])
    if any("q_proj" in name for name in representatives):
        assert representatives["model.layers.1.self_attn.v_proj"] == "model.layers.1.self_attn.q_proj"
        assert representatives["model.layers.1.mlp.up_proj"] == "model.layers.1.mlp.gate_proj"
        assert representatives["model.layers.1.mlp.down_proj"] == "model.layers.1.mlp.down_proj"
    seen: list[str] = []
    visit_inputs(source.model, source.linears, tokens.tokens, lambda layer, x: seen.append(layer.name))
    assert set(seen) == set(representatives)


def test_symmetric_products_and_both_contraction_orders_agree() -> None:
    generator = torch.Generator().manual_seed(0)
    x, g = torch.randn(3, 20, 300, generator=generator), torch.randn(3, 20, 210, generator=generator)
    direct, gram, through = ((torch.zeros(300, 300), torch.zeros(210, 210)) for _ in range(3))
    add_sequence_moments(*direct, x, g, "direct")
    add_sequence_moments(*gram, x, g, "gram")
    add_sequence_moments_through(*through, x, g, torch.eye(300), torch.eye(210))
    gradients = torch.einsum("sto,sti->soi", g.double(), x.double())
    exact = torch.einsum("soi,soj->ij", gradients, gradients), torch.einsum("soi,spi->op", gradients, gradients)
    for totals in (direct, gram, through):
        for total, expected in zip(totals, exact, strict=True):
            assert close(mirror(total), expected)
    flat = x.flatten(0, 1)
    factor = flat.T @ flat
    assert close(
        quadratic_forms(flat, factor), torch.einsum("ti,ij,tj->t", flat.double(), factor.double(), flat.double())
    )
    weights = torch.rand(60, generator=generator)
    total = torch.zeros(300, 300)
    for part in range(0, 60, 20):
        add_weighted_moment(total, flat[part : part + 20], weights[part : part + 20])
    assert close(mirror(total), flat.double().T @ (flat.double() * weights.double()[:, None]))


def test_the_cheaper_order_is_chosen_by_shape() -> None:
    assert cheapest_order(2048, 8192, 8192) == "gram"
    assert cheapest_order(8192, 256, 256) == "direct"


def test_labels_are_drawn_from_the_model_whatever_the_batch() -> None:
    logits = torch.randn(4, 50, 7, generator=torch.Generator().manual_seed(0))
    whole = sampled_label_gradient(logits, 1, 10, 0)
    assert torch.equal(whole[2:], sampled_label_gradient(logits[2:], 1, 12, 0))
    assert not torch.equal(whole, sampled_label_gradient(logits, 1, 10, 1))
    assert torch.allclose(whole.sum(-1), torch.zeros(4, 50), atol=1e-5)
    many = torch.stack([sampled_label_gradient(logits, seed, 0, 0) for seed in range(400)])
    assert float(many.mean(0).abs().max()) < 0.12


def test_the_cosine_estimate_is_near_the_brute_force_one() -> None:
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(6, 6, generator=generator) / 2 + torch.eye(6)
    gradients = mixing @ torch.randn(2000, 6, 5, generator=generator)
    factor_output = mixing @ mixing.T
    estimate = estimate_cosine(gradients, torch.eye(5), factor_output)
    assert estimate is not None
    assert estimate == pytest.approx(cosine_similarity(gradients, torch.eye(5), factor_output), abs=0.03)
    poor = estimate_cosine(gradients, torch.eye(5), torch.diag(torch.tensor([1.0, 0, 0, 0, 0, 0])))
    assert poor is not None and poor < estimate - 0.1
    assert estimate_cosine(torch.zeros(8, 3, 3), torch.eye(3), torch.eye(3)) is None


def test_effective_ranks() -> None:
    assert effective_rank(torch.eye(9)) == pytest.approx(9)
    assert effective_rank(torch.ones(9, 9)) == pytest.approx(1)
    assert effective_rank(torch.zeros(9, 9)) == 0


def test_triangles_come_back() -> None:
    matrix = torch.randn(7, 7)
    matrix = matrix + matrix.T
    packed = pack_triangle(matrix)
    assert packed.tolist()[:3] == [matrix[0, 0].item(), matrix[1, 0].item(), matrix[1, 1].item()]
    assert torch.equal(triangle(matrix).whole(), matrix)
    for start, stop in ((0, 7), (0, 1), (2, 5), (6, 7)):
        assert torch.equal(triangle(matrix).rows(start, stop), matrix[start:stop, :stop])
    with pytest.raises(ValueError):
        packed_triangle(lambda start, stop: torch.zeros(stop - start), 5)


def test_damaged_and_foreign_sketches_are_told_apart(source: SourceModel, tokens: TokenSet, tmp_path: Path) -> None:
    settings = SketchSettings("a", 2, 3)
    sketch = take(source, tokens, settings, tmp_path / "sketch")
    assert sketch.key == sketch_key("0" * 64, tokens.sha256, settings)
    assert open_sketch(tmp_path / "sketch", sketch.key).layers.keys() == sketch.layers.keys()
    linked = link_sketch(sketch, tmp_path / "linked")
    assert linked.record == sketch.record
    with pytest.raises(SketchUnreadable, match="another source"):
        open_sketch(tmp_path / "sketch", "f" * 64)
    with pytest.raises(SketchUnreadable):
        open_sketch(tmp_path / "nowhere")
    path = tmp_path / "linked" / "block-0000.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.unlink()
    path.write_bytes(content)
    with pytest.raises(SketchUnreadable, match="damaged"):
        open_sketch(tmp_path / "linked")


def test_factors_that_say_nothing_fall_back_to_one_sided() -> None:
    x = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    moment = x.T @ x
    fallback = prepare_factor(moment, 0.01)

    def factors(given_input: torch.Tensor, given_output: torch.Tensor) -> LayerFactors:
        return LayerFactors(triangle(given_input), triangle(given_output), triangle(moment))

    dead = regularize(factors(moment, torch.zeros(3, 3)), 0.01, 0.1)
    assert dead.output is None and dead.reason is not None
    nan = regularize(factors(torch.full((4, 4), float("nan")), torch.eye(3)), 0.01, 0.1)
    assert torch.equal(nan.input.square, fallback.square) and nan.output is not None
    assert torch.equal(regularized_moment(factors(moment, torch.eye(3)), 0.01).square, fallback.square)
    sound = regularize(factors(moment, torch.eye(3) * 5), 0.01, 0.1)
    assert sound.reason is None
    assert sound.scale == pytest.approx(float(moment.diagonal().mean()) * 5, rel=1e-4)


def test_linears_that_saw_no_tokens_keep_the_identity() -> None:
    for iteration in (IterationA(3, 4, FactorPlace(CPU)), IterationB(3, 4, FactorPlace(CPU))):
        iteration.begin(1)
        iteration.finish()
        assert torch.equal(iteration.scaled_factors()[1], torch.eye(3))
