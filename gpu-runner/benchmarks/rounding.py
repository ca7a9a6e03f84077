"""Rounding speed by layer size, against GPTQ as gptqmodel and llm-compressor do it, on the same layers in the same run.

Each row is a square layer with random weights and correlated factors, 4 bits symmetric in groups of 128. ``seconds``
go from the factors (the peers: from their Hessian, already collected) to the codes: regularising and factoring, scale
search, rounding; medians of ``--repeats`` runs. Taking the factors is not counted for anyone. ``processorSeconds`` are
those of all threads together. ``roundingSeconds`` leave out factoring and scale search, and the growth exponent is of
their processor time. The peers run in environments of their own, made by
``python gpu-runner/benchmarks/peer_environments.py gptqmodel llm-compressor``. Where one has none, fails or is not
finished after ``--peer-limit`` seconds, its seconds are null and ``gptqmodelReason`` or ``llmCompressorReason`` says
why. Where neither has one, ``gptqTextbookSeconds`` stands in: one-sided GPTQ as published (blocks of 128 columns, one
column after the other in torch), written here, without factoring and scales.

With more busy processes than cores, threads wait for each other in loops. That multiplies processor seconds too, and
the peers' most (2048 × 2048: 9 and 17 times), as they have thousands of small products. On a machine that is not idle,
give everyone one core, where processor seconds stay what they are:

    taskset -c 0 python benchmarks/rounding.py --json
    python benchmarks/rounding.py --sizes 512 1024 2048 4096 --json
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch
from peer_environments import peer_python, run_peer
from safetensors.torch import save_file

from yaqa_runner.grids.grid import FixedGrid
from yaqa_runner.grids.symmetric import SymmetricGrid
from yaqa_runner.machine.cores import available_cores
from yaqa_runner.rounding.adaptive import round_adaptive
from yaqa_runner.rounding.linalg.factor import prepare_factor
from yaqa_runner.rounding.refine import refine

GROUP = 128
BLOCK = 128
PEERS = {"gptqmodel": "gptqmodel", "llmCompressor": "llm-compressor"}
"""By the name in the JSON rows."""


def correlated_samples(size: int, seed: int) -> torch.Tensor:
    """``[2 size, size]`` with a spread of scales and a common direction, as activations have."""
    generator = torch.Generator().manual_seed(seed)
    samples = torch.randn(2 * size, size, generator=generator) * torch.linspace(0.2, 3.0, size)
    return samples + samples[:, :1]


def moment(samples: torch.Tensor) -> torch.Tensor:
    """``XᵀX`` ``[n, n]``."""
    return samples.T @ samples


def textbook_gptq(weight: torch.Tensor, grid: FixedGrid, upper: torch.Tensor) -> torch.Tensor:
    """One-sided GPTQ (arXiv 2210.17323, algorithm 1); ``upper`` is the Cholesky factor of the inverse ``[in, in]``."""
    remaining = weight.clone()
    columns = weight.shape[1]
    codes = torch.empty_like(weight, dtype=torch.int16)
    for start in range(0, columns, BLOCK):
        stop = min(start + BLOCK, columns)
        block = remaining[:, start:stop].clone()
        errors = torch.zeros_like(block)
        inner = upper[start:stop, start:stop]
        for k in range(stop - start):
            scale = grid.scale[:, (start + k) // grid.group]
            code = (block[:, k] / scale).round().clamp(grid.minimum, grid.maximum)
            codes[:, start + k] = code.to(torch.int16)
            error = (block[:, k] - scale * code) / inner[k, k]
            block[:, k:] -= error[:, None] * inner[k, k:][None, :]
            errors[:, k] = error
        remaining[:, stop:] -= errors @ upper[start:stop, stop:]
    return codes


def median_seconds(work: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Median seconds by the clock, and of the processor (all threads)."""
    clock, processor = [], []
    # Threads start and libraries load in the first call.
    work()
    for _ in range(repeats):
        started, used = time.perf_counter(), time.process_time()
        work()
        clock.append(time.perf_counter() - started)
        processor.append(time.process_time() - used)
    return statistics.median(clock), statistics.median(processor)


@dataclass(frozen=True)
class PeerTiming:
    """Median seconds by the clock and of the processor, or the reason why there are none."""

    seconds: float | None = None
    processor_seconds: float | None = None
    reason: str | None = None


def peer_timing(name: str, weight: torch.Tensor, samples: torch.Tensor, repeats: int, limit: float) -> PeerTiming:
    """The one-sided GPTQ of the peer ``name`` on the same layer."""
    with tempfile.TemporaryDirectory() as folder:
        layer = Path(folder) / "layer.safetensors"
        save_file({"weight": weight, "inputs": samples.contiguous()}, layer)
        script = Path(__file__).with_name(f"{name.replace('-', '_')}_layer.py")
        try:
            found = run_peer(name, script, [str(layer), str(repeats), str(GROUP), str(available_cores())], limit)
        except RuntimeError as error:
            return PeerTiming(reason=str(error))
    return PeerTiming(statistics.median(found["seconds"]), statistics.median(found["processorSeconds"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 1024, 2048, 4096])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peer-repeats", type=int, default=3)
    parser.add_argument("--peer-limit", type=float, default=900, help="seconds a peer has for all repeats of a layer")
    parser.add_argument("--json", action="store_true", help="end with one JSON line")
    arguments = parser.parse_args()

    warm = SymmetricGrid(4, GROUP).fit(torch.randn(8, 8))
    round_adaptive(torch.randn(8, 8), warm, torch.eye(8), torch.eye(8))
    torch.set_num_threads(available_cores())
    header = (
        "size",
        "two-sided",
        "one-sided",
        *PEERS.values(),
        "rounding only",
        "refine/sweep",
        "textbook GPTQ",
        "exponent",
    )
    print("".join(f"{word:>15}" for word in header))
    rows: list[dict[str, object]] = []
    previous: tuple[int, float] | None = None
    for size in arguments.sizes:
        weight = torch.randn(size, size, generator=torch.Generator().manual_seed(0))
        samples = correlated_samples(size, 1)
        raw_input, raw_output = moment(samples), moment(correlated_samples(size, 2))

        def two_sided(w: torch.Tensor = weight, i: torch.Tensor = raw_input, o: torch.Tensor = raw_output) -> None:
            factor_input, factor_output = prepare_factor(i, 0.01), prepare_factor(o, 0.1)
            grid = SymmetricGrid(4, GROUP).fit(w, factor_input.diagonal)
            round_adaptive(w, grid, factor_input.square, factor_output.square)

        def one_sided(w: torch.Tensor = weight, i: torch.Tensor = raw_input) -> None:
            factor_input = prepare_factor(i, 0.01)
            round_adaptive(w, SymmetricGrid(4, GROUP).fit(w, factor_input.diagonal), factor_input.square, None)

        whole, whole_processor = median_seconds(two_sided, arguments.repeats)
        peers = {
            wire: peer_timing(name, weight, samples, arguments.peer_repeats, arguments.peer_limit)
            for wire, name in PEERS.items()
        }
        single, single_processor = median_seconds(one_sided, arguments.repeats)
        factor_input, factor_output = prepare_factor(raw_input, 0.01), prepare_factor(raw_output, 0.1)
        grid = SymmetricGrid(4, GROUP).fit(weight, factor_input.diagonal)
        upper = torch.linalg.cholesky(torch.linalg.inv(factor_input.hessian.double()), upper=True).float()
        rounding, rounding_processor = median_seconds(
            lambda w=weight, g=grid, i=factor_input.square, o=factor_output.square: round_adaptive(  # type: ignore[misc]
                w, g, i, o
            ),
            arguments.repeats,
        )
        codes = round_adaptive(weight, grid, factor_input.square, factor_output.square)
        sweep, _ = median_seconds(
            lambda w=weight, g=grid, c=codes, i=factor_input, o=factor_output: refine(  # type: ignore[misc]
                w, g, c, i.square, o.square, 1
            ),
            1,
        )
        # It stands in for the peers where none is installed; a minute at 2048.
        textbook = None
        if all(peer_python(name) is None for name in PEERS.values()):
            textbook, _ = median_seconds(
                lambda w=weight, g=grid, u=upper: textbook_gptq(w, g, u),  # type: ignore[misc]
                1,
            )
        exponent = None
        if previous is not None:
            exponent = math.log(rounding_processor / previous[1]) / math.log(size / previous[0])
        previous = (size, rounding_processor)
        cells = (whole, single, *(peer.seconds for peer in peers.values()), rounding, sweep, textbook)
        shown = "".join(f"{'–' if cell is None else format(cell, '.3f'):>15}" for cell in cells)
        print(f"{size:>15}{shown}{'' if exponent is None else format(exponent, '.2f'):>15}", flush=True)
        rows.append(
            {
                "size": size,
                "twoSidedSeconds": whole,
                "oneSidedSeconds": single,
                **{f"{wire}Seconds": peer.seconds for wire, peer in peers.items()},
                "twoSidedProcessorSeconds": whole_processor,
                "oneSidedProcessorSeconds": single_processor,
                **{f"{wire}ProcessorSeconds": peer.processor_seconds for wire, peer in peers.items()},
                "roundingSeconds": rounding,
                "roundingProcessorSeconds": rounding_processor,
                "refineSweepSeconds": sweep,
                "gptqTextbookSeconds": textbook,
                "growthExponent": exponent,
                **{f"{wire}Reason": peer.reason for wire, peer in peers.items() if peer.reason is not None},
            }
        )
    if arguments.json:
        device = f"cpu, {available_cores()} cores, {platform.machine()}, torch {torch.__version__}"
        result = {"rows": rows, "device": device, "date": datetime.now(UTC).date().isoformat()}
        print(json.dumps({**result, "otherLoad": round(max(0.0, os.getloadavg()[1] - available_cores()), 1)}))


if __name__ == "__main__":
    main()
