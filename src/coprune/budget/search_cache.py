"""What a search has found, kept in the folder of an unfinished run.

Milliseconds are never measured the same twice, and probes take long: a run that was broken off behind its
search goes on with what it found.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from coprune.budget.search import Found, Probe
from coprune.distributed.collectives import on_first
from coprune.files import LARGE, read_document, write_json
from coprune.plan import GroupDecision
from coprune.result import Note

SCHEMA = 1

Searched = tuple[tuple[GroupDecision, ...], Found | None, list[Note]]
"""Decisions, the probes of a search that judges accuracy, and notes."""


class _Kept(BaseModel):
    model_config = ConfigDict(extra="forbid")

    schema_version: int = Field(SCHEMA, alias="schema")
    decisions: tuple[GroupDecision, ...]
    probes: tuple[Probe, ...] | None
    notes: list[Note]


def searched_once(file: Path | None, search: Callable[[], Searched]) -> Searched:
    """Search, unless a file says what came of it.

    Args:
        file: where it is kept; None: nowhere.
        search: what takes long.

    Raises:
        UserError: the file is truncated or foreign.
    """
    if file is None:
        return search()
    if on_first(file.is_file):
        kept = read_document(file, _Kept, what="search", schema=SCHEMA, limit=LARGE)
        found = None if kept.probes is None else Found(kept.decisions, kept.probes)
        return kept.decisions, found, kept.notes
    decisions, found, notes = search()
    kept = _Kept(
        schema=SCHEMA, decisions=decisions, probes=None if found is None else found.probes, notes=notes
    )
    on_first(lambda: write_json(file, kept.model_dump(mode="json", by_alias=True)))
    return decisions, found, notes
