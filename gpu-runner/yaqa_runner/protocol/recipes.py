"""Recipes: how a variant is named. Parses and spells as ``src/protocol/recipe.ts`` does, by the same table."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from yaqa_runner.config import read_list
from yaqa_runner.protocol.byte_size import byte_size_text, parse_byte_size
from yaqa_runner.protocol.failures import InvalidSpec
from yaqa_runner.wire_model import StrictWireModel

ContainerName = Literal["gguf", "onnx", "compressed-tensors", "gptq", "mlx"]

_TABLE: dict[str, Any] = read_list("recipes.json")
_MIXED: dict[str, Any] = _TABLE["mixed"]
MIXED_NAME: str = _MIXED["name"]
_MIXED_EXAMPLES = " or ".join(f'"{example}"' for example in _MIXED["examples"])
_LEAST_BITS_PER_WEIGHT: float = _MIXED["leastBitsPerWeight"]
_MOST_BITS_PER_WEIGHT: float = _MIXED["mostBitsPerWeight"]
# Names of earlier versions, each with what llama-quantize makes of it, and short forms.
_OTHER_NAMES: dict[str, str] = _TABLE["otherNames"]
_OPTION_KEYS: list[str] = _TABLE["options"]
_MAXIMUM_CHARACTERS: int = _TABLE["maximumCharacters"]
_DEFAULT_SWEEPS: int = _TABLE["refineSweeps"]["default"]
_MOST_SWEEPS: int = _TABLE["refineSweeps"]["most"]


class RecipeName(StrictWireModel):
    """A short name and what it stands for.

    Attributes:
        bits: Bits of one stored code, scales not counted.
        default_group: Weights that share one scale; ``None`` where the container fixes it.
        bits_per_weight: Stored bits a quantized weight at the default group, scales counted.
        zero_points: Whether ``zero=on`` gives every group a zero point.
        embedding_bits: Bits that ``embedding=q4`` and the like can give embedding and output layer; empty where the
            container decides.
        types: Types that the linears of a GGUF recipe can have, the one of most of them first; those that stand in
            where rows do not fit aside. Empty elsewhere.
    """

    name: str
    container: ContainerName
    bits: int
    default_group: int | None
    groups: tuple[int, ...]
    bits_per_weight: float
    zero_points: bool
    embedding_bits: tuple[int, ...]
    types: tuple[str, ...]


RECIPE_NAMES: tuple[RecipeName, ...] = tuple(map(RecipeName.model_validate, _TABLE["names"]))
_MIXED_ROW = RecipeName(
    name=MIXED_NAME,
    container="gguf",
    bits=0,
    default_group=None,
    groups=(),
    bits_per_weight=0,
    zero_points=False,
    embedding_bits=(),
    types=(),
)


class Recipe(StrictWireModel):
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

    canonical: Annotated[str, StringConstraints(max_length=_MAXIMUM_CHARACTERS, pattern=r"^[a-z0-9][a-z0-9:_.,=-]*$")]
    name: Annotated[str, StringConstraints(min_length=1, max_length=32)]
    container: ContainerName
    bits: Annotated[int, Field(ge=0, le=16)]
    group: Annotated[int, Field(ge=1)] | None = None
    refine_sweeps: Annotated[int, Field(ge=0, le=_MOST_SWEEPS)]
    tune: bool
    zero: bool
    bits_per_weight: Annotated[float, Field(ge=1, le=32)] | None = None
    embedding_bits: Annotated[int, Field(ge=1, le=16)] | None = None
    budget_bytes: Annotated[int, Field(ge=1)] | None = None

    @property
    def is_mixed(self) -> bool:
        """Whether every linear gets a type of its own, within a budget."""
        return self.name == MIXED_NAME


@dataclass
class _Draft:
    """A recipe while its options are read."""

    name: RecipeName
    group: int | None
    refine_sweeps: int = _DEFAULT_SWEEPS
    tune: bool = True
    zero: bool = False
    bits_per_weight: float | None = None
    embedding_bits: int | None = None
    budget_bytes: int | None = None


def _refuse(message: str, suggestion: str | None = None) -> InvalidSpec:
    remedy = (
        f'Did you mean "{suggestion}"?'
        if suggestion is not None
        else "Known recipes: " + ", ".join(name.name for name in RECIPE_NAMES) + "."
    )
    return InvalidSpec(message, remedy)


def _nearest_word(word: str, candidates: list[str]) -> str | None:
    """The candidate that was probably meant, if any."""
    return next(iter(difflib.get_close_matches(word, candidates, n=1, cutoff=0.6)), None)


def _switch(key: str, value: str) -> bool:
    if value not in ("on", "off"):
        raise _refuse(f'{key} takes "on" or "off"; not "{value}".')
    return value == "on"


def _set_group(draft: _Draft, value: str) -> None:
    name = draft.name
    if name.default_group is None:
        raise _refuse(f'The group of "{name.name}" is fixed by its container.')
    if not re.fullmatch(r"[0-9]{1,6}", value) or int(value) not in name.groups:
        raise _refuse(f'"{name.name}" takes group={", ".join(map(str, name.groups))}; not "{value}".')
    draft.group = int(value)


def _set_refine(draft: _Draft, value: str) -> None:
    if not re.fullmatch(r"[0-9]{1,6}", value) or int(value) > _MOST_SWEEPS:
        raise _refuse(f'refine takes a number of sweeps from 0 to {_MOST_SWEEPS}; not "{value}".')
    draft.refine_sweeps = int(value)


def _set_tune(draft: _Draft, value: str) -> None:
    draft.tune = _switch("tune", value)


def _set_zero(draft: _Draft, value: str) -> None:
    if not draft.name.zero_points:
        raise _refuse(f'The zero points of "{draft.name.name}" are fixed by its container.')
    draft.zero = _switch("zero", value)


def _set_embedding(draft: _Draft, value: str) -> None:
    if not draft.name.embedding_bits:
        raise _refuse(f'How "{draft.name.name}" stores its embedding is fixed by its container.')
    known = {"float": None, **{f"q{bits}": bits for bits in draft.name.embedding_bits}}
    if value not in known:
        raise _refuse(f'embedding takes {", ".join(known)}; not "{value}".')
    draft.embedding_bits = known[value]


def _refuse_budget_of_one_name(draft: _Draft) -> None:
    if draft.name.name != MIXED_NAME:
        raise _refuse(f'"{draft.name.name}" takes no budget; budgets are {_MIXED_EXAMPLES}.')


def _set_bits_per_weight(draft: _Draft, value: str) -> None:
    _refuse_budget_of_one_name(draft)
    if not re.fullmatch(r"[0-9]{1,2}(\.[0-9]{1,3})?", value) or not (
        _LEAST_BITS_PER_WEIGHT <= float(value) <= _MOST_BITS_PER_WEIGHT
    ):
        raise _refuse(
            f"bpw takes bits a weight from {_LEAST_BITS_PER_WEIGHT} to {_MOST_BITS_PER_WEIGHT}, "
            f'for example bpw=3.5; not "{value}".'
        )
    draft.bits_per_weight = float(value)


def _set_budget_bytes(draft: _Draft, value: str) -> None:
    _refuse_budget_of_one_name(draft)
    draft.budget_bytes = parse_byte_size(value)
    if draft.budget_bytes is None:
        raise _refuse(
            "bytes takes the size of all files, as in bytes=4.5GB (kB, MB, GB, TB: powers of 1000) or "
            f'bytes=4.2GiB (KiB, MiB, GiB, TiB: powers of 1024), up to 100 TB; not "{value}".'
        )


_OPTIONS: dict[str, Callable[[_Draft, str], None]] = {
    "group": _set_group,
    "refine": _set_refine,
    "tune": _set_tune,
    "zero": _set_zero,
    "embedding": _set_embedding,
    "bpw": _set_bits_per_weight,
    "bytes": _set_budget_bytes,
}


def parse_recipe(text: str) -> Recipe:
    """Parse ``name[,option=value…]``: ``w4a16,group=32``, ``gguf:q4_0``, ``onnx:q4,refine=0``.

    Raises:
        InvalidSpec: unknown names, options or values, with the nearest known word as the remedy.
    """
    trimmed = text.strip().lower()
    if not 0 < len(trimmed) <= _MAXIMUM_CHARACTERS:
        raise _refuse(
            f'A recipe has 1 to {_MAXIMUM_CHARACTERS} characters, for example "gguf:q4_0" or "w4a16,group=32".'
        )
    head, *options = (part.strip() for part in trimmed.split(","))
    head = _OTHER_NAMES.get(head, head)
    name = _MIXED_ROW if head == MIXED_NAME else next((row for row in RECIPE_NAMES if row.name == head), None)
    if name is None:
        raise _refuse(f'There is no recipe named "{head}".', _nearest_word(head, [row.name for row in RECIPE_NAMES]))
    draft = _Draft(name, name.default_group)
    seen: set[str] = set()
    for option in options:
        written_key, _, value = option.partition("=")
        key = "group" if written_key == "block" else written_key
        if key in seen:
            raise _refuse(f'The option "{key}" is given twice.')
        seen.add(key)
        if key not in _OPTIONS:
            raise _refuse(f'There is no recipe option "{written_key}".', _nearest_word(written_key, _OPTION_KEYS))
        _OPTIONS[key](draft, value)
    if draft.bits_per_weight is not None and draft.budget_bytes is not None:
        raise _refuse("bpw and bytes exclude each other: say one of them.")
    if name.name == MIXED_NAME and draft.bits_per_weight is None and draft.budget_bytes is None:
        raise _refuse(
            f'"{MIXED_NAME}" alone names no type: write one, as in "gguf:q4_k_m", or a budget, as in {_MIXED_EXAMPLES}.'
        )
    return Recipe(
        canonical=_canonical_text(draft),
        name=name.name,
        container=name.container,
        # Whole bits, as the names of the types count them: Q3_K stores 3.44. A budget of bytes does not tell them.
        bits=name.bits if draft.bits_per_weight is None else int(draft.bits_per_weight),
        group=draft.group,
        refine_sweeps=draft.refine_sweeps,
        tune=draft.tune,
        zero=draft.zero,
        bits_per_weight=draft.bits_per_weight,
        embedding_bits=draft.embedding_bits,
        budget_bytes=draft.budget_bytes,
    )


def _canonical_text(draft: _Draft) -> str:
    """The one spelling of a recipe: what differs from the defaults, in a fixed order."""
    written = [draft.name.name]
    if draft.bits_per_weight is not None:
        written.append(f"bpw={draft.bits_per_weight:g}")
    if draft.budget_bytes is not None:
        written.append(f"bytes={byte_size_text(draft.budget_bytes).lower()}")
    if draft.group != draft.name.default_group:
        written.append(f"group={draft.group}")
    if draft.zero:
        written.append("zero=on")
    if draft.embedding_bits is not None:
        written.append(f"embedding=q{draft.embedding_bits}")
    if draft.refine_sweeps != _DEFAULT_SWEEPS:
        written.append(f"refine={draft.refine_sweeps}")
    if not draft.tune:
        written.append("tune=off")
    return ",".join(written)


def recipe_hash(recipe: Recipe) -> str:
    """16 hex digits of the canonical string's sha256."""
    return hashlib.sha256(recipe.canonical.encode()).hexdigest()[:16]


def recipe_directory(canonical: str) -> str:
    """The folder of a recipe: every character but letters, digits, dot and minus becomes ``-``."""
    return re.sub(r"[^A-Za-z0-9.-]", "-", canonical)


def recipe_groups(recipe: Recipe) -> tuple[int, ...]:
    """The groups that ``recipe``'s name may be asked for; none where the container fixes it."""
    return next((name.groups for name in RECIPE_NAMES if name.name == recipe.name), ())
