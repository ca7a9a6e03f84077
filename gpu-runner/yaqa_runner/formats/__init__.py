"""Containers: the file formats that people's runtimes load."""

from __future__ import annotations

from typing import Protocol

from yaqa_runner.formats.container import Container, QuantizedLinear, ReferenceModel
from yaqa_runner.formats.source import ExportError
from yaqa_runner.protocol.byte_size import byte_size_text


class ContainerRecipe(Protocol):
    """What a container needs to know of a recipe."""

    @property
    def container(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def bits(self) -> int: ...

    @property
    def group(self) -> int | None: ...

    @property
    def zero(self) -> bool: ...

    @property
    def bits_per_weight(self) -> float | None: ...

    @property
    def budget_bytes(self) -> int | None: ...

    @property
    def embedding_bits(self) -> int | None: ...


def container_for(recipe: ContainerRecipe, model_name: str | None = None) -> Container:
    """The container that ``recipe`` asks for.

    ``model_name`` names GGUF files; without it the source folder's name does.

    Raises:
        ExportError: No such container, or one that lacks the recipe's bits or group.
    """
    # Each container pulls in its own ecosystem's library; a run pays for those it uses.
    short = recipe.name.rsplit(":", 1)[-1]
    group = recipe.group
    if recipe.container == "gguf":
        from yaqa_runner.formats.gguf.container import SMALLEST_TYPE, GgufContainer

        if recipe.bits_per_weight is not None:
            return GgufContainer(SMALLEST_TYPE, model_name, budget=f"{recipe.bits_per_weight:g}bpw")
        if recipe.budget_bytes is not None:
            return GgufContainer(SMALLEST_TYPE, model_name, budget=byte_size_text(recipe.budget_bytes))
        return GgufContainer.of_mix(short, model_name)
    if recipe.container == "compressed-tensors":
        from yaqa_runner.formats.compressed_tensors.container import CompressedTensorsContainer
        from yaqa_runner.formats.compressed_tensors.float_forms import FLOAT_FORMS
        from yaqa_runner.formats.compressed_tensors.integer_form import IntegerForm

        if recipe.name in FLOAT_FORMS:
            return CompressedTensorsContainer(FLOAT_FORMS[recipe.name])
        if group is not None:
            return CompressedTensorsContainer(IntegerForm(recipe.bits, group, recipe.zero))
    if recipe.container == "mlx":
        from yaqa_runner.formats.mlx.container import MlxContainer

        return MlxContainer.of_mode(short) if group is None else MlxContainer(recipe.bits, group)
    if group is None:
        raise ExportError(f"The recipe {recipe.name!r} does not say how many weights share a scale.")
    if recipe.container == "onnx":
        from yaqa_runner.formats.onnx.container import OnnxContainer

        return OnnxContainer(short, recipe.bits, group, recipe.embedding_bits)
    if recipe.container == "gptq":
        from yaqa_runner.formats.gptq.container import GptqContainer

        return GptqContainer(recipe.bits, group)
    raise ExportError(f"There is no container named {recipe.container!r}.")


__all__ = [
    "Container",
    "ContainerRecipe",
    "ExportError",
    "QuantizedLinear",
    "ReferenceModel",
    "container_for",
]
