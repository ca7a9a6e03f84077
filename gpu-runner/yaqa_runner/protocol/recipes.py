"""Recipes: how a variant is named. The table and the canonical form are those of ``src/protocol/recipe.ts``."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Literal

from yaqa_runner.protocol.byte_size import byte_size_text, parse_byte_size
from yaqa_runner.protocol.failures import InvalidSpec

ContainerName = Literal["gguf", "onnx", "compressed-tensors", "gptq"]

GROUPS = (32, 64, 128)
MIXED_NAME = "gguf"
MIXED_EXAMPLES = f'"{MIXED_NAME},bpw=3.5" or "{MIXED_NAME},bytes=4.5GB"'
LEAST_BITS_PER_WEIGHT = 2
MOST_BITS_PER_WEIGHT = 8.5
OPTION_KEYS = ["group", "block", "refine", "tune", "zero", "embedding", "bpw", "bytes"]
MAXIMUM_RECIPE_CHARACTERS = 200
MAXIMUM_SWEEPS = 10
DEFAULT_REFINE_SWEEPS = 2


@dataclass(frozen=True)
class RecipeName:
    """A short name and what it stands for.

    Attributes:
        bits: Bits of one stored code, scales not counted.
        default_group: Weights that share one scale; ``None`` where the container fixes it.
        bits_per_weight: Stored bits a quantized weight at the default group, scales counted.
        zero_points: Whether ``zero=on`` gives every group a zero point.
        embedding_bits: Bits that ``embedding=q4`` and the like can give embedding and output layer; empty where the
            container decides.
    """

    name: str
    container: ContainerName
    bits: int
    default_group: int | None
    groups: tuple[int, ...]
    bits_per_weight: float
    zero_points: bool
    embedding_bits: tuple[int, ...]


def _gguf(name: str, bits: int, bits_per_weight: float) -> RecipeName:
    return RecipeName(f"gguf:{name}", "gguf", bits, None, (), bits_per_weight, False, ())


def _grouped(name: str, container: ContainerName, bits: int, default_group: int, scale_bits: int) -> RecipeName:
    stored = bits + scale_bits / default_group
    zero_points = container == "compressed-tensors"
    embedding_bits = (4, 8) if container == "onnx" else ()
    return RecipeName(name, container, bits, default_group, GROUPS, stored, zero_points, embedding_bits)


RECIPE_NAMES: tuple[RecipeName, ...] = (
    _gguf("q4_0", 4, 4.5),
    _gguf("q8_0", 8, 8.5),
    _gguf("q4_1", 4, 5),
    _gguf("q5_0", 5, 5.5),
    _gguf("q2_k", 2, 2.625),
    _gguf("q3_k", 3, 3.4375),
    _gguf("q4_k", 4, 4.5),
    _gguf("q5_k", 5, 5.5),
    _gguf("q6_k", 6, 6.5625),
    _grouped("onnx:q4", "onnx", 4, 32, 32),
    _grouped("onnx:q8", "onnx", 8, 32, 32),
    _grouped("onnx:q4f16", "onnx", 4, 32, 16),
    _grouped("onnx:q2", "onnx", 2, 32, 32),
    _grouped("w4a16", "compressed-tensors", 4, 128, 16),
    _grouped("w8a16", "compressed-tensors", 8, 128, 16),
    _grouped("w2a16", "compressed-tensors", 2, 128, 16),
    _grouped("w3a16", "compressed-tensors", 3, 128, 16),
    _grouped("w5a16", "compressed-tensors", 5, 128, 16),
    _grouped("w6a16", "compressed-tensors", 6, 128, 16),
    _grouped("w7a16", "compressed-tensors", 7, 128, 16),
    _grouped("gptq:4", "gptq", 4, 128, 16),
    _grouped("gptq:8", "gptq", 8, 128, 16),
    _grouped("gptq:3", "gptq", 3, 128, 16),
    _grouped("gptq:2", "gptq", 2, 128, 16),
)


@dataclass(frozen=True)
class Recipe:
    """One variant's description; equal recipes have equal ``canonical`` strings.

    Attributes:
        name: The short name, for example ``gguf:q4_0``.
        group: Weights that share one scale; ``None`` where the container fixes it.
        refine_sweeps: Coordinate-descent sweeps after rounding.
        tune: Whether scales are tuned under the true KL.
        zero: Whether every group has a zero point beside its scale.
        bits_per_weight: What the quantized linears may take on average, scales counted, where every linear gets a type
            of its own (``gguf,bpw=3.5``); else ``None``.
        budget_bytes: What all files of the variant may take together, its manifest aside, where every linear gets a
            type of its own (``gguf,bytes=4.5GB``); else ``None``.
        embedding_bits: Bits of embedding and output layer where the recipe puts them into blocks; ``None``: they are
            stored as the container keeps them.
    """

    canonical: str
    name: str
    container: ContainerName
    bits: int
    group: int | None
    refine_sweeps: int
    tune: bool
    zero: bool = False
    bits_per_weight: float | None = None
    embedding_bits: int | None = None
    budget_bytes: int | None = None

    @property
    def is_mixed(self) -> bool:
        """Whether every linear gets a type of its own, within a budget."""
        return self.name == MIXED_NAME


def edit_distance(left: str, right: str) -> int:
    """Fewest single-character edits between two words (Levenshtein)."""
    previous = list(range(len(right) + 1))
    for row, character in enumerate(left, start=1):
        current = [row]
        for column, other in enumerate(right, start=1):
            substitution = previous[column - 1] + (character != other)
            current.append(min(previous[column] + 1, current[column - 1] + 1, substitution))
        previous = current
    return previous[-1]


def nearest_word(word: str, candidates: list[str]) -> str | None:
    """The candidate nearest to ``word``, or ``None`` when none is near enough to be what was meant."""
    best: str | None = None
    best_distance = max(2, len(word) // 3) + 1
    for candidate in candidates:
        distance = edit_distance(word, candidate)
        if distance < best_distance:
            best, best_distance = candidate, distance
    return best


def _refuse(message: str, suggestion: str | None = None) -> InvalidSpec:
    remedy = (
        f'Did you mean "{suggestion}"?'
        if suggestion is not None
        else "Known recipes: " + ", ".join(name.name for name in RECIPE_NAMES) + "."
    )
    return InvalidSpec(message, remedy)


def parse_recipe(text: str) -> Recipe:
    """Parse ``name[,option=value…]``: ``w4a16,group=32``, ``gguf:q4_0``, ``onnx:q4,refine=0``.

    Raises:
        InvalidSpec: unknown names, options or values, with the nearest known word as the remedy.
    """
    trimmed = text.strip().lower()
    if not 0 < len(trimmed) <= MAXIMUM_RECIPE_CHARACTERS:
        raise _refuse(
            f'A recipe has 1 to {MAXIMUM_RECIPE_CHARACTERS} characters, for example "gguf:q4_0" or "w4a16,group=32".'
        )
    head, *options = (part.strip() for part in trimmed.split(","))
    name = next((candidate for candidate in RECIPE_NAMES if candidate.name == head), None)
    if head == MIXED_NAME:
        name = RecipeName(MIXED_NAME, "gguf", 0, None, (), 0, False, ())
    if name is None:
        raise _refuse(
            f'There is no recipe named "{head}".', nearest_word(head, [candidate.name for candidate in RECIPE_NAMES])
        )
    group = name.default_group
    refine_sweeps = DEFAULT_REFINE_SWEEPS
    tune = True
    zero = False
    bits_per_weight: float | None = None
    embedding_bits: int | None = None
    budget_bytes: int | None = None
    seen: set[str] = set()
    for option in options:
        written_key, _, value = option.partition("=")
        key = "group" if written_key == "block" else written_key
        if key in seen:
            raise _refuse(f'The option "{key}" is given twice.')
        seen.add(key)
        match key:
            case "group":
                if name.default_group is None:
                    raise _refuse(f'The group of "{name.name}" is fixed by its container.')
                if not re.fullmatch(r"[0-9]{1,6}", value) or int(value) not in name.groups:
                    groups = ", ".join(map(str, name.groups))
                    raise _refuse(f'"{name.name}" takes group={groups}; not "{value}".')
                group = int(value)
            case "refine":
                if not re.fullmatch(r"[0-9]{1,6}", value) or int(value) > MAXIMUM_SWEEPS:
                    raise _refuse(f'refine takes a number of sweeps from 0 to {MAXIMUM_SWEEPS}; not "{value}".')
                refine_sweeps = int(value)
            case "tune":
                if value not in ("on", "off"):
                    raise _refuse(f'tune takes "on" or "off"; not "{value}".')
                tune = value == "on"
            case "zero":
                if not name.zero_points:
                    raise _refuse(f'The zero points of "{name.name}" are fixed by its container.')
                if value not in ("on", "off"):
                    raise _refuse(f'zero takes "on" or "off"; not "{value}".')
                zero = value == "on"
            case "embedding":
                if not name.embedding_bits:
                    raise _refuse(f'How "{name.name}" stores its embedding is fixed by its container.')
                known = {"float": None, **{f"q{bits}": bits for bits in name.embedding_bits}}
                if value not in known:
                    raise _refuse(f'embedding takes {", ".join(known)}; not "{value}".')
                embedding_bits = known[value]
            case "bpw":
                if name.name != MIXED_NAME:
                    raise _refuse(f'"{name.name}" has one type; mixed types are {MIXED_EXAMPLES}.')
                if not re.fullmatch(r"[0-9]{1,2}(\.[0-9]{1,3})?", value) or not (
                    LEAST_BITS_PER_WEIGHT <= float(value) <= MOST_BITS_PER_WEIGHT
                ):
                    raise _refuse(
                        f"bpw takes bits a weight from {LEAST_BITS_PER_WEIGHT} to {MOST_BITS_PER_WEIGHT}, "
                        f'for example bpw=3.5; not "{value}".'
                    )
                bits_per_weight = float(value)
            case "bytes":
                if name.name != MIXED_NAME:
                    raise _refuse(f'"{name.name}" has one type; mixed types are {MIXED_EXAMPLES}.')
                budget_bytes = parse_byte_size(value)
                if budget_bytes is None:
                    raise _refuse(
                        "bytes takes the size of all files, as in bytes=4.5GB (kB, MB, GB, TB: powers of 1000) or "
                        f'bytes=4.2GiB (KiB, MiB, GiB, TiB: powers of 1024), up to 100 TB; not "{value}".'
                    )
            case _:
                raise _refuse(
                    f'There is no recipe option "{written_key}".',
                    nearest_word(
                        written_key, ["group", "block", "refine", "tune", "zero", "embedding", "bpw", "bytes"]
                    ),
                )
    if bits_per_weight is not None and budget_bytes is not None:
        raise _refuse("bpw and bytes exclude each other: say one of them.")
    if name.name == MIXED_NAME and bits_per_weight is None and budget_bytes is None:
        raise _refuse(
            f'"{MIXED_NAME}" alone names no type: write one, as in "gguf:q4_k", or a budget, as in {MIXED_EXAMPLES}.'
        )
    written = [name.name]
    if bits_per_weight is not None:
        written.append(f"bpw={bits_per_weight:g}")
    if budget_bytes is not None:
        written.append(f"bytes={byte_size_text(budget_bytes).lower()}")
    if group != name.default_group:
        written.append(f"group={group}")
    if zero:
        written.append("zero=on")
    if embedding_bits is not None:
        written.append(f"embedding=q{embedding_bits}")
    if refine_sweeps != DEFAULT_REFINE_SWEEPS:
        written.append(f"refine={refine_sweeps}")
    if not tune:
        written.append("tune=off")
    return Recipe(
        canonical=",".join(written),
        name=name.name,
        container=name.container,
        # Whole bits, as the names of the types count them: Q3_K stores 3.44. A budget of bytes does not tell them.
        bits=name.bits if bits_per_weight is None else int(bits_per_weight),
        group=group,
        refine_sweeps=refine_sweeps,
        tune=tune,
        zero=zero,
        bits_per_weight=bits_per_weight,
        embedding_bits=embedding_bits,
        budget_bytes=budget_bytes,
    )


def recipe_hash(recipe: Recipe) -> str:
    """16 hex digits of the canonical string's sha256."""
    return hashlib.sha256(recipe.canonical.encode()).hexdigest()[:16]


def recipe_directory(canonical: str) -> str:
    """The folder of a recipe: every character but letters, digits, dot and minus becomes ``-``."""
    return re.sub(r"[^A-Za-z0-9.-]", "-", canonical)
