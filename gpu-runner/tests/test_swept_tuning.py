"""Scales tuned by sweeps over the blocks are those tuned with the whole model in memory, also after a SIGKILL."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_architectures import save_tiny_model

from yaqa_runner.grids.gguf import gguf_grid
from yaqa_runner.model.blocks import BlockwiseModel
from yaqa_runner.model.load import SourceModel, load_source_model
from yaqa_runner.model.snapshot import inspect_snapshot
from yaqa_runner.model.swept_tuning import tune_by_sweeps
from yaqa_runner.monitor import SILENT, Monitor
from yaqa_runner.rounding.tune import TunedScales, TuningSteps, TuningTask, swept_steps, tune_scales

CPU = torch.device("cpu")
STEPS = TuningSteps(count=4, batch=4, seed=3)
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "dense": ("llama", {"tie_word_embeddings": False, "num_hidden_layers": 3}),
    "mixture": ("qwen3_moe", {"num_hidden_layers": 2}),
    "transposed": ("gpt2", {"n_layer": 2}),
}
TOKENS = torch.randint(2, 300, (6, 12), generator=torch.Generator().manual_seed(1))


def saved(kind: str, folder: Path) -> Path:
    name, settings = KINDS[kind]
    return save_tiny_model(name, folder / name, torch.float32, tokenizer=False, **settings)


def loaded(folder: Path, *, by_blocks: bool = False) -> SourceModel:
    return load_source_model(inspect_snapshot(folder), CPU, 1 if by_blocks else None)


def tasks_of(source: SourceModel) -> list[TuningTask]:
    """Rounded to three bits, where tuning has something to do."""
    tasks = []
    for layer in source.linears:
        weight = layer.weight()
        grid = gguf_grid("q3_k" if layer.columns % 256 == 0 else "q4_0")
        fixed = grid.fit(weight)
        transposed = list(layer.module.weight.shape) != [layer.rows, layer.columns]
        tasks.append(TuningTask(f"{layer.path}.weight", fixed.nearest(weight), fixed, transposed))
    return tasks


def swept(source: SourceModel, folder: Path, monitor: Monitor = SILENT) -> TunedScales:
    return tune_by_sweeps(source.blockwise(), tasks_of(source), TOKENS, steps=STEPS, folder=folder, monitor=monitor)


def assert_equal(found: TunedScales, expected: TunedScales, *, exact: bool = False) -> None:
    assert found.grids.keys() == expected.grids.keys()
    assert found.losses == pytest.approx(expected.losses, rel=0 if exact else 1e-5)
    moved = 0.0
    for name, grid in expected.grids.items():
        if exact:
            assert torch.equal(found.grids[name].scale, grid.scale)
            continue
        # Adam's first steps have one size for any gradient, so one near zero may take the other sign.
        difference = (found.grids[name].scale - grid.scale).abs()
        assert float((difference > 2e-3 * grid.scale.abs()).float().mean()) < 0.01, name
        moved = max(moved, float(difference.mean() / grid.scale.abs().mean()))
    assert moved < 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_sweeps_tune_as_the_whole_model_does(kind: str, tmp_path: Path) -> None:
    folder = saved(kind, tmp_path)
    whole = loaded(folder)
    expected = tune_scales(whole.model, tasks_of(whole), TOKENS, STEPS)
    by_blocks = loaded(folder, by_blocks=True)
    assert not by_blocks.weights.whole
    assert_equal(swept(by_blocks, tmp_path / "tuning"), expected)
    assert expected.losses[-1] < expected.losses[0]


class _Killing:
    """Kills this process at the ``count``-th look for an interruption."""

    def __init__(self, count: int) -> None:
        self.left = count

    def check(self) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def _killed(folder: str, work: str, looks: int) -> None:
    swept(loaded(Path(folder), by_blocks=True), Path(work), Monitor(check=_Killing(looks).check))


def test_killed_tuning_goes_on_at_the_step_it_was_at(tmp_path: Path) -> None:
    folder = saved("dense", tmp_path)
    expected = swept(loaded(folder, by_blocks=True), tmp_path / "undisturbed")
    work = tmp_path / "killed"
    process = multiprocessing.get_context("spawn").Process(target=_killed, args=(str(folder), str(work), 30))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    # Past the first step, and within a later one.
    left = sorted(path.name for path in work.glob("step-*"))
    assert left not in ([], ["step-0001"]), left
    progress: list[float] = []
    again = swept(loaded(folder, by_blocks=True), work, Monitor(progress=lambda done, total: progress.append(done)))
    assert progress[-1] == STEPS.count
    assert_equal(again, expected, exact=True)
    assert not (work / "original").exists() and not (work / "boundary").exists()


def test_few_large_steps_see_as_many_sequences_as_many_small_ones() -> None:
    steps = swept_steps(128, 256, 4, seed=5)
    assert (steps.count, steps.batch, steps.seed) == (8, 64, 5)
    assert steps.count * steps.batch == 4 * 128
    small = swept_steps(2, 8, 1)
    assert (small.count, small.batch) == (1, 2)


def test_tasks_outside_of_the_blocks_are_refused(tmp_path: Path) -> None:
    source = loaded(saved("dense", tmp_path))
    blockwise: BlockwiseModel = source.blockwise()
    task = tasks_of(source)[0]
    stray = TuningTask("lm_head.weight", task.codes, task.grid)
    with pytest.raises(ValueError, match="in none of the model's blocks"):
        tune_by_sweeps(blockwise, [stray], TOKENS, steps=STEPS, folder=tmp_path / "tuning")
