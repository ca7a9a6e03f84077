from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from yaqa_runner.formats.gguf.arrangement import Arrangement, as_matrix, find_arrangement, number_tensor

Sources = dict[str, torch.Tensor]


def arrangement_of(
    transform: Callable[[Sources], torch.Tensor], shapes: dict[str, tuple[int, ...]]
) -> Arrangement | None:
    """What the numbers tell of ``transform``."""
    names = list(shapes)
    passes = []
    for number in range(1 + max(len(shape) for shape in shapes.values())):
        numbered = {name: number_tensor(shape, number, place) for place, (name, shape) in enumerate(shapes.items())}
        passes.append(transform(numbered))
    return find_arrangement(passes, names, shapes)


def permuted(heads: int) -> Callable[[Sources], torch.Tensor]:
    """llama.cpp's order of the rows of a llama's queries."""

    def transform(given: Sources) -> torch.Tensor:
        weight = given["q"]
        return weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)

    return transform


REARRANGED: dict[str, tuple[Callable[[Sources], torch.Tensor], dict[str, tuple[int, ...]]]] = {
    "as it is": (lambda given: given["q"], {"q": (6, 4)}),
    "rows permuted": (permuted(2), {"q": (8, 4)}),
    "transposed": (lambda given: given["q"].T, {"q": (6, 4)}),
    "experts stacked": (lambda given: torch.stack([given["b"], given["a"]]), {"a": (6, 4), "b": (6, 4)}),
    "parts joined": (lambda given: torch.cat([given["q"], given["k"]]), {"q": (6, 4), "k": (2, 4)}),
    "part of a fused one": (lambda given: given["qkv"][2:5], {"qkv": (6, 4)}),
    "columns reordered": (lambda given: given["o"].reshape(6, 2, 2).swapaxes(1, 2).reshape(6, 4), {"o": (6, 4)}),
    "half of fused experts": (lambda given: given["e"].transpose(1, 2)[:, ::2], {"e": (3, 4, 6)}),
}


@pytest.mark.parametrize("label", REARRANGED)
def test_a_rearrangement_is_found_and_gives_the_converters_tensor(label: str) -> None:
    transform, shapes = REARRANGED[label]
    arrangement = arrangement_of(transform, shapes)
    assert arrangement is not None
    real = {name: torch.randn(shape) for name, shape in shapes.items()}
    wanted = transform(real)
    matrix = arrangement.assemble(real.__getitem__)
    assert torch.equal(matrix, wanted.reshape(matrix.shape))
    for number, name in enumerate(arrangement.sources):
        restored = as_matrix(torch.full(shapes[name], torch.nan), arrangement.axis).contiguous()
        arrangement.scatter(number, matrix, restored)
        known = ~restored.isnan()
        assert known.any() and torch.equal(restored[known], as_matrix(real[name], arrangement.axis)[known])


@pytest.mark.parametrize(
    "transform",
    [
        lambda given: given["q"] + 1,
        lambda given: -given["q"].exp(),
        lambda given: given["q"] + given["k"],
        lambda given: torch.cat([given["q"], given["k"]], dim=1),
        lambda given: given["q"][:, :2],
        # Keys of latent attention: every head has its own stretch of the source along the columns.
        lambda given: given["q"].reshape(2, 3, 4).transpose(1, 2).reshape(8, 3),
    ],
)
def test_what_is_more_than_a_rearrangement_of_whole_rows_is_none(transform: Callable[[Sources], torch.Tensor]) -> None:
    assert arrangement_of(transform, {"q": (6, 4), "k": (6, 4)}) is None
