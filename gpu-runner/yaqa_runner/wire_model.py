"""The base of everything that is written or read as JSON: camelCase there, unknown fields refused or ignored."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, StringConstraints
from pydantic.alias_generators import to_camel

Sha256Hex = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class WireModel(BaseModel):
    """A message that the runner writes."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, allow_inf_nan=False)

    def to_wire(self) -> dict[str, Any]:
        """Plain data for JSON, names in camelCase, absent optional fields left out."""
        return self.model_dump(mode="json", by_alias=True)


class StrictWireModel(WireModel):
    """A message that the runner reads: unknown fields are refused."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, frozen=True, allow_inf_nan=False, extra="forbid"
    )
