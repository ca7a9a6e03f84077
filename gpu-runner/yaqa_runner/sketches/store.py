"""Sketches on disk: one safetensors file a block and ``sketch.json``, for us and for anybody else.

Every factor is the lower triangle of a symmetric float32 matrix, row by row, diagonal included. For a linear
``NAME`` of weight ``[out, in]``: ``NAME.input`` is ``H_I [in, in]``, ``NAME.output`` is ``H_O [out, out]``, and
``NAME.second_moment`` is ``E[x xᵀ] [in, in]``, stored once for linears that share their input (``sketch.json`` says
under which name).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from yaqa_runner.calibration.tokens import TokenSet
from yaqa_runner.model.snapshot import file_sha256
from yaqa_runner.sketches.evidence import Concentration
from yaqa_runner.sketches.settings import SKETCH_CODE_VERSION, SketchSettings
from yaqa_runner.sketches.triangle import Triangle, pack_triangle, packed_triangle
from yaqa_runner.wire_model import Sha256Hex, WireModel

SKETCH_FILE = "sketch.json"
# Of a job's output.
SKETCH_DIRECTORY = "sketch"
SKETCH_FORMAT = 1
LAYOUT = "float32 lower triangles of symmetric matrices, rows in order, diagonal included"


class SketchUnreadable(Exception):
    """A folder that holds no sketch, a damaged one, or one of another key."""


class SketchTrust(WireModel):
    """How far a linear's factors are trusted: see ``sketch.trust.Trust``."""

    sigma_input: float
    sigma_output: float
    predicted_loss: float
    standard_error: float
    tokens: int


class SketchedLayer(WireModel):
    """One linear's entry in ``sketch.json``. ``tokens`` counts the inputs that it saw."""

    name: str
    shape: tuple[int, int]
    block: int
    file: str
    second_moment: str
    tokens: int
    effective_rank_input: float
    effective_rank_output: float
    cosine_similarity: float | None
    concentration_input: Concentration | None = None
    concentration_output: Concentration | None = None
    trust: SketchTrust | None = None


class SketchFile(WireModel):
    """One file of a sketch."""

    size: int
    sha256: Sha256Hex


class SketchCalibration(WireModel):
    """The tokens that a sketch was taken on."""

    sha256: Sha256Hex
    sequences: int
    length: int


class SketchRecord(WireModel):
    """``sketch.json``."""

    sketch: Annotated[int, Field(ge=1)]
    key: Sha256Hex
    kind: str
    iterations: int
    seed: int
    label_samples: int
    code_version: int
    layout: str
    source_sha256: Sha256Hex
    calibration: SketchCalibration
    layers: list[SketchedLayer]
    files: dict[str, SketchFile]


@dataclass(frozen=True)
class LayerFactors:
    """One linear's factors: ``input [in, in]``, ``output [out, out]``, ``second_moment [in, in]``.

    ``trust`` is what held-out tokens say of the pair, where any were kept for that.
    """

    input: Triangle
    output: Triangle
    second_moment: Triangle
    trust: SketchTrust | None = None

    def with_inputs_in(self, order: torch.Tensor) -> LayerFactors:
        """The factors of the linear with its inputs in ``order``."""
        return LayerFactors(self.input.reordered(order), self.output, self.second_moment.reordered(order), self.trust)


@dataclass(frozen=True)
class FreshLayer:
    """A linear that was just sketched. ``second_moment`` is ``None`` where ``moment_of`` names another linear.

    Matrices are whole, or packed as they are stored.
    """

    entry: SketchedLayer
    input: torch.Tensor
    output: torch.Tensor
    second_moment: torch.Tensor | None

    def packed(self) -> FreshLayer:
        """The same in half the bytes, and on the CPU."""
        moment = None if self.second_moment is None else _packed(self.second_moment)
        return FreshLayer(self.entry, _packed(self.input), _packed(self.output), moment)


def _packed(matrix: torch.Tensor) -> torch.Tensor:
    return matrix if matrix.ndim == 1 else pack_triangle(matrix)


class Sketch:
    """A finished sketch in a folder; of a factor, only the rows that are asked for are read."""

    def __init__(self, directory: Path, record: SketchRecord) -> None:
        self.directory = directory
        self.record = record
        self.layers = {layer.name: layer for layer in record.layers}

    @property
    def key(self) -> str:
        """The fingerprint."""
        return self.record.key

    def factors(self, name: str) -> LayerFactors:
        """The factors of linear ``name``; reading their rows may raise the same.

        Raises:
            SketchUnreadable: the linear is not in the sketch or its file does not hold it.
        """
        layer = self.layers.get(name)
        if layer is None:
            raise SketchUnreadable(f"the sketch has no linear {name!r}")
        representative = self.layers.get(layer.second_moment)
        if representative is None:
            raise SketchUnreadable(f"the sketch names {layer.second_moment!r}, which it does not hold")
        factors = LayerFactors(
            _stored_triangle(self.directory / layer.file, f"{name}.input"),
            _stored_triangle(self.directory / layer.file, f"{name}.output"),
            _stored_triangle(self.directory / representative.file, f"{representative.name}.second_moment"),
            layer.trust,
        )
        rows, columns = layer.shape
        if factors.input.size != columns or factors.second_moment.size != columns:
            raise SketchUnreadable(f"the input factor of {name!r} has the wrong size")
        if factors.output.size != rows:
            raise SketchUnreadable(f"the output factor of {name!r} has the wrong size")
        return factors


def open_sketch(directory: Path, key: str | None = None, verify: bool = True) -> Sketch:
    """Open the sketch in ``directory``, whole and (with ``verify``) unchanged since it was written.

    Raises:
        SketchUnreadable: there is none, it is damaged, or its key is not ``key``.
    """
    try:
        record = SketchRecord.model_validate_json((directory / SKETCH_FILE).read_bytes())
    except (OSError, ValidationError) as error:
        raise SketchUnreadable(f"{directory} holds no readable {SKETCH_FILE}") from error
    if record.sketch != SKETCH_FORMAT:
        raise SketchUnreadable(f"the sketch has format {record.sketch}, not {SKETCH_FORMAT}")
    if key is not None and record.key != key:
        raise SketchUnreadable("it is of another source, calibration set or other settings")
    for name, expected in record.files.items():
        path = directory / name
        if Path(name).name != name or not path.is_file() or path.stat().st_size != expected.size:
            raise SketchUnreadable(f"{name} is missing or has the wrong size")
        if verify and file_sha256(path) != expected.sha256:
            raise SketchUnreadable(f"{name} is damaged")
    if any(layer.file not in record.files for layer in record.layers):
        raise SketchUnreadable("sketch.json names files that it does not list")
    return Sketch(directory, record)


def link_sketch(sketch: Sketch, target: Path) -> Sketch:
    """Put an existing sketch at ``target``, by hard links where the file system allows, and open it there."""
    partial = target.with_name(target.name + ".linking")
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir(parents=True)
    for name in (SKETCH_FILE, *sketch.record.files):
        try:
            os.link(sketch.directory / name, partial / name)
        except OSError:
            shutil.copyfile(sketch.directory / name, partial / name)
    if target.exists():
        shutil.rmtree(target)
    partial.rename(target)
    return open_sketch(target, sketch.key, verify=False)


class SketchWriter:
    """Writes a sketch block by block beside its final place; finished blocks survive any interruption."""

    def __init__(self, target: Path, key: str) -> None:
        self._target = target
        self._key = key
        self.partial = target.with_name(target.name + ".partial")
        if (self.partial / "key").is_file() and (self.partial / "key").read_text(encoding="ascii") == key:
            return
        if self.partial.exists():
            shutil.rmtree(self.partial)
        self.partial.mkdir(parents=True)
        (self.partial / "key").write_text(key, encoding="ascii")

    def has_block(self, block: int) -> bool:
        """Whether the block was finished, now or before an interruption."""
        return (self.partial / f"{_stem(block)}.json").is_file()

    def write_block(self, block: int, layers: list[FreshLayer]) -> None:
        """Keep a finished block. Its JSON is written last and says that it is whole."""
        tensors: dict[str, torch.Tensor] = {}
        for layer in layers:
            name = layer.entry.name
            packed = layer.packed()
            tensors[f"{name}.input"] = packed.input
            tensors[f"{name}.output"] = packed.output
            if packed.second_moment is not None:
                tensors[f"{name}.second_moment"] = packed.second_moment
        path = self.partial / f"{_stem(block)}.safetensors"
        temporary = path.with_suffix(".tmp")
        save_file(tensors, temporary, metadata={"layout": LAYOUT})
        temporary.rename(path)
        text = json.dumps([layer.entry.to_wire() for layer in layers])
        _write_atomically(self.partial / f"{_stem(block)}.json", text)

    def save_state(self, tensors: dict[str, torch.Tensor], progress: dict[str, int]) -> None:
        """Keep a window's factors between half steps, with the numbers that say which ones they are."""
        temporary = self.partial / "state.tmp"
        save_file(
            {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()},
            temporary,
            metadata={name: str(value) for name, value in progress.items()},
        )
        temporary.rename(self.partial / "state.safetensors")

    def load_state(self) -> tuple[dict[str, torch.Tensor], dict[str, int]] | None:
        """What ``save_state`` kept, or ``None``."""
        path = self.partial / "state.safetensors"
        try:
            with safe_open(path, framework="pt", device="cpu") as handle:
                progress = {name: int(value) for name, value in (handle.metadata() or {}).items()}
                return {name: handle.get_tensor(name) for name in handle.keys()}, progress  # noqa: SIM118
        except (OSError, SafetensorError, ValueError):
            return None

    def finish(self, settings: SketchSettings, source_sha256: str, calibration: TokenSet, blocks: list[int]) -> Sketch:
        """Write ``sketch.json`` and move the folder into place."""
        layers: list[SketchedLayer] = []
        files: dict[str, SketchFile] = {}
        for block in blocks:
            entries = json.loads((self.partial / f"{_stem(block)}.json").read_text(encoding="utf-8"))
            layers.extend(SketchedLayer.model_validate(entry) for entry in entries)
            path = self.partial / f"{_stem(block)}.safetensors"
            files[path.name] = SketchFile(size=path.stat().st_size, sha256=file_sha256(path))
        record = SketchRecord(
            sketch=SKETCH_FORMAT,
            key=self._key,
            kind=settings.kind,
            iterations=settings.iterations,
            seed=settings.seed,
            label_samples=settings.label_samples,
            code_version=SKETCH_CODE_VERSION,
            layout=LAYOUT,
            source_sha256=source_sha256,
            calibration=SketchCalibration(
                sha256=calibration.sha256, sequences=calibration.sequences, length=calibration.length
            ),
            layers=layers,
            files=files,
        )
        _write_atomically(self.partial / SKETCH_FILE, json.dumps(record.to_wire(), indent="\t") + "\n")
        for path in self.partial.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != SKETCH_FILE and path.name not in files:
                path.unlink()
        if self._target.exists():
            shutil.rmtree(self._target)
        self.partial.rename(self._target)
        return Sketch(self._target, record)


def block_file(block: int) -> str:
    """Name of a block's safetensors file."""
    return f"{_stem(block)}.safetensors"


def _stem(block: int) -> str:
    return f"block-{block:04d}"


def _write_atomically(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.rename(path)


def _stored_triangle(path: Path, name: str) -> Triangle:
    def read(start: int, stop: int) -> torch.Tensor:
        # A slice is read into memory of its own. The whole tensor would be the mapped file, whose pages stay.
        with _tensors_of(path, name) as tensors:
            part: torch.Tensor = tensors.get_slice(name)[start:stop]
            return part

    with _tensors_of(path, name) as tensors:
        shape = tensors.get_slice(name).get_shape()
        if len(shape) != 1:
            raise ValueError(f"it has shape {shape}")
        return packed_triangle(read, shape[0])


@contextmanager
def _tensors_of(path: Path, name: str) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt", device="cpu") as handle:
            yield handle
    except (OSError, SafetensorError, ValueError) as error:
        raise SketchUnreadable(f"{path.name} does not hold {name}: {error}") from error
