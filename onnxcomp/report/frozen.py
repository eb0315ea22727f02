"""What all records of a run have in common."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """A frozen record; unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, defer_build=True)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, as ``--json`` prints it."""
        return self.model_dump(mode="json", by_alias=True)

    def to_json(self) -> str:
        """Return the same as text."""
        return self.model_dump_json(by_alias=True, indent=2)
