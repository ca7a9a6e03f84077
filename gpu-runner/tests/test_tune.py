"""Tuned scales lower the KL, stay what the container stores, and leave codes and model alone."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from yaqa_runner.grids.affine_search import round_scale
from yaqa_runner.grids.asymmetric import AsymmetricGrid
from yaqa_runner.grids.gguf import gguf_grid
from yaqa_runner.grids.grid import Grid
from yaqa_runner.grids.minifloat import MinifloatGrid
from yaqa_runner.grids.symmetric import SymmetricGrid
from yaqa_runner.grids.tunable import is_tunable, precision_of
from yaqa_runner.monitor import Monitor
from yaqa_runner.rounding.divergence import ROWS, mean_divergence
from yaqa_runner.rounding.tune import TuningSteps, TuningTask, tune_scales, tuning_plan

VOCABULARY = 40
GRIDS: list[Grid] = [
    SymmetricGrid(2, 32),
    AsymmetricGrid(2, 32),
    *map(gguf_grid, ("q4_1", "q2_k", "q3_k", "q4_k", "iq3_s", "iq4_xs")),
]


class TinyModel(nn.Module):
    """Two linears between an embedding and its transpose."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.embedding = nn.Parameter(torch.randn(VOCABULARY, 256, generator=generator) * 0.3)
        self.first = nn.Linear(256, 256, bias=False)
        self.second = nn.Linear(256, 256, bias=False)
        for linear in (self.first, self.second):
            linear.weight = nn.Parameter(torch.randn(256, 256, generator=generator) * 0.08)
        self.requires_grad_(False)

    def forward(self, input_ids: torch.Tensor) -> SimpleNamespace:
        hidden = self.embedding[input_ids]
        hidden = hidden + self.second(torch.tanh(self.first(hidden)))
        return SimpleNamespace(logits=hidden @ self.embedding.T)


def tasks_of(model: TinyModel, grid: Grid) -> list[TuningTask]:
    tasks = []
    for name in ("first", "second"):
        weight = model.get_parameter(f"{name}.weight").detach()
        fixed = grid.fit(weight)
        tasks.append(TuningTask(f"{name}.weight", fixed.nearest(weight), fixed))
    return tasks


def kl(model: TinyModel, tokens: torch.Tensor, weights: dict[str, torch.Tensor]) -> float:
    original = model(tokens).logits.log_softmax(-1)
    quantized = torch.func.functional_call(model, weights, (tokens,)).logits.log_softmax(-1)
    return float((original.exp() * (original - quantized)).sum(-1).mean())


@pytest.mark.parametrize("grid", GRIDS, ids=[grid.name for grid in GRIDS])
def test_tuning_lowers_the_kl_on_other_tokens_and_keeps_what_is_stored_exact(grid: Grid) -> None:
    model = TinyModel()
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, VOCABULARY, (32, 16), generator=generator)
    unseen = torch.randint(0, VOCABULARY, (16, 16), generator=generator)
    tasks = tasks_of(model, grid)
    tuned = tune_scales(model, tasks, tokens, TuningSteps(40, 8))
    before = kl(model, unseen, {task.parameter: task.grid.decode(task.codes) for task in tasks})
    after = kl(model, unseen, {task.parameter: tuned.grids[task.parameter].decode(task.codes) for task in tasks})
    assert after < 0.97 * before
    assert len(tuned.losses) == 40
    for task in tasks:
        new = tuned.grids[task.parameter]
        assert (new.minimum, new.maximum, new.group) == (task.grid.minimum, task.grid.maximum, task.grid.group)
        for key, value in task.grid.stored.items():
            if value.dtype == torch.int16:
                assert torch.equal(new.stored[key], value)
            else:
                order = ("shared", "float16", "float32")
                assert order.index(precision_of(new.stored[key])) <= order.index(precision_of(value))
        if "sc" in new.stored:
            subs = new.stored["sc"].shape[1] // new.stored["d"].shape[1]
            assert torch.equal(new.scale, new.stored["d"].repeat_interleave(subs, dim=1) * new.stored["sc"])
        elif "zero" in new.stored:
            assert torch.equal(new.offset, -new.stored["scale"] * new.stored["zero"])
    for name, value in model.state_dict().items():
        assert torch.equal(value, kept[name])


def test_scales_of_few_digits_move_by_whole_digits_and_lower_the_kl() -> None:
    model = TinyModel()
    for linear in (model.first, model.second):
        linear.weight *= 3
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, VOCABULARY, (64, 16), generator=generator)
    unseen = torch.randint(0, VOCABULARY, (32, 16), generator=generator)
    tasks = tasks_of(model, MinifloatGrid("nvfp4", "e2m1", 16, "e4m3_scaled", 4.5))
    tuned = tune_scales(model, tasks, tokens, TuningSteps(60, 8)).grids
    before = kl(model, unseen, {task.parameter: task.grid.decode(task.codes) for task in tasks})
    after = kl(model, unseen, {task.parameter: tuned[task.parameter].decode(task.codes) for task in tasks})
    assert after < 0.9 * before
    for task in tasks:
        scale = tuned[task.parameter].scale
        assert torch.equal(round_scale(scale, "e4m3_scaled"), scale)
        assert bool((scale != task.grid.scale).any())


def test_powers_of_two_stay_while_others_are_tuned() -> None:
    model = TinyModel()
    tokens = torch.randint(0, VOCABULARY, (8, 8), generator=torch.Generator().manual_seed(1))
    fixed = MinifloatGrid("mxfp4", "e2m1", 32, "e8m0", 4.25)
    tasks = [tasks_of(model, fixed)[0], tasks_of(model, SymmetricGrid(3, 32))[1]]
    assert not is_tunable(tasks[0].grid)
    tuned = tune_scales(model, tasks, tokens, TuningSteps(5, 4)).grids
    assert torch.equal(tuned["first.weight"].scale, tasks[0].grid.scale)
    assert not torch.equal(tuned["second.weight"].scale, tasks[1].grid.scale)


def test_equal_seeds_give_equal_scales() -> None:
    model = TinyModel()
    tokens = torch.randint(0, VOCABULARY, (8, 8), generator=torch.Generator().manual_seed(1))
    tasks = tasks_of(model, SymmetricGrid(3, 32))
    first, second = (tune_scales(model, tasks, tokens, TuningSteps(5, 4)).grids for _ in range(2))
    for name, grid in first.items():
        assert torch.equal(grid.scale, second[name].scale)


def test_zero_groups_stay_zero() -> None:
    model = TinyModel()
    model.first.weight[3] = 0
    tokens = torch.randint(0, VOCABULARY, (8, 8), generator=torch.Generator().manual_seed(1))
    tuned = tune_scales(model, tasks_of(model, SymmetricGrid(4, 32)), tokens, TuningSteps(3, 4))
    assert bool((tuned.grids["first.weight"].scale[3] == 0).all())


def test_impossible_settings_are_refused() -> None:
    model = TinyModel()
    tasks = tasks_of(model, SymmetricGrid(4, 32))
    tokens = torch.zeros(4, 8, dtype=torch.int64)
    once = TuningSteps(1, 1)
    impossible = [([], tokens, once), (tasks, tokens[:0], once)]
    impossible += [(tasks, tokens, TuningSteps(0, 1)), (tasks, tokens, TuningSteps(1, 0))]
    for arguments in impossible:
        with pytest.raises(ValueError, match="at least one"):
            tune_scales(model, *arguments)


def test_loss_that_is_not_finite_stops_the_tuning() -> None:
    model = TinyModel()
    tasks = tasks_of(model, SymmetricGrid(4, 32))
    model.embedding[0] = torch.nan
    with pytest.raises(FloatingPointError, match="step 1"):
        tune_scales(model, tasks, torch.zeros(2, 4, dtype=torch.int64), TuningSteps(2, 4))


def test_batches_that_do_not_fit_in_memory_are_halved_and_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    model = TinyModel()
    tokens = torch.randint(0, VOCABULARY, (16, 8), generator=torch.Generator().manual_seed(1))
    forward = TinyModel.forward
    told: list[tuple[str, str]] = []
    limit = 3

    def scarce(self: TinyModel, input_ids: torch.Tensor) -> SimpleNamespace:
        if len(input_ids) > limit:
            raise torch.OutOfMemoryError("out of memory")
        return forward(self, input_ids)

    monkeypatch.setattr(TinyModel, "forward", scarce)
    tuned = tune_scales(
        model,
        tasks_of(model, SymmetricGrid(3, 32)),
        tokens,
        TuningSteps(6, 8),
        monitor=Monitor(warn=lambda code, text: told.append((code, text))),
    )
    assert len(tuned.losses) == 6
    assert [code for code, _ in told] == ["tune-batch-halved"] * 2 and "2 sequences" in told[-1][1]
    limit = 0
    with pytest.raises(torch.OutOfMemoryError):
        tune_scales(model, tasks_of(model, SymmetricGrid(3, 32)), tokens, TuningSteps(1, 2))


def test_a_group_that_the_row_does_not_fill_is_tuned_too() -> None:
    model = TinyModel()
    tokens = torch.randint(0, VOCABULARY, (8, 8), generator=torch.Generator().manual_seed(1))
    tasks = tasks_of(model, AsymmetricGrid(2, 96))
    tuned = tune_scales(model, tasks, tokens, TuningSteps(20, 4))
    assert tuned.grids["first.weight"].scale.shape == (256, 3)
    weights = {task.parameter: tuned.grids[task.parameter].decode(task.codes) for task in tasks}
    assert kl(model, tokens, weights) < kl(
        model, tokens, {task.parameter: task.grid.decode(task.codes) for task in tasks}
    )


def test_the_plan_follows_the_text_alone() -> None:
    assert tuning_plan(128, 256) == (128, 4)
    assert tuning_plan(4, 16) == (4, 4)
    assert tuning_plan(1, 8192) == (4, 1)
    assert tuning_plan(4096, 2048) == (400, 1)


def test_a_check_that_raises_stops_the_tuning() -> None:
    model = TinyModel()
    seen = []

    def check() -> None:
        seen.append(1)
        if len(seen) == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        tune_scales(
            model,
            tasks_of(model, SymmetricGrid(4, 32)),
            torch.zeros(4, 8, dtype=torch.int64),
            TuningSteps(9, 4),
            monitor=Monitor(check=check),
        )
    assert len(seen) == 3


class HeadedModel(TinyModel):
    """With its output embeddings as a module, like a causal LM."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(256, VOCABULARY, bias=False).requires_grad_(False)
        self.head.weight = self.embedding

    def get_output_embeddings(self) -> nn.Linear:
        return self.head

    def forward(self, input_ids: torch.Tensor) -> SimpleNamespace:
        hidden = self.embedding[input_ids]
        hidden = hidden + self.second(torch.tanh(self.first(hidden)))
        return SimpleNamespace(logits=self.head(hidden))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_divergence_and_its_gradient_are_those_of_the_formula(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(2)
    # More rows than are taken at a time, and no whole number of parts.
    shape = (2, ROWS - 5, 30)
    original = (4 * torch.randn(shape, generator=generator)).to(dtype)
    logits = (original + torch.randn(shape, generator=generator)).to(dtype)
    ways = []
    for divergence in (mean_divergence, literal_divergence):
        moved = logits.clone().requires_grad_()
        loss = divergence(moved, original)
        (3 * loss).backward()
        ways.append((loss.detach(), moved.grad))
    torch.testing.assert_close(ways[0][0], ways[1][0], rtol=1e-5, atol=0)
    torch.testing.assert_close(ways[0][1], ways[1][1], rtol=1e-4 if dtype == torch.float32 else 2e-2, atol=1e-7)
    assert float(mean_divergence(original, original)) == 0


def literal_divergence(logits: torch.Tensor, original: torch.Tensor) -> torch.Tensor:
    exact, quantized = original.float().log_softmax(-1), logits.float().log_softmax(-1)
    return (exact.exp() * (exact - quantized)).sum(-1).mean()


def test_tuning_in_bfloat16_keeps_the_head_exact_and_lowers_the_kl_as_well() -> None:
    model = HeadedModel()
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, VOCABULARY, (32, 16), generator=generator)
    unseen = torch.randint(0, VOCABULARY, (16, 16), generator=generator)
    tasks = tasks_of(model, SymmetricGrid(2, 32))
    types: set[torch.dtype] = set()
    handle = model.head.register_forward_hook(lambda module, inputs, output: types.add(output.dtype))
    tuned = tune_scales(model, tasks, tokens, TuningSteps(40, 8), precision="bfloat16")
    handle.remove()
    assert types == {torch.float32}
    assert "forward" not in vars(model.head)
    before = kl(model, unseen, {task.parameter: task.grid.decode(task.codes) for task in tasks})
    after = kl(model, unseen, {task.parameter: tuned.grids[task.parameter].decode(task.codes) for task in tasks})
    assert after < 0.97 * before
