"""Which figure of a linear predicts the KL when that linear alone is rounded.

Takes the arguments of ``kl_table.py``. The first of ``--grids`` and the last of ``--quantizers`` are looked at, in
every ``--every``-th block, on the first ``--predict-sequences`` of each report text. Ends with one JSON line.

    npm run bench:kl -- --model smollm2 --grids s3g64 --sequences 256 --label-samples 1 --tune 0 --keep FOLDER
    python benchmarks/predict_kl.py --model smollm2 --grids s3g64 --sequences 256 --label-samples 1 --keep FOLDER
"""

from __future__ import annotations

import argparse
import json
import sys
from statistics import median

import torch
from kl_stages import Rounded
from kl_table import (
    Bench,
    Texts,
    argument_parser,
    complete_arguments,
    obtain_sketch,
    parse_grid,
    quantized,
    read_texts,
)

from yaqa_runner.model.linears import LinearLayer
from yaqa_runner.model.load import load_source_model
from yaqa_runner.model.snapshot import fingerprint_files, inspect_snapshot
from yaqa_runner.rounding.weighed_error import Metric, rounding_error

PREDICTORS = ("two-sided proxy", "one-sided proxy", "squared error")


def predictions(bench: Bench, linear: LinearLayer, rounded: Rounded) -> dict[str, float]:
    """Each in its own unit; the two-sided proxy, halved, in nats a token."""
    codes, grid = rounded[linear.name]
    error = rounding_error(linear.weight(), grid, codes)
    pair, moment = bench.regularized(linear.name), bench.moment(linear.name)
    two_sided = Metric(pair.input.symmetric, None if pair.output is None else pair.output.symmetric)
    return {
        "two-sided proxy": 0.5 * pair.scale * two_sided.square(error),
        "one-sided proxy": moment.mean_diagonal * Metric(moment.symmetric, None).square(error),
        "squared error": float(error.rows(0, error.height).double().square().sum()),
    }


@torch.no_grad()
def log_probabilities(bench: Bench, tokens: torch.Tensor) -> torch.Tensor:
    """Float32 ``[S, T, vocabulary]`` of the model as it stands."""
    return torch.cat([bench.source.model(input_ids=part).logits.float().log_softmax(-1) for part in tokens.split(2)])


def kl_of_one(
    bench: Bench, linear: LinearLayer, weight: torch.Tensor, tokens: torch.Tensor, original: torch.Tensor
) -> float:
    """Mean KL in nats a token on ``tokens`` ``[S, T]`` with ``weight`` ``[out, in]`` in place of the linear's own."""
    own = linear.module.weight
    linear.module.weight = torch.nn.Parameter(weight, requires_grad=False)
    changed = log_probabilities(bench, tokens)
    linear.module.weight = own
    return float((original.exp() * (original - changed)).sum(-1).mean())


def rank_correlation(one: list[float], other: list[float]) -> float:
    """Spearman's."""
    ranks = torch.stack([torch.tensor(values).argsort().argsort().double() for values in (one, other)])
    return float(torch.corrcoef(ranks)[0, 1])


def measured(bench: Bench, texts: Texts, rounded: Rounded, every: int, sequences: int) -> list[dict[str, float]]:
    """Predictions and ``kl`` of every linear that is looked at."""
    tokens = torch.cat([report[:sequences] for report in texts.reports.values()])
    original = log_probabilities(bench, tokens)
    found = []
    for linear in bench.source.linears:
        if linear.block % every != every // 2:
            continue
        codes, grid = rounded[linear.name]
        row = predictions(bench, linear, rounded)
        row["kl"] = kl_of_one(bench, linear, grid.decode(codes), tokens, original)
        found.append(row)
        print(f"{linear.name:<36} " + " ".join(f"{name} {value:.3g}" for name, value in row.items()), flush=True)
    return found


def main() -> None:
    parser = argument_parser(__doc__ or "")
    parser.add_argument("--every", type=int, default=5)
    parser.add_argument("--predict-sequences", type=int, default=4)
    arguments: argparse.Namespace = complete_arguments(parser.parse_args())
    if arguments.keep is None:
        sys.exit("--keep names the folder of a run of kl_table.py.")
    snapshot = inspect_snapshot(arguments.model)
    source = load_source_model(snapshot, torch.device("cpu"))
    texts = read_texts(source, arguments)
    sketch = obtain_sketch(source, fingerprint_files(snapshot), texts, arguments)
    bench = Bench(source, sketch, arguments, sketch.directory.with_name(f"{sketch.directory.name}-rounded"))
    grid = arguments.grids[0]
    parse_grid(grid)
    *_, (quantizer, make) = quantized(bench, texts, grid, 0, 1)
    rows = measured(bench, texts, make(), arguments.every, arguments.predict_sequences)
    kl = [row["kl"] for row in rows]
    summary = {name: round(rank_correlation([row[name] for row in rows], kl), 3) for name in PREDICTORS}
    ratio = median(row["two-sided proxy"] / row["kl"] for row in rows)
    print(
        json.dumps(
            {
                "grid": grid,
                "quantizer": quantizer,
                "linears": len(rows),
                "rankCorrelation": summary,
                "medianProxyOverKl": round(ratio, 3),
                "sumOfKl": sum(kl),
            }
        )
    )


if __name__ == "__main__":
    main()
