"""Originals that are released quantized: float8 in blocks (DeepSeek, Qwen), experts in mxfp4 (gpt-oss).

Their weights count as they are stored. What each tensor stands for is told from ``config.json`` and the headers alone,
and what does not add up (float8 without scales, scales without float8) is refused by name before anything is read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from yaqa_runner.protocol.failures import UnsupportedModel

FLOAT8 = "F8_E4M3"
SCALE = "_scale_inv"
# Of the activations of servers that round these too; no weight's.
ACTIVATION_SCALE = "activation_scale"
BLOCKS, SCALES = "_blocks", "_scales"
# Two codes a byte, sixteen bytes a block.
MXFP4_BLOCK_BYTES = 16
FLOATING = ("F64", "F32", "F16", "BF16")
SCALE_TYPES = ("F32", "F16", "BF16", "F8_E8M0")
REMEDY = "Push it as its publisher released it, or point at the original, 16- or 32-bit model."


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as its file's header describes it; ``kind`` is the format's own word, ``BF16``."""

    kind: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class StoredForm:
    """How an original keeps its weights.

    Attributes:
        name: What the card calls it.
        block: Rows and columns that share a scale; ``None`` where a whole matrix does, and for mxfp4.
    """

    name: Literal["float8", "mxfp4"]
    block: tuple[int, int] | None = None


def stored_form(config: Mapping[str, Any]) -> StoredForm | None:
    """How the weights of a model with this ``config.json`` are stored; ``None`` for plain ones.

    Raises:
        UnsupportedModel: they are quantized in another way.
    """
    nested = [value for name, value in config.items() if name.endswith("_config") and isinstance(value, Mapping)]
    if any(value.get("quantization_config") is not None for value in nested):
        raise UnsupportedModel(
            "The weights of a part of the model are quantized already (a quantization_config inside another one).",
            "Point at the original, 16- or 32-bit model.",
        )
    settings = config.get("quantization_config")
    if settings is None:
        return None
    method = settings.get("quant_method") if isinstance(settings, Mapping) else None
    if isinstance(settings, Mapping) and method == "mxfp4":
        return StoredForm("mxfp4")
    if isinstance(settings, Mapping) and method == "fp8" and settings.get("fmt", "e4m3") == "e4m3":
        block = settings.get("weight_block_size", (128, 128))
        if block is None:
            return StoredForm("float8")
        if isinstance(block, (list, tuple)) and len(block) == 2 and all(_is_size(size) for size in block):
            return StoredForm("float8", (block[0], block[1]))
    by = f", by {str(method)[:40]!r}" if method is not None else ""
    raise UnsupportedModel(
        f"The weights are quantized already{by} (quantization_config).",
        "Point at the original, 16- or 32-bit model.",
    )


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 65536


def decoded_shapes(form: StoredForm | None, stored: Mapping[str, StoredTensor]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the weights that ``stored`` stands for.

    Raises:
        UnsupportedModel: codes without scales, scales without codes or of another shape, or a type that the form lacks.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    used: set[str] = set()
    for name, tensor in stored.items():
        if form is not None and form.name == "float8" and tensor.kind == FLOAT8:
            used |= {name, _checked_scale(form, name, stored)}
            shapes[name] = tensor.shape
        elif form is not None and form.name == "mxfp4" and name.endswith(BLOCKS) and tensor.kind == "U8":
            used |= {name, _checked_exponents(name, stored)}
            experts, rows, groups, _ = tensor.shape
            shapes[name.removesuffix(BLOCKS)] = (experts, groups * 2 * MXFP4_BLOCK_BYTES, rows)
    if form is not None and not used:
        raise UnsupportedModel(f"config.json says that weights are stored as {form.name}, and none is.", REMEDY)
    for name in stored.keys() - used:
        tensor = stored[name]
        if tensor.kind.startswith("F8_"):
            raise UnsupportedModel(
                f"{name[:200]} holds float8 codes, and config.json does not tell how they are scaled.", REMEDY
            )
        if form is None:
            shapes[name] = tensor.shape
        elif name.endswith((SCALE, BLOCKS, SCALES)):
            raise UnsupportedModel(f"{name[:200]} belongs to no {form.name} weight of the checkpoint.", REMEDY)
        elif not (form.name == "float8" and name.endswith(ACTIVATION_SCALE)):
            if tensor.kind not in FLOATING and len(tensor.shape) >= 2:
                raise UnsupportedModel(f"{name[:200]} is stored as {tensor.kind}, which is not {form.name}.", REMEDY)
            if name in shapes:
                raise UnsupportedModel(f"{name[:200]} is there twice, in {form.name} and plain.", REMEDY)
            shapes[name] = tensor.shape
    return shapes


def _checked_scale(form: StoredForm, name: str, stored: Mapping[str, StoredTensor]) -> str:
    """The name of the scales of the float8 tensor ``name``."""
    tensor, scale = stored[name], stored.get(f"{name}{SCALE}")
    if scale is None or scale.kind not in SCALE_TYPES:
        raise UnsupportedModel(f"{name[:200]} holds float8 codes, and has no scales ({SCALE}) beside it.", REMEDY)
    if len(tensor.shape) < 2:
        raise UnsupportedModel(f"{name[:200]} holds float8 codes, and is no matrix.", REMEDY)
    if form.block is None:
        fits = math.prod(scale.shape) == 1
    else:
        grid = tuple(-(-size // block) for size, block in zip(tensor.shape[-2:], form.block, strict=True))
        fits = scale.shape == (*tensor.shape[:-2], *grid)
    if not fits:
        block = "one block" if form.block is None else f"blocks of {form.block[0]} × {form.block[1]}"
        raise UnsupportedModel(
            f"{name[:200]} of {list(tensor.shape)} has scales of {list(scale.shape)}, which {block} do not give.",
            REMEDY,
        )
    return f"{name}{SCALE}"


def _checked_exponents(name: str, stored: Mapping[str, StoredTensor]) -> str:
    """The name of the scales of the mxfp4 tensor ``name``."""
    tensor, scale = stored[name], stored.get(f"{name.removesuffix(BLOCKS)}{SCALES}")
    if scale is None or scale.kind != "U8":
        raise UnsupportedModel(f"{name[:200]} holds mxfp4 codes, and has no scales ({SCALES}) beside it.", REMEDY)
    if len(tensor.shape) != 4 or tensor.shape[3] != MXFP4_BLOCK_BYTES or scale.shape != tensor.shape[:3]:
        raise UnsupportedModel(
            f"{name[:200]} of {list(tensor.shape)} with scales of {list(scale.shape)} is not transformers' mxfp4.",
            REMEDY,
        )
    return f"{name.removesuffix(BLOCKS)}{SCALES}"
