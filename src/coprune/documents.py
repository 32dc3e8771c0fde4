"""JSON documents of a run folder, as frozen values. Knows nothing of torch."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict

from coprune.files import read_document, write_json

D = TypeVar("D", bound="Document")


class Value(BaseModel):
    """A part of a document: it does not change, and holds nothing unknown."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Document(Value):
    """A file that states its schema.

    Attributes:
        what: how messages name it.
        schema_now: the schema that is written.
        older: schemas that are read, too.
        limit: bytes that it may have.
    """

    what: ClassVar[str]
    schema_now: ClassVar[int] = 1
    older: ClassVar[tuple[int, ...]] = ()
    limit: ClassVar[int] = 1 << 26

    def save(self, path: str | Path) -> None:
        """Write as JSON, whole or not at all."""
        write_json(Path(path), self.model_dump(by_alias=True, mode="json"))

    @classmethod
    def load(cls: type[D], path: str | Path) -> D:
        """Read the file.

        Raises:
            UserError: missing, truncated, foreign, or of a later schema.
        """
        return read_document(
            Path(path), cls, what=cls.what, schema=cls.schema_now, older=cls.older, limit=cls.limit
        )
