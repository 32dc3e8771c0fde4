"""JSON documents of a run folder, as frozen values that state their schema. Knows nothing of torch."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from coprune.errors import UserError, first_mistake, shown
from coprune.files import read_json, write_json

D = TypeVar("D", bound="Document")


class Value(BaseModel):
    """A part of a document: it does not change, and holds nothing unknown."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Document(Value):
    """A file that states its schema.

    Attributes:
        what: how messages name it.
        older: schemas that are read, too.
        limit: bytes that it may have.
        schema_version: its default is the schema that is written.
    """

    model_config = ConfigDict(populate_by_name=True)

    what: ClassVar[str]
    older: ClassVar[tuple[int, ...]] = ()
    limit: ClassVar[int] = 1 << 26

    schema_version: int = Field(1, alias="schema")

    def save(self, path: str | Path) -> None:
        """Write as JSON, whole or not at all."""
        write_json(Path(path), self.model_dump(by_alias=True, mode="json"))

    @classmethod
    def load(cls: type[D], path: str | Path) -> D:
        """Read the file.

        Raises:
            UserError: missing, truncated, foreign, or of a later schema.
        """
        content = read_json(Path(path), what=cls.what, limit=cls.limit)
        if not isinstance(content, dict) or "schema" not in content:
            raise UserError(f"{path}: not a {cls.what} of coprune")
        schema, now = content["schema"], cls.model_fields["schema_version"].default
        if schema not in (now, *cls.older) or isinstance(schema, bool):
            raise UserError(
                f"{path}: {cls.what} schema {shown(schema)}, this coprune reads {now}; use the version that "
                "wrote it"
            )
        try:
            return cls(**content)
        except ValidationError as cause:
            raise UserError(f"{path}: not a valid {cls.what}: {first_mistake(cause)}") from cause
