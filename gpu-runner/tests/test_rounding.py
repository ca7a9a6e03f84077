"""The fast rounding gives the reference's codes, and each step lowers the proxy error."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator

import pytest
import torch

from yaqa_runner.grids.asymmetric import AsymmetricGrid
from yaqa_runner.grids.grid import FixedGrid
from yaqa_runner.grids.symmetric import SymmetricGrid
from yaqa_runner.rounding.adaptive import proxy_error, round_adaptive, round_nearest, rounding_targets
from yaqa_runner.rounding.layers import RoundingTask, round_layers
from yaqa_runner.rounding.linalg.factor import PreparedFactor, identity_factor, prepare_factor
from yaqa_runner.rounding.memory import FIRST_LAYER, FURTHER_LAYER, layers_in_flight
from yaqa_runner.rounding.reference import reference_refine, reference_round_adaptive
from yaqa_runner.rounding.refine import refine
from yaqa_runner.rounding.workers import single_core_workers

SHAPES = [(1, 1), (1, 40), (40, 1), (7, 5), (17, 33), (33, 50), (64, 64), (65, 31)]
# Distance from the middle of two codes, in steps, below which float32 sums may fall on either side.
TIE = 1e-4


def correlated(size: int, seed: int, sigma: float = 0.05) -> PreparedFactor:
    """A factor with strong off-diagonal terms and a spread of scales, as activations have."""
    generator = torch.Generator().manual_seed(seed)
    samples = torch.randn(2 * size + 3, size, generator=generator)
    samples = samples * torch.linspace(0.2, 3.0, size) + samples[:, :1]
    return prepare_factor(samples.T @ samples, sigma)


def weight_of(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


class TableGrid:
    """Eight levels at unlike distances, under scales of both signs."""

    def fit(self, weight: torch.Tensor, input_importance: torch.Tensor | None = None) -> FixedGrid:
        rows, columns = weight.shape
        groups = -(-columns // 16)
        scale = torch.linspace(0.2, 0.4, rows * groups).view(rows, groups)
        scale[::2] *= -1
        table = torch.tensor([-9.0, -5.0, -3.0, -1.0, 0.5, 2.0, 4.0, 8.0])
        return FixedGrid(scale, torch.zeros_like(scale), 16, 0, 7, table=table)


def assert_codes_follow_the_rule(
    weight: torch.Tensor,
    grid: FixedGrid,
    codes: torch.Tensor,
    lower_input: torch.Tensor,
    lower_output: torch.Tensor | None,
) -> None:
    """Every code is nearest to its exact target, given all codes rounded before it."""
    targets = rounding_targets(weight, grid.decode(codes), lower_input, lower_output)
    scale, offset = (part.to(torch.float64) for part in grid.expand(weight.shape[1]))
    positions = (targets - offset) / scale
    if grid.table is None:
        nearest = positions.round().clamp(grid.minimum, grid.maximum).to(torch.int16)
        distance = (positions - positions.floor() - 0.5).abs()
    else:
        levels = grid.table.to(torch.float64)
        nearest = (positions[..., None] - levels).abs().argmin(-1).to(torch.int16)
        distance = (positions[..., None] - (levels[1:] + levels[:-1]) / 2).abs().amin(-1)
    wrong = nearest != codes
    assert bool((distance[wrong] < TIE).all())
    assert int(wrong.sum()) <= 1 + weight.numel() // 10_000


@pytest.mark.parametrize(("rows", "columns"), SHAPES)
@pytest.mark.parametrize("sided", ["two", "one"])
@pytest.mark.parametrize("family", [SymmetricGrid(3, 16), TableGrid()], ids=["uniform", "table"])
def test_codes_equal_the_reference(rows: int, columns: int, sided: str, family: SymmetricGrid | TableGrid) -> None:
    weight = weight_of(rows, columns)
    factor_input, factor_output = correlated(columns, 1), correlated(rows, 2)
    lower_output = factor_output.lower if sided == "two" else None
    grid = family.fit(weight, factor_input.diagonal)
    expected = reference_round_adaptive(weight, grid, factor_input.lower, lower_output)
    for tile, threads in itertools.product((8, 16, 64), (1, 2)):
        codes = round_adaptive(weight, grid, factor_input.lower, lower_output, tile=tile, threads=threads)
        assert codes.dtype == torch.int16
        if not torch.equal(codes, expected):
            assert_codes_follow_the_rule(weight, grid, codes, factor_input.lower, lower_output)


@pytest.mark.parametrize(("rows", "columns"), [(130, 300), (300, 130), (256, 768)])
@pytest.mark.parametrize("sided", ["two", "one"])
@pytest.mark.parametrize("family", [AsymmetricGrid(4, 32), TableGrid()], ids=["uniform", "table"])
def test_large_layers_follow_the_rule_at_every_element(
    rows: int, columns: int, sided: str, family: AsymmetricGrid | TableGrid
) -> None:
    weight = weight_of(rows, columns)
    factor_input, factor_output = correlated(columns, 1), correlated(rows, 2)
    lower_output = factor_output.lower if sided == "two" else None
    grid = family.fit(weight, factor_input.diagonal)
    codes = round_adaptive(weight, grid, factor_input.lower, lower_output, threads=2)
    assert_codes_follow_the_rule(weight, grid, codes, factor_input.lower, lower_output)


def test_the_rule_check_notices_a_wrong_code() -> None:
    weight = weight_of(20, 20)
    factor = correlated(20, 1)
    grid = SymmetricGrid(4, 16).fit(weight)
    codes = round_adaptive(weight, grid, factor.lower, factor.lower)
    codes[3, 4] += 1 if codes[3, 4] < 7 else -1
    with pytest.raises(AssertionError):
        assert_codes_follow_the_rule(weight, grid, codes, factor.lower, factor.lower)


def test_identity_output_factor_is_one_sided_rounding() -> None:
    weight = weight_of(48, 80)
    factor = correlated(80, 3)
    grid = SymmetricGrid(4, 32).fit(weight, factor.diagonal)
    one_sided = round_adaptive(weight, grid, factor.lower, None)
    with_identity = round_adaptive(weight, grid, factor.lower, torch.eye(48))
    assert torch.equal(one_sided, with_identity)


def test_identity_factors_round_to_nearest() -> None:
    weight = weight_of(30, 70)
    grid = SymmetricGrid(4, 32).fit(weight)
    assert torch.equal(round_adaptive(weight, grid, torch.eye(70), torch.eye(30)), round_nearest(weight, grid))


def test_one_sided_codes_are_those_of_gptq() -> None:
    # GPTQ as published: rows of the inverse's upper Cholesky factor, columns taken from the last to the first.
    weight = weight_of(6, 24)
    factor = correlated(24, 4)
    grid = SymmetricGrid(4, 8).fit(weight)
    flipped = factor.hessian.to(torch.float64).flip(0, 1)
    upper = torch.linalg.cholesky(torch.linalg.inv(flipped), upper=True)
    remaining = weight.to(torch.float64).flip(1).clone()
    scale, offset = (part.to(torch.float64).flip(1) for part in grid.expand(24))
    expected = torch.empty(6, 24, dtype=torch.int16)
    for column in range(24):
        code = ((remaining[:, column] - offset[:, column]) / scale[:, column]).round().clamp(-8, 7)
        expected[:, column] = code.to(torch.int16)
        value = scale[:, column] * code + offset[:, column]
        error = (remaining[:, column] - value) / upper[column, column]
        remaining[:, column:] -= error[:, None] * upper[column, column:][None, :]
    assert torch.equal(round_adaptive(weight, grid, factor.lower, None), expected.flip(1))


def mirrored(factor: PreparedFactor) -> torch.Tensor:
    """``U`` of ``H = U D Uᵀ``, transposed: lower triangular, and the feedback of the opposite order."""
    return prepare_factor(factor.hessian.flip(0, 1), 0.0).lower.flip(0, 1).T.contiguous()


def test_order_and_triangle_beat_their_mirror_images_on_the_proxy() -> None:
    # Feeding errors back through the wrong triangle is the mistake that still looks plausible.
    better = 0
    for seed in range(5):
        weight = weight_of(24, 32, seed)
        factor_input, factor_output = correlated(32, seed + 10), correlated(24, seed + 20)
        grid = SymmetricGrid(3, 32).fit(weight, factor_input.diagonal)
        right = round_adaptive(weight, grid, factor_input.lower, factor_output.lower)
        wrong = round_adaptive(weight, grid, *(mirrored(factor) for factor in (factor_input, factor_output)))
        proxies = [
            proxy_error(weight, grid.decode(codes), factor_input.hessian, factor_output.hessian)
            for codes in (right, wrong)
        ]
        better += proxies[0] < proxies[1]
    assert better == 5


def test_last_element_is_conditionally_optimal_and_refinement_reaches_a_local_optimum() -> None:
    weight = weight_of(2, 3, 5)
    factor_input, factor_output = correlated(3, 6), correlated(2, 7)
    grid = SymmetricGrid(2, 3).fit(weight)

    def proxy(codes: torch.Tensor) -> float:
        return proxy_error(weight, grid.decode(codes), factor_input.hessian, factor_output.hessian)

    choices = list(itertools.product(range(-2, 2), repeat=6))
    best = min(proxy(torch.tensor(choice, dtype=torch.int16).view(2, 3)) for choice in choices)
    nearest = proxy(round_nearest(weight, grid))
    codes = round_adaptive(weight, grid, factor_input.lower, factor_output.lower)
    refined = refine(weight, grid, codes, factor_input.hessian, factor_output.hessian, 6)
    assert best <= proxy(refined) <= proxy(codes)
    assert proxy(refined) <= nearest
    for row, column, code in itertools.product(range(2), range(3), range(-2, 2)):
        changed = refined.clone()
        changed[row, column] = code
        assert proxy(changed) >= proxy(refined) - 1e-3 * abs(proxy(refined))


def test_each_step_lowers_the_proxy() -> None:
    weight = weight_of(96, 160)
    factor_input, factor_output = correlated(160, 1), correlated(96, 2)
    grid = SymmetricGrid(3, 32).fit(weight, factor_input.diagonal)

    def proxy(codes: torch.Tensor) -> float:
        return proxy_error(weight, grid.decode(codes), factor_input.hessian, factor_output.hessian)

    two_sided = round_adaptive(weight, grid, factor_input.lower, factor_output.lower)
    refined = refine(weight, grid, two_sided, factor_input.hessian, factor_output.hessian, 2)
    steps = [
        proxy(round_nearest(weight, grid)),
        proxy(round_adaptive(weight, grid, factor_input.lower, None)),
        proxy(two_sided),
        proxy(refined),
    ]
    assert steps == sorted(steps, reverse=True)
    assert steps[3] < 0.85 * steps[0]


@pytest.mark.parametrize(("rows", "columns"), [(1, 9), (9, 1), (20, 45), (64, 40)])
@pytest.mark.parametrize("sided", ["two", "one"])
@pytest.mark.parametrize("family", [SymmetricGrid(3, 16), TableGrid()], ids=["uniform", "table"])
def test_refinement_equals_its_reference(
    rows: int, columns: int, sided: str, family: SymmetricGrid | TableGrid
) -> None:
    weight = weight_of(rows, columns)
    factor_input, factor_output = correlated(columns, 1), correlated(rows, 2)
    metric_output = factor_output.hessian if sided == "two" else None
    grid = family.fit(weight)
    start = round_nearest(weight, grid)
    kept = start.clone()
    expected = reference_refine(weight, grid, start, factor_input.hessian, metric_output, 2)
    assert torch.equal(refine(weight, grid, start, factor_input.hessian, metric_output, 2), expected)
    assert torch.equal(start, kept)


def test_proxy_never_rises_over_sweeps() -> None:
    for seed, (rows, columns) in enumerate([(70, 200), (200, 70), (150, 150)]):
        weight = weight_of(rows, columns, seed)
        factor_input, factor_output = correlated(columns, seed + 1), correlated(rows, seed + 2)
        for metric_output in (factor_output.hessian, None):
            grid = SymmetricGrid(2, 32).fit(weight, factor_input.diagonal)
            codes = round_nearest(weight, grid)
            previous = proxy_error(weight, grid.decode(codes), factor_input.hessian, metric_output)
            for _ in range(5):
                codes = refine(weight, grid, codes, factor_input.hessian, metric_output, 1)
                proxy = proxy_error(weight, grid.decode(codes), factor_input.hessian, metric_output)
                assert proxy <= previous * (1 + 1e-6)
                previous = proxy


def test_codes_stay_in_range_and_zero_groups_stay_zero() -> None:
    weight = weight_of(16, 70)
    weight[:, 32:64] = 0
    weight[3] = 0
    factor_input, factor_output = correlated(70, 1), correlated(16, 2)
    grid = SymmetricGrid(2, 32).fit(weight)
    codes = round_adaptive(weight, grid, factor_input.lower, factor_output.lower)
    codes = refine(weight, grid, codes, factor_input.hessian, factor_output.hessian, 2)
    assert int(codes.min()) >= -2
    assert int(codes.max()) <= 1
    assert bool((codes[:, 32:64] == 0).all())
    assert bool((codes[3] == 0).all())


def test_proxy_error_is_the_trace() -> None:
    weight, decoded = weight_of(5, 8, 0), weight_of(5, 8, 1)
    factor_input, factor_output = correlated(8, 1), correlated(5, 2)
    error = (weight - decoded).to(torch.float64)
    kronecker = torch.kron(factor_output.hessian, factor_input.hessian).to(torch.float64)
    expected = float(error.flatten() @ kronecker @ error.flatten())
    assert proxy_error(weight, decoded, factor_input.hessian, factor_output.hessian) == pytest.approx(
        expected, rel=1e-4
    )
    one_sided = float(((error @ factor_input.hessian.to(torch.float64)) * error).sum())
    assert proxy_error(weight, decoded, factor_input.hessian, None) == pytest.approx(one_sided, rel=1e-4)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_refused(bad: float) -> None:
    weight = weight_of(4, 8)
    grid = SymmetricGrid(4, 8).fit(weight)
    weight[1, 2] = bad
    with pytest.raises(ValueError, match="not finite"):
        round_nearest(weight, grid)
    with pytest.raises(ValueError, match="not finite"):
        round_adaptive(weight, grid, torch.eye(8), None)


def test_shapes_that_do_not_fit_are_refused() -> None:
    weight = weight_of(4, 8)
    grid = SymmetricGrid(4, 8).fit(weight)
    with pytest.raises(ValueError, match="input factor"):
        round_adaptive(weight, grid, torch.eye(7), None)
    with pytest.raises(ValueError, match="output factor"):
        round_adaptive(weight, grid, torch.eye(8), torch.eye(5))
    with pytest.raises(ValueError, match="grid has scales"):
        round_nearest(weight_of(4, 17), grid)
    with pytest.raises(ValueError, match="sweeps"):
        refine(weight, grid, round_nearest(weight, grid), torch.eye(8), None, -1)


def layer_tasks(count: int) -> Iterator[RoundingTask[str]]:
    for index in range(count):
        weight = weight_of(24, 40, index)
        factor = correlated(40, index)
        grid = SymmetricGrid(4, 32).fit(weight, factor.diagonal)
        yield RoundingTask(f"layer-{index}", weight, grid, factor, correlated(24, index), sweeps=index % 2)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_layers_come_back_in_order_with_the_codes_of_one_alone(workers: int) -> None:
    rounded = list(round_layers(layer_tasks(7), workers))
    assert [layer.key for layer in rounded] == [f"layer-{index}" for index in range(7)]
    for layer, task in zip(rounded, layer_tasks(7), strict=True):
        assert task.factor_output is not None
        alone = round_adaptive(task.weight, task.grid, task.factor_input.lower, task.factor_output.lower)
        alone = refine(
            task.weight, task.grid, alone, task.factor_input.hessian, task.factor_output.hessian, task.sweeps
        )
        assert torch.equal(layer.codes, alone)


def test_no_more_layers_are_read_than_are_in_flight() -> None:
    read = 0

    def counted() -> Iterator[RoundingTask[str]]:
        nonlocal read
        for task in layer_tasks(8):
            read += 1
            yield task

    for done, _ in enumerate(round_layers(counted(), 2)):
        assert read <= done + 3


def test_a_bad_layer_raises_and_leaves_no_threads() -> None:
    before = threading.active_count()
    good = next(layer_tasks(1))
    bad = RoundingTask("bad", torch.full((24, 40), torch.nan), good.grid, good.factor_input, None)
    with pytest.raises(ValueError, match="not finite"):
        list(round_layers([good, bad, good], 2))
    assert threading.active_count() == before


def test_workers_use_one_core_each_and_the_caller_keeps_its_own() -> None:
    before = torch.get_num_threads()
    with single_core_workers(2) as pool:
        assert list(pool.map(lambda _: torch.get_num_threads(), range(4))) == [1] * 4
        assert torch.get_num_threads() == before
    assert torch.get_num_threads() == before


def test_fallback_factor_rounds_like_no_factor() -> None:
    weight = weight_of(12, 20)
    grid = SymmetricGrid(4, 20).fit(weight)
    factor = correlated(20, 1)
    task = RoundingTask("x", weight, grid, factor, identity_factor(12, "the factor is zero"))
    (layer,) = round_layers([task], 1)
    assert torch.equal(layer.codes, round_adaptive(weight, grid, factor.lower, None))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="skipped: no CUDA")
@pytest.mark.parametrize(("rows", "columns"), [*SHAPES, (130, 300), (256, 768)])
@pytest.mark.parametrize("sided", ["two", "one"])
def test_cuda_codes_follow_the_rule(rows: int, columns: int, sided: str) -> None:
    weight = weight_of(rows, columns)
    factor_input, factor_output = correlated(columns, 1), correlated(rows, 2)
    lower_output = factor_output.lower if sided == "two" else None
    grid = SymmetricGrid(4, 32).fit(weight, factor_input.diagonal)
    codes = round_adaptive(
        weight.cuda(), grid, factor_input.lower.cuda(), None if lower_output is None else lower_output.cuda()
    ).cpu()
    assert_codes_follow_the_rule(weight, grid, codes, factor_input.lower, lower_output)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="skipped: no CUDA")
@pytest.mark.parametrize(("rows", "columns"), [*SHAPES, (130, 300), (256, 768)])
@pytest.mark.parametrize("sided", ["two", "one"])
def test_cuda_refinement_is_as_good(rows: int, columns: int, sided: str) -> None:
    weight = weight_of(rows, columns)
    factor_input, factor_output = correlated(columns, 1), correlated(rows, 2)
    metric_output = factor_output.square if sided == "two" else None
    grid = SymmetricGrid(2, 32).fit(weight, factor_input.diagonal)
    # From far away, where descent ends depends on its order, and that is not the CPU's for more than one tile.
    start = round_adaptive(weight, grid, factor_input.square, metric_output)
    on_device = grid.to("cuda")
    proxies = [proxy_error(weight, grid.decode(start), factor_input.square, metric_output)]
    for sweeps in (1, 4):
        codes = refine(
            weight.cuda(),
            on_device,
            start.cuda(),
            factor_input.square.cuda(),
            None if metric_output is None else metric_output.cuda(),
            sweeps,
        ).cpu()
        proxies.append(proxy_error(weight, grid.decode(codes), factor_input.square, metric_output))
    here = refine(weight, grid, start, factor_input.square, metric_output, 4)
    expected = proxy_error(weight, grid.decode(here), factor_input.square, metric_output)
    assert proxies[0] * (1 + 1e-5) >= proxies[1] and proxies[1] * (1 + 1e-5) >= proxies[2]
    assert proxies[2] <= 1.05 * expected


@pytest.mark.skipif(not torch.cuda.is_available(), reason="skipped: no CUDA")
@pytest.mark.parametrize("workers", [1, 3])
def test_whole_layers_on_cuda_come_out_as_on_the_cpu(workers: int) -> None:
    def tasks(device: str) -> Iterator[RoundingTask[str]]:
        for number, (rows, columns) in enumerate([(130, 300), (96, 256), (64, 64)] * 2):
            weight = weight_of(rows, columns).to(device)
            factor_input = prepare_factor(correlated(columns, number).hessian.to(device), 0.01)
            factor_output = prepare_factor(correlated(rows, number + 1).hessian.to(device), 0.1)
            assert factor_input.square.device.type == device
            grid = SymmetricGrid(3, 32).fit(weight, factor_input.diagonal)
            yield RoundingTask(str(number), weight, grid, factor_input, factor_output, 4, 2)

    on_cpu, on_gpu = list(round_layers(tasks("cpu"), 1)), list(round_layers(tasks("cuda"), workers))
    assert [layer.key for layer in on_gpu] == [layer.key for layer in on_cpu]
    for here, there in zip(on_cpu, on_gpu, strict=True):
        assert not there.codes.is_cuda and not there.grid.scale.is_cuda
        assert there.proxy == pytest.approx(here.proxy, rel=0.03)


def test_layers_fly_side_by_side_only_where_memory_holds_them() -> None:
    shapes = [(1024, 1024), (2816, 1024)]
    factors = 4 * (2816**2 + 1024**2)
    enough = 2 * factors * (FIRST_LAYER + 3 * FURTHER_LAYER)
    assert layers_in_flight(shapes, 4, enough) == 4
    assert layers_in_flight(shapes, 4, enough - 2) == 1
    assert layers_in_flight(shapes, 1, 0) == 1
    # All linears of an 8B Llama on 16 cores, by the widest of them.
    assert layers_in_flight([(14336, 4096)], 16, 128 << 30) == 16
    assert layers_in_flight([(14336, 4096)], 16, 64 << 30) == 1
    assert layers_in_flight([], 4, 0) == 4
