"""``--plots``: what a run found, as pictures beside its folders. matplotlib is an extra."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from yaqa_runner.protocol.failures import InvalidSpec
from yaqa_runner.protocol.manifest import Manifest, Measured
from yaqa_runner.sketches.store import Sketch

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Lines in one picture of spectra; the widest and the narrowest are among those shown.
SPECTRA = 8
QUANTIZERS = {"rtn": "round to nearest", "one-sided": "one-sided (GPTQ)", "two-sided": "two-sided"}


def require_matplotlib() -> None:
    """Before anything is computed.

    Raises:
        InvalidSpec: matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise InvalidSpec("Plots need matplotlib, which is not installed here.", "pip install 'yaqa-runner[plots]'")


def draw_plots(manifests: list[Manifest], sketch: Sketch, folder: Path) -> list[Path]:
    """Predicted KL by layer for every recipe, KL by size for all of them, and spectra of ``H_O``; PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    written = [
        _picture(
            folder / f"kl-by-layer-{number:02d}.png",
            lambda axes, manifest=manifest: _by_layer(axes, manifest),
        )
        for number, manifest in enumerate(manifests)
    ]
    written.append(_picture(folder / "kl-by-size.png", lambda axes: _by_size(axes, manifests)))
    written.append(_picture(folder / "spectrum-of-h-o.png", lambda axes: _spectra(axes, sketch)))
    return written


def effective_spectrum(factor: torch.Tensor) -> torch.Tensor:
    """Eigenvalues of a symmetric factor ``[n, n]``, largest first, as shares of their sum, float64 ``[n]``."""
    values: torch.Tensor = torch.linalg.eigvalsh(factor.double()).flip(0).clamp_min(0)
    total = values.sum()
    return values / total if float(total) > 0 else values


def _picture(path: Path, draw: Any) -> Path:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5), layout="constrained")
    FigureCanvasAgg(figure)
    draw(figure.add_subplot())
    figure.savefig(path, dpi=120)
    return path


def _by_layer(axes: Axes, manifest: Manifest) -> None:
    names = [layer.name for layer in manifest.layers]
    for key, label in QUANTIZERS.items():
        field = key.replace("-", "_")
        axes.plot(
            [max(getattr(layer.proxy_error, field) / 2, 1e-12) for layer in manifest.layers], marker=".", label=label
        )
    axes.set_yscale("log")
    axes.set_ylabel("predicted KL, nats a token: ½ tr(H_O E H_I Eᵀ)")
    step = max(1, len(names) // 30)
    axes.set_xticks(range(0, len(names), step), [name[-40:] for name in names[::step]], rotation=90, fontsize=6)
    axes.set_title(manifest.recipe, parse_math=False)
    axes.legend()


def _by_size(axes: Axes, manifests: list[Manifest]) -> None:
    for key in (*QUANTIZERS, "two-sided-tuned"):
        rows = [row for manifest in manifests for row in manifest.evaluation.measured if row.quantizer == key]
        if rows:
            _points(axes, rows, QUANTIZERS.get(key, "two-sided, scales tuned"))
    for manifest in manifests:
        own = next(row for row in manifest.evaluation.measured if row.quantizer == manifest.quantizer)
        axes.annotate(manifest.recipe, (own.bytes / 2**20, own.report.kl_nats.mean), fontsize=7, parse_math=False)
    axes.set_yscale("log")
    axes.set_xlabel("size, MiB")
    axes.set_ylabel("KL(original ‖ quantized), nats a token")
    axes.legend()


def _points(axes: Axes, rows: list[Measured], label: str) -> None:
    axes.errorbar(
        [row.bytes / 2**20 for row in rows],
        [max(row.report.kl_nats.mean, 1e-12) for row in rows],
        yerr=[row.report.kl_nats.standard_error for row in rows],
        fmt="o",
        label=label,
    )


def _spectra(axes: Axes, sketch: Sketch) -> None:
    ranked = sorted(sketch.layers.values(), key=lambda layer: layer.effective_rank_output)
    step = max(1, -(-len(ranked) // SPECTRA))
    for layer in [*ranked[::step], *ranked[-1:]]:
        spectrum = effective_spectrum(sketch.factors(layer.name).output.whole())
        label = f"{layer.name[-40:]} (effective rank {layer.effective_rank_output:.1f})"
        axes.plot(range(1, len(spectrum) + 1), spectrum.clamp_min(1e-12), label=label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("eigenvalue")
    axes.set_ylabel("share of tr(H_O)")
    axes.legend(fontsize=7)
