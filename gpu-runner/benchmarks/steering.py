"""What rounding the projections that steer a state costs, beside what rounding all the others does.

``python steering.py [--bits 4]``: tiny random hybrids, every matrix rounded to nearest in groups of 32; the mean KL to
the original over random tokens, in all and by the weights that were rounded. Random models say in which direction, not
by how much in a trained one.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import torch
from tiny_architectures import save_tiny_model

from yaqa_runner.grids.symmetric import SymmetricGrid
from yaqa_runner.model.load import load_source_model
from yaqa_runner.model.snapshot import inspect_snapshot

KINDS = ("qwen3_5_text", "qwen3_next", "jamba", "kimi_linear")
SEQUENCES, LENGTH, GROUP = 4, 64, 32


@torch.no_grad()
def measure(kind: str, bits: int) -> dict[str, object]:
    """KL in nats a token of rounding each of the two sets alone, and the shares of the weights they are."""
    with tempfile.TemporaryDirectory() as folder:
        directory = save_tiny_model(kind, Path(folder) / "tiny", torch.float32, tokenizer=False)
        source = load_source_model(inspect_snapshot(directory), torch.device("cpu"))
        tokens = torch.randint(2, 300, (SEQUENCES, LENGTH), generator=torch.Generator().manual_seed(0))
        original = source.logits(tokens).log_softmax(-1)
        modules = dict(source.model.named_modules())
        steering = [
            modules[weight.name.removesuffix(".weight")]
            for weight in source.unquantized
            if weight.reason.startswith("steers a state") and weight.name.removesuffix(".weight") in modules
        ]
        found: dict[str, object] = {"kind": kind, "bits": bits}
        for name, chosen in (("steering", steering), ("others", [layer.module for layer in source.linears])):
            kept = [module.weight.clone() for module in chosen]
            count = _round(chosen, bits)
            rounded = source.logits(tokens).log_softmax(-1)
            kl = float((original.exp() * (original - rounded)).sum(-1).mean())
            for module, weight in zip(chosen, kept, strict=True):
                module.weight.copy_(weight)
            found[name] = {"weights": count, "klNats": kl, "klNatsAMillionWeights": kl / count * 1e6}
        return found


def _round(modules: Iterable[torch.nn.Module], bits: int) -> int:
    grid, count = SymmetricGrid(bits, GROUP), 0
    for module in modules:
        weight = module.weight
        assert isinstance(weight, torch.Tensor)
        fixed = grid.fit(weight.float())
        weight.copy_(fixed.decode(fixed.nearest(weight.float())))
        count += weight.numel()
    return count


def main() -> None:
    """Prints a JSON line a kind."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--bits", type=int, default=4)
    bits = parser.parse_args().bits
    torch.set_num_threads(1)
    for kind in KINDS:
        print(json.dumps(measure(kind, bits)), flush=True)


if __name__ == "__main__":
    main()
