"""Tables of texts: ``tsv:FILE`` with the columns text, perhaps text_pair, label, perhaps split.

A header names the columns. In a ``.tsv`` file a tab ends a field and a line end a row, without quotes or
escapes (as in GLUE); ``.csv`` (RFC 4180) and ``.jsonl`` are read too, and any of them packed with gzip.

Read with the standard library: 🤗 Datasets fills rows that are too short, cuts those that are too long, and
takes 1.3 s to import.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from coprune.data.names import place_of
from coprune.data.packed import read_unpacked
from coprune.data.subsample import held_out
from coprune.data.text import Texts
from coprune.errors import UserError, near_matches, setting
from coprune.files import parse_json

Table = Mapping[str, Sequence[Any]]
"""Column → its values; all columns are as long as one another."""

KINDS = (".tsv", ".csv", ".jsonl")

_PARTS = {"train": "train", "dev": "dev", "validation": "dev", "valid": "dev", "val": "dev", "test": "test"}

_DISTINCT = 20
"""So many labels, no two of them alike, are no classes."""


def read_text(path: Path) -> str:
    """The content of a text file, gzipped or not.

    Raises:
        UserError: missing, damaged or not UTF-8.
    """
    try:
        return read_unpacked(path).decode("utf-8-sig")
    except UnicodeDecodeError as cause:
        raise UserError(f"{path}: not UTF-8 (byte {cause.start}); save it as UTF-8") from cause


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text file that are not empty, by their numbers."""
    # Not splitlines(): it would also split at the rarer line ends that occur inside of texts.
    lines = (line.removesuffix("\r") for line in read_text(path).split("\n"))
    return ((number, line) for number, line in enumerate(lines, 1) if line.strip(" "))


def kind_of(path: Path) -> str:
    """The suffix of a table, that of gzip apart."""
    return (path.with_suffix("") if path.suffix == ".gz" else path).suffix


def _rows(path: Path) -> Iterator[tuple[int, list[Any]]]:
    """The header and the rows, by the numbers of their lines."""
    kind = kind_of(path)
    if kind == ".tsv":
        yield from ((number, line.split("\t")) for number, line in numbered_lines(path))
    elif kind == ".csv":
        lines = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
        try:
            yield from ((lines.line_num, row) for row in lines if row)
        except csv.Error as cause:
            raise UserError(f"{path}: not CSV ({cause})") from cause
    elif kind == ".jsonl":
        header: list[str] = []
        for number, line in numbered_lines(path):
            try:
                row = parse_json(line)
            except ValueError as cause:
                raise UserError(f"{path}, line {number}: not JSON ({cause})") from cause
            if not isinstance(row, dict) or not row.keys() >= set(header):
                raise UserError(f"{path}, line {number}: not an object with the keys of the first line")
            if not header:
                header = list(row)
                yield number, header
            yield number, [str(row[name]) for name in header]
    else:
        raise UserError(f"{path}: not a {', '.join(KINDS)} file, packed with gzip or not")


def read_table(path: Path) -> dict[str, list[str]]:
    """All columns of a table.

    Raises:
        UserError: unreadable, another kind of file, rows that are not as wide as the header.
    """
    (_, first), *rows = [*_rows(path)] or [(0, [])]
    if not first:
        raise UserError(f"{path}: empty; the first line names the columns")
    header = [name.strip() for name in first]
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{path}: two columns are named '{twice}'; give each a name of its own")
    for number, row in rows:
        if len(row) != len(header):
            raise UserError(f"{path}, line {number}: {len(row)} fields where the header has {len(header)}")
    return {name: [row[i] for _, row in rows] for i, name in enumerate(header)}


def column(table: Table, name: str, *, where: str) -> Sequence[Any]:
    """One column.

    Raises:
        UserError: there is none of that name (with near matches).
    """
    if name not in table:
        raise UserError(f"{where}: no column '{name}'; {near_matches(name, table)}")
    return table[name]


def class_names(labels: Sequence[str], *, where: str = "labels") -> tuple[str, ...]:
    """The classes that occur, sorted; as numbers when all of them are integers.

    Args:
        labels: of all samples.
        where: how a message names the table.

    Raises:
        UserError: numbers that are not whole, which are measured and not counted; or no label twice.
    """
    found = set(labels)
    try:
        broken = min((n for n in map(float, found) if not n.is_integer()), default=None)
    except ValueError:  # one is no number
        broken = None
    if broken is not None:
        raise UserError(
            f"{where}: labels such as {broken:g} are numbers that are not whole, so they are measured and no "
            f"classes; say {setting('task', 'regression')}, or give each range of them a name"
        )
    if len(found) == len(labels) > _DISTINCT:
        raise UserError(f"{where}: all {len(labels):,} labels are different; a class has several samples")
    try:
        return tuple(sorted(found, key=int))
    except ValueError:
        return tuple(sorted(found))


def texts_of(
    table: Table,
    columns: Sequence[str],
    *,
    label: str = "label",
    names: Sequence[str] = (),
    unlabelled: Sequence[str] = (),
    where: str,
) -> Texts:
    """The labelled texts of a table.

    Args:
        table: as read.
        columns: of the text, and of its pair where it has one.
        label: the column of the labels.
        names: of the classes; labels are names, or places among them. Without: the labels that occur.
        unlabelled: what a sample without a label has there; such samples are left out.
        where: how a message names the table.

    Raises:
        UserError: a column is missing, or a label is empty or none of the classes.
    """
    whole = _plain(table, columns, where=where)
    labels = [str(value).strip() for value in column(table, label, where=where)]
    if "" in labels:
        raise UserError(f"{where}: row {labels.index('') + 1} has no label; drop such rows")
    kept = [i for i, value in enumerate(labels) if value not in unlabelled]
    labels = [labels[i] for i in kept]
    names = names or class_names(labels, where=where)
    numbers = [str(number) for number in range(len(names))]
    known = numbers if set(labels) <= set(numbers) else list(names)
    if unknown := sorted(set(labels) - set(known)):
        classes = ", ".join(names[:5])
        raise UserError(f"{where}: {label} '{unknown[0]}' is none of its {len(names)} classes ({classes})")
    place = {name: number for number, name in enumerate(known)}
    found = torch.tensor([place[value] for value in labels], dtype=torch.int64)
    return replace(whole.take(torch.tensor(kept)), labels=found, names=tuple(names))


def _plain(table: Table, columns: Sequence[str], *, where: str) -> Texts:
    """The texts alone, and their pairs."""
    text, *pair = (tuple(map(str, column(table, name, where=where))) for name in columns)
    return Texts(text, pair[0] if pair else None)


def read_texts(table: Table, columns: Sequence[str], *, task: str | None, where: str) -> Texts:
    """The texts of a table with what a task wants of the column label, see :func:`parts_of`."""
    if task == "classification":
        return texts_of(table, columns, where=where)
    plain = _plain(table, columns, where=where)
    if task not in (None, "regression") or (task is None and "label" not in table):
        return plain
    try:
        numbers = [float(value) for value in column(table, "label", where=where)]
    except ValueError as cause:
        if task is None:
            return texts_of(table, columns, where=where)
        raise UserError(f"{where}: {cause}; regression needs a number a row") from cause
    if task is None and all(number.is_integer() for number in numbers):
        return texts_of(table, columns, where=where)
    return replace(plain, values=tuple(numbers))


def load(argument: str | None, *, task: str | None = "classification") -> tuple[Texts, ...]:
    """Training, held-out and perhaps validation texts of one table.

    Args:
        argument: the file.
        task: see :func:`parts_of`.

    Raises:
        UserError: as of :func:`parts_of`; or all training rows are missing.
    """
    parts = parts_of(argument, task)
    if "train" not in parts:
        raise UserError(f"tsv:{argument}: no training rows; give some the split train")
    return held_out(parts)


def parts_of(argument: str | None, task: str | None = "classification") -> dict[str, Texts]:
    """The parts ``train``, ``dev``, ``test`` that a table has; without the column split, train alone.

    Args:
        argument: the file.
        task: labels are numbers for ``regression``, and classes for ``classification``; where it is None,
            they are numbers if they are not whole; else they are not read, and need not be there.

    Raises:
        UserError: no or an unreadable file, a column missing, an unknown split, an empty label.
    """
    where, table = f"tsv:{argument}", read_table(place_of(argument, "tsv", form="FILE"))
    columns = ("text", "text_pair") if "text_pair" in table else ("text",)
    whole = read_texts(table, columns, task=task, where=where)
    splits = [s.strip().lower() for s in table.get("split", ["train"] * len(whole))]
    if unknown := sorted(set(splits) - _PARTS.keys()):
        raise UserError(f"{where}: split '{unknown[0]}'; splits are train, dev and test")
    at: dict[str, list[int]] = {}
    for row, split in enumerate(splits):
        at.setdefault(_PARTS[split], []).append(row)
    return {part: whole.take(torch.tensor(rows)) for part, rows in at.items()}


def judging(argument: str | None, *, task: str | None = "classification") -> tuple[Texts, ...]:
    """The texts of a table that judge on other data: its dev part, else test, else all.

    Raises:
        UserError: as of :func:`parts_of`.
    """
    parts = parts_of(argument, task)
    if not parts:
        raise UserError(f"tsv:{argument}: no rows to judge on")
    return next((parts[part],) for part in ("dev", "test", "train") if part in parts)
