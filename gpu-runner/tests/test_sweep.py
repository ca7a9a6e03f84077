"""The sketch by one sweep over the blocks is the whole-model passes', wherever hidden states are kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_architectures import save_tiny_model, tiny_model

from yaqa_runner.calibration.tokens import TokenSet
from yaqa_runner.model.block_weights import ResidentWeights
from yaqa_runner.model.blocks import BlocksEntangled, BlockwiseModel, check_against_whole
from yaqa_runner.model.boundary_store import BoundaryStore
from yaqa_runner.model.load import SourceModel, load_source_model
from yaqa_runner.model.snapshot import inspect_snapshot
from yaqa_runner.monitor import Monitor
from yaqa_runner.protocol.failures import Interrupted
from yaqa_runner.sketches.compute import SketchInputs, compute_sketch, shared_input_representatives
from yaqa_runner.sketches.labels import sampled_label_gradient
from yaqa_runner.sketches.memory import plan_memory, streaming_bytes
from yaqa_runner.sketches.settings import SketchSettings
from yaqa_runner.sketches.store import Sketch
from yaqa_runner.sketches.sweep import sweep_sketch
from yaqa_runner.sketches.sweep_plan import SweepPlan, plan_sweep

CPU = torch.device("cpu")
PLENTY = 1 << 40
SEQUENCES = 16
LENGTH = 12
TWO_BLOCKS = {"num_hidden_layers": 2}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "dense": ("llama", {"tie_word_embeddings": False, "num_hidden_layers": 3}),
    "tied": ("gemma3_text", {"tie_word_embeddings": True, **TWO_BLOCKS}),
    "mixture": ("qwen3_moe", TWO_BLOCKS),
    "hybrid": ("qwen3_next", {"layer_types": ["linear_attention", "full_attention"], **TWO_BLOCKS}),
    "transposed": ("gpt2", {"n_layer": 2}),
}


@pytest.fixture(scope="module")
def tokens() -> TokenSet:
    return TokenSet(torch.randint(2, 300, (SEQUENCES, LENGTH), generator=torch.Generator().manual_seed(1)))


def loaded(name: str, folder: Path) -> SourceModel:
    kind, settings = KINDS[name]
    directory = save_tiny_model(kind, folder / kind, torch.float32, tokenizer=False, **settings)
    return load_source_model(inspect_snapshot(directory), CPU)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> SourceModel:
    return loaded("dense", tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module", params=KINDS)
def any_source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SourceModel:
    return loaded(request.param, tmp_path_factory.mktemp("models"))


def blockwise_of(source: SourceModel) -> BlockwiseModel:
    return BlockwiseModel(source.model, ResidentWeights(), source.vocabulary, source.device)


def whole(source: SourceModel, tokens: TokenSet, settings: SketchSettings, directory: Path) -> Sketch:
    plan = plan_memory(source.linears, tokens.sequences, tokens.length, settings, PLENTY, CPU)
    return compute_sketch(
        SketchInputs(source, "0" * 64, tokens, settings), directory=directory, plan=plan, monitor=Monitor()
    )


def planned(
    source: SourceModel, tokens: TokenSet, settings: SketchSettings, *, budget: int = PLENTY, disk: int = PLENTY
) -> SweepPlan:
    blockwise = blockwise_of(source)
    hidden = blockwise.enter(tokens.tokens[:1]).hidden
    return plan_sweep(
        source.linears,
        blocks=len(blockwise),
        token_bytes=hidden.nbytes // tokens.length,
        sequences=tokens.sequences,
        length=tokens.length,
        settings=settings,
        budget=budget,
        device=CPU,
        disk_bytes=disk,
    )


def swept(
    source: SourceModel,
    tokens: TokenSet,
    settings: SketchSettings,
    directory: Path,
    plan: SweepPlan,
    check: Callable[[], None] = lambda: None,
    warn: Callable[[str, str], None] = lambda code, message: None,
) -> Sketch:
    return sweep_sketch(
        SketchInputs(source, "0" * 64, tokens, settings),
        blockwise=blockwise_of(source),
        directory=directory,
        plan=plan,
        monitor=Monitor(check=check, warn=warn),
    )


def difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm().clamp_min(1e-30))


def assert_equal(
    found: Sketch, expected: Sketch, most: float = 1e-5, same_batches: bool = True, apart: bool = False
) -> None:
    assert found.key == expected.key and found.layers.keys() == expected.layers.keys()
    for name, layer in expected.layers.items():
        one, other = found.factors(name), expected.factors(name)
        for part in ("input", "output", "second_moment"):
            assert difference(getattr(one, part).whole(), getattr(other, part).whole()) < most, (name, part)
        own = found.layers[name]
        assert own.tokens == layer.tokens
        # Where linears of one input do not fit together, each has that input's moment.
        assert own.second_moment == layer.second_moment or (apart and own.second_moment == name)
        assert (own.cosine_similarity is None) == (layer.cosine_similarity is None)
        assert (own.trust is None) == (layer.trust is None)
        if same_batches and own.trust is not None and layer.trust is not None:
            # Of the sequences held out, one batch is looked at.
            assert own.trust.predicted_loss == pytest.approx(layer.trust.predicted_loss, rel=1e-3)
            assert (own.trust.sigma_input, own.trust.sigma_output) == (
                layer.trust.sigma_input,
                layer.trust.sigma_output,
            )


@pytest.mark.parametrize("kind", ["a", "b"])
def test_a_sweep_gives_the_factors_of_whole_passes(
    any_source: SourceModel, tokens: TokenSet, tmp_path: Path, kind: str
) -> None:
    settings = SketchSettings(kind, 3 if kind == "a" else 1, 3)  # type: ignore[arg-type]
    expected = whole(any_source, tokens, settings, tmp_path / "whole")
    assert any(layer.trust is not None for layer in expected.layers.values())
    in_memory = planned(any_source, tokens, settings)
    assert in_memory.store == "memory"
    assert_equal(swept(any_source, tokens, settings, tmp_path / "memory", in_memory), expected)
    on_disk = replace(in_memory, store="disk")
    assert_equal(swept(any_source, tokens, settings, tmp_path / "disk", on_disk), expected)
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("kind", ["a", "b"])
def test_little_memory_gives_the_same(source: SourceModel, tokens: TokenSet, tmp_path: Path, kind: str) -> None:
    settings = SketchSettings(kind, 3 if kind == "a" else 2, 3, label_samples=2)  # type: ignore[arg-type]
    expected = whole(source, tokens, settings, tmp_path / "whole")
    # So little that hidden states go to the disk, and that no two inputs of a block fit at once.
    scarce = planned(source, tokens, settings, budget=100_000)
    assert scarce.store == "disk" and scarce.batch == 1
    found = swept(source, tokens, settings, tmp_path / "disk", scarce)
    assert_equal(found, expected, same_batches=False, apart=True)
    # Now not even two linears of one input.
    alone = swept(source, tokens, settings, tmp_path / "alone", replace(scarce, pairs_bytes=1))
    assert_equal(alone, expected, same_batches=False, apart=True)
    assert all(layer.second_moment == name for name, layer in alone.layers.items())


def test_a_block_is_taken_in_the_fewest_passes(source: SourceModel, tokens: TokenSet) -> None:
    settings = SketchSettings("a", 4, 3)
    layers = [layer for layer in source.linears if layer.block == 1]
    representatives = shared_input_representatives(source, tokens.tokens[:1])
    for budget, mode in ((PLENTY, "cached"), (1, "streaming")):
        windows = planned(source, tokens, settings, budget=budget).windows(layers, representatives)
        assert {window.mode for window in windows} == {mode}
        taken = [layer.name for window in windows for layer in window.layers]
        assert sorted(taken) == sorted(layer.name for layer in layers)
        assert len(windows) == (1 if budget == PLENTY else len(layers))
    most = max(sum(map(streaming_bytes, layers[first:last])) for first, last in ((0, 3), (4, 6)))
    together = replace(planned(source, tokens, settings, budget=1), pairs_bytes=most).windows(layers, representatives)
    assert 1 < len(together) < len(layers)
    for window in together:
        names = {layer.name for layer in window.layers}
        assert {representatives[name] for name in names} <= names


@pytest.mark.parametrize("budget", [PLENTY, 100_000])
def test_an_interrupted_sweep_ends_as_if_it_had_not_been(
    source: SourceModel, tokens: TokenSet, tmp_path: Path, budget: int
) -> None:
    settings = SketchSettings("a", 3, 3)
    plan = planned(source, tokens, settings, budget=budget)
    calls = [0]

    def count() -> None:
        calls[0] += 1

    expected = swept(source, tokens, settings, tmp_path / "whole", plan, count)
    needed = calls[0]
    for share in (0.3, 0.6):
        last = int(share * needed)
        calls[0] = 0

        def interrupt(last: int = last) -> None:
            calls[0] += 1
            if calls[0] == last:
                raise Interrupted

        with pytest.raises(Interrupted):
            swept(source, tokens, settings, tmp_path / "resumed", plan, interrupt)
        assert not (tmp_path / "resumed").exists()
    calls[0] = 0
    resumed = swept(source, tokens, settings, tmp_path / "resumed", plan, count)
    assert calls[0] < needed
    assert resumed.record.files == expected.record.files


def test_running_out_of_memory_halves_the_batch_and_changes_nothing(
    source: SourceModel, tokens: TokenSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = SketchSettings("a", 3, 3)
    plan = planned(source, tokens, settings)
    expected = swept(source, tokens, settings, tmp_path / "plenty", plan)
    run = BlockwiseModel.run

    def scarce(self: BlockwiseModel, number: int, tokens: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        if len(tokens) > 4:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes.")
        return run(self, number, tokens, hidden)

    monkeypatch.setattr(BlockwiseModel, "run", scarce)
    warnings: list[str] = []
    scarcely = swept(source, tokens, settings, tmp_path / "scarce", plan, warn=lambda code, _: warnings.append(code))
    assert warnings and set(warnings) == {"batch-halved"}
    assert_equal(scarcely, expected, same_batches=False)


def test_labels_are_the_same_in_parts_of_a_sequence() -> None:
    logits = torch.randn(3, 50, 7, generator=torch.Generator().manual_seed(0))
    expected = sampled_label_gradient(logits, 1, 10, 0)
    for cut in (1, 16, 33):
        parts = [
            sampled_label_gradient(logits[:, :cut], 1, 10, 0),
            sampled_label_gradient(logits[:, cut:], 1, 10, 0, cut),
        ]
        assert torch.equal(torch.cat(parts, dim=1), expected)


def test_blocks_that_exchange_more_than_hidden_states_are_told() -> None:
    for kind in ("gemma3n_text", "bloom", "glm_moe_dsa"):
        model = tiny_model(kind).requires_grad_(False)
        with pytest.raises(BlocksEntangled):
            check_against_whole(BlockwiseModel(model, ResidentWeights(), 320, CPU), torch.arange(2, 34).reshape(2, 16))


def test_what_a_block_keeps_to_itself_shows(source: SourceModel, tokens: TokenSet) -> None:
    blockwise = blockwise_of(source)
    check_against_whole(blockwise, tokens.tokens)
    # The second block adds what the first one saw last: as models do that share keys and values.
    seen: list[torch.Tensor] = []

    def keep(module: torch.nn.Module, values: tuple[torch.Tensor, ...], output: object) -> None:
        seen[:] = [values[0]]

    def add(module: torch.nn.Module, values: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (values[0] + seen[0][: len(values[0])], *values[1:])

    handles = [
        blockwise.blocks[0].register_forward_hook(keep),
        blockwise.blocks[1].register_forward_pre_hook(add),
    ]
    try:
        with pytest.raises(BlocksEntangled):
            check_against_whole(blockwise, tokens.tokens)
    finally:
        for handle in handles:
            handle.remove()


def test_the_head_in_slices_gives_the_logits(
    source: SourceModel, tokens: TokenSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    blockwise = blockwise_of(source)
    batch = tokens.tokens[:3]
    with torch.no_grad():
        hidden = blockwise.enter(batch).hidden
        for number in range(len(blockwise)):
            hidden = blockwise.run(number, batch, hidden)
        expected = source.model(input_ids=batch, use_cache=False).logits
        monkeypatch.setattr("yaqa_runner.model.blocks.HEAD_BYTES", 5 * 4 * 3 * source.vocabulary)
        parts = blockwise.slices(batch)
        assert [(part.start, part.stop) for part in parts] == [(0, 5), (5, 10), (10, 12)]
        logits = torch.cat([blockwise.head(batch[:, part], hidden[:, part]) for part in parts], dim=1)
    assert difference(logits, expected) < 1e-5


@pytest.mark.parametrize("on_disk", [False, True])
def test_a_boundary_store_gives_back_what_was_put(tmp_path: Path, on_disk: bool) -> None:
    store = BoundaryStore(6, tmp_path / "rows" if on_disk else None)
    values = torch.randn(6, 3, 4).to(torch.bfloat16)
    store.put("level", 4, values[4:])
    store.put("level", 0, values[:2])
    assert store.has("level", 0, 2) and not store.has("level", 1, 2) and not store.has("other", 0, 1)
    assert torch.equal(store.get("level", 4, 2), values[4:])
    with pytest.raises(KeyError):
        store.get("level", 1, 2)
    store.put("level", 2, values[2:4])
    assert torch.equal(store.get("level", 1, 5), values[1:])
    shape, dtype = store.describe("level")
    again = BoundaryStore(6, tmp_path / "rows" if on_disk else None)
    assert again.adopt("level", shape, dtype) == on_disk
    if on_disk:
        assert torch.equal(again.get("level", 0, 6), values)
        assert not again.adopt("level", (3, 5), dtype)
    store.drop("level")
    assert not store.has("level", 0, 1)
    assert not list(tmp_path.rglob("*.rows"))


def test_a_sweep_in_bfloat16_changes_factors_by_little(source: SourceModel, tokens: TokenSet, tmp_path: Path) -> None:
    settings = SketchSettings("a", 3, 3)
    plan = planned(source, tokens, settings)
    exact = swept(source, tokens, settings, tmp_path / "exact", plan)
    narrow = sweep_sketch(
        SketchInputs(source, "0" * 64, tokens, settings),
        blockwise=blockwise_of(source),
        directory=tmp_path / "narrow",
        plan=plan,
        monitor=Monitor(),
        precision="bfloat16",
    )
    for name in exact.layers:
        one, other = exact.factors(name).second_moment.whole(), narrow.factors(name).second_moment.whole()
        assert 0 < difference(other, one) < 0.02
