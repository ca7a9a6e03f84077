"""The base of every message: camelCase on the wire, unknown fields refused or ignored as the schema says."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


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
