"""Layouts of unlike architectures: experts stacked, parts fused and split, inputs reordered, tensors that stay."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from tiny_architectures import save_tiny_model

from yaqa_runner.formats.container import QuantizedLinear
from yaqa_runner.formats.gguf.container import GgufContainer
from yaqa_runner.model.load import load_source_model
from yaqa_runner.model.snapshot import inspect_snapshot

# Kind, whether some of its linears have their inputs in another order in the file, what has to stay as it is.
KINDS: dict[str, tuple[bool, str | None]] = {
    "bloom": (False, None),
    "deepseek_v2": (False, "kv_b_proj"),
    "granitemoehybrid": (False, None),
    "jamba": (False, None),
    "mixtral": (False, None),
    "phi3": (False, None),
    "qwen3_5_text": (True, None),
    "starcoder2": (False, None),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_linear_comes_back_from_the_file_as_it_was_rounded(kind: str, tmp_path: Path) -> None:
    reordered, staying = KINDS[kind]
    source = save_tiny_model(kind, tmp_path / "tiny", tokenizer=False)
    snapshot = inspect_snapshot(source)
    model = load_source_model(snapshot, torch.device("cpu"))
    container = GgufContainer("q4_0")
    grid = container.grid()
    fitting = {layer.name for layer in model.linears if grid.supports(layer.rows, layer.columns)}
    storable = container.storable(source, fitting)
    left = {name for name in fitting - set(storable)}
    assert all(staying is not None and staying in name for name in left), left
    assert (staying is not None) == bool(left)
    assert any(order is not None for order in storable.values()) == reordered
    linears = {}
    for layer in model.linears:
        if layer.name in storable:
            order = storable[layer.name]
            weight = layer.weight() if order is None else layer.weight()[:, order]
            fixed = grid.fit(weight)
            linears[layer.name] = QuantizedLinear(layer.name, fixed.nearest(weight), fixed, grid.name, order)
    container.write(source, linears, tmp_path / "out")
    for name, linear in linears.items():
        decoded = linear.grid.decode(linear.codes)
        if linear.columns is not None:
            decoded = decoded[:, torch.argsort(linear.columns)]
        assert torch.equal(container.decode(tmp_path / "out", name), decoded), name
    listed = {weight.name for weight in container.unquantized(source, set(linears))}
    for path in snapshot.weight_files:
        with safe_open(path, framework="pt") as handle:
            for name in handle.keys():  # noqa: SIM118
                quantized = name.removesuffix(".weight") in linears
                assert quantized or name in listed or len(snapshot.shapes[name]) < 2, name
