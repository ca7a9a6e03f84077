"""The one interface every container implements."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from yaqa_runner.formats.grid_choice import ContainerGrid
from yaqa_runner.grids.grid import FixedGrid
from yaqa_runner.protocol.manifest import UnquantizedWeight


@dataclass(frozen=True)
class QuantizedLinear:
    """One linear layer, rounded.

    Attributes:
        name: The module's name in the source model, for example ``model.layers.0.self_attn.q_proj``.
        codes: Integer codes ``[out, in]``, int16.
        grid: The frozen grid that ``codes`` index.
        type: The grid's name.
        columns: Input of every column of ``codes``, int64 ``[in]``, where the container keeps them in another order
            than the model; ``None`` where they stay.
    """

    name: str
    codes: torch.Tensor
    grid: FixedGrid
    type: str
    columns: torch.Tensor | None = None


class ReferenceModel(Protocol):
    """Next-token log-probabilities of a model that was loaded from finished files."""

    def log_probabilities(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Float32 ``[sequences, length, vocabulary]`` for ``input_ids`` ``[sequences, length]`` int64."""
        ...


class Container(Protocol):
    """A file format that people's runtimes load."""

    name: str

    def grid(self, layer: str | None = None) -> ContainerGrid:
        """The grid of the linear named ``layer``, or of the linears in general, under this recipe."""
        ...

    def storable(self, source: Path, linears: set[str]) -> dict[str, torch.Tensor | None]:
        """Those of ``linears`` that a file has whole, each with the order of its inputs there (``None``: as they are).

        Raises:
            ExportError: :meth:`write` would refuse the model itself.
        """
        ...

    def write(
        self,
        source: Path,
        linears: dict[str, QuantizedLinear],
        output: Path,
    ) -> list[Path]:
        """Write a folder at ``output`` that the format's loader opens as it stands.

        ``source`` is the snapshot: ``config.json``, safetensors, tokenizer. Every weight that is not in
        ``linears`` is kept at the precision this format's users expect (documented in the format's module).
        Returns the files written, without a manifest. Deterministic: equal inputs give equal bytes. On an error
        ``output`` stays as it was.

        Raises:
            ExportError: The model, a grid or a shape cannot be written in this format.
        """
        ...

    def unquantized(self, source: Path, linears: set[str]) -> list[UnquantizedWeight]:
        """Matrices of ``source`` that :meth:`write` does not quantize when given ``linears``, in a fixed order.

        Raises:
            ExportError: :meth:`write` would refuse the model itself. Cheap, so callers may ask before rounding.
        """
        ...

    def load(
        self, directory: Path, device: str = "cpu", source: Path | None = None, by_blocks: bool = False
    ) -> ReferenceModel:
        """Open the finished folder with the format's own library and decode it.

        ``source`` is the snapshot it was made of, for a format whose files are read beside it. With ``by_blocks`` no
        more than a block's weights are there decoded at any time; a format whose library maps its files and computes
        with them as they are has no need of that, and does as it does without.

        Raises:
            ExportError: the files do not hold the model.
            BlocksEntangled: ``by_blocks``, and the model can only be run whole.
        """
        ...

    def decode(self, directory: Path, name: str, source: Path | None = None) -> torch.Tensor:
        """The weight ``[out, in]`` float32 of linear ``name`` as the format's own library decodes it.

        ``source``: as for :meth:`load`.
        """
        ...
