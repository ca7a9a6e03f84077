"""How many layers are rounded side by side."""

from __future__ import annotations

from collections.abc import Iterable

from yaqa_runner.config import read_list

# Bytes over those of the largest layer's two float32 factors, by benchmarks/rounding_memory.py at width 1024 with one
# worker (2.8) and two (5.7): the squares, one more while it is factored, and three matrices of the weight's shape.
FIRST_LAYER = 3
FURTHER_LAYER = 3
HOST_SHARE = 0.5
# Of a layer in flight on a GPU, counted: two pairs of factors, those rounded by and those that weigh, and nine matrices
# of the weight's shape; or, while the second pair is factored, a float64 triangle and its strips. The bot plans by it.
_GPU: dict[str, float] = read_list("memory.json")["gpuRounding"]
GPU_LAYERS = 4


def layers_in_flight(shapes: Iterable[tuple[int, int]], cores: int, host_bytes: int) -> int:
    """Layers to round at the same time: one for each core where half the host's memory holds them, else one on all.

    Large layers spread over the cores by themselves, so that one at a time costs them little.

    Args:
        shapes: ``(out, in)`` of every layer.
        cores: Cores to use, at least 1.
        host_bytes: Memory of the host.
    """
    factors = max((4 * (rows**2 + columns**2) for rows, columns in shapes), default=0)
    needed = factors * (FIRST_LAYER + FURTHER_LAYER * (cores - 1))
    return cores if needed <= host_bytes * HOST_SHARE else 1


def gpu_bytes(rows: int, columns: int) -> int:
    """What one linear ``[rows, columns]`` takes on a GPU while it is rounded."""
    factors = 4 * (rows**2 + columns**2)
    rounding = _GPU["squares"] * factors + _GPU["weights"] * 4 * rows * columns
    return int(max(_GPU["factoringSquares"] * factors, rounding))


def layers_on_gpu(shapes: Iterable[tuple[int, int]], free_bytes: int) -> int:
    """Layers to round at the same time on a GPU with ``free_bytes`` beside the model: as many as fit, four at most.

    Four are enough for one layer's narrow waves of tiles to leave no multiprocessor idle.

    Args:
        shapes: ``(out, in)`` of every layer; those that do not fit alone are rounded elsewhere.
        free_bytes: Memory that may be used.
    """
    sizes = [gpu_bytes(rows, columns) for rows, columns in shapes]
    largest = max((size for size in sizes if size <= free_bytes), default=1)
    # One that is rounded on the host wants all its cores.
    return 1 if max(sizes, default=0) > free_bytes else max(1, min(GPU_LAYERS, free_bytes // largest))
