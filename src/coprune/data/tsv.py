"""Tables of texts: ``tsv:FILE`` with the columns text, perhaps text_pair, label, perhaps split.

A header names the columns. In a ``.tsv`` file a tab ends a field and a line end a row, without quotes or
escapes (as in GLUE); ``.csv`` (RFC 4180) and ``.jsonl`` are read too, and any of them packed with gzip.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from coprune.data.subsample import drawn_indices, without
from coprune.data.text import Texts
from coprune.errors import UserError, near_matches
from coprune.files import check_regular, parse_json

Table = dict[str, list[str]]
"""Column → its values; all columns are as long as one another."""

KINDS = (".tsv", ".csv", ".jsonl")

_PARTS = {"train": "train", "dev": "dev", "validation": "dev", "valid": "dev", "val": "dev", "test": "test"}

_HELDOUT_SHARE, _HELDOUT_SEED = 0.2, 0
"""What is held out of a table that does not say: the same samples whatever the seed of a run."""


def read_text(path: Path) -> str:
    """The content of a text file, gzipped or not.

    Raises:
        UserError: missing, damaged or not UTF-8.
    """
    check_regular(path, what="file")
    try:
        raw = path.read_bytes()
        return (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8-sig")
    except (OSError, EOFError, zlib.error) as cause:
        raise UserError(f"{path}: cannot be read ({cause}); fetch the file again") from cause
    except UnicodeDecodeError as cause:
        raise UserError(f"{path}: not UTF-8 (byte {cause.start}); save it as UTF-8") from cause


def kind_of(path: Path) -> str:
    """The suffix of a table, that of gzip apart."""
    return (path.with_suffix("") if path.suffix == ".gz" else path).suffix


def read_table(path: Path) -> Table:
    """All columns of a table.

    Raises:
        UserError: unreadable, another kind of file, rows that are not as wide as the header.
    """
    kind, content = kind_of(path), read_text(path)
    if kind not in KINDS:
        raise UserError(f"{path}: not a {', '.join(KINDS)} file, packed with gzip or not")
    if kind == ".jsonl":
        return _objects(path, content)
    if kind == ".csv":
        try:
            rows = list(csv.reader(io.StringIO(content, newline=""), strict=True))
        except csv.Error as cause:
            raise UserError(f"{path}: not CSV ({cause})") from cause
    else:
        # Not splitlines(): it would also split at the rarer line ends that occur inside of texts.
        rows = [line.removesuffix("\r").split("\t") for line in content.split("\n")]
    numbered = [(number, row) for number, row in enumerate(rows, 1) if row and row != [""]]
    if not numbered:
        raise UserError(f"{path}: empty; the first line names the columns")
    header = [name.strip() for name in numbered[0][1]]
    twice = next((column for column in header if header.count(column) > 1), None)
    if twice is not None:
        raise UserError(f"{path}: two columns are named '{twice}'; give each a name of its own")
    for number, row in numbered[1:]:
        if len(row) != len(header):
            raise UserError(f"{path}, line {number}: {len(row)} fields where the header has {len(header)}")
    columns = zip(*(row for _, row in numbered[1:]), strict=True)
    return dict(zip(header, map(list, columns), strict=True)) if numbered[1:] else {n: [] for n in header}


def _objects(path: Path, content: str) -> Table:
    """One JSON object a line; the columns are those of the first."""
    table: Table = {}
    for number, line in enumerate(content.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except ValueError as cause:
            raise UserError(f"{path}, line {number}: not JSON ({cause})") from cause
        if not isinstance(row, dict) or (table and not table.keys() <= row.keys()):
            raise UserError(f"{path}, line {number}: not an object with the keys of the first line")
        table = table or {name: [] for name in row}
        for name, values in table.items():
            values.append(str(row[name]))
    if not table:
        raise UserError(f"{path}: empty; one JSON object a line is due")
    return table


def column(table: Mapping[str, list[str]], name: str, *, where: str) -> list[str]:
    """One column.

    Raises:
        UserError: there is none of that name (with near matches).
    """
    if name not in table:
        raise UserError(f"{where}: no column '{name}'; {near_matches(name, table)}")
    return table[name]


_DISTINCT = 20
"""So many labels, no two of them alike, are no classes."""


def _numbers(labels: Iterable[str]) -> list[float]:
    """The labels as numbers; none where one is no number."""
    try:
        return [float(label) for label in labels]
    except ValueError:
        return []


def class_names(labels: Sequence[str], *, where: str = "labels") -> tuple[str, ...]:
    """The classes that occur, sorted; as numbers when all of them are integers.

    Args:
        labels: of all samples.
        where: how a message names the table.

    Raises:
        UserError: numbers that are not whole, which are measured and not counted; or no label twice.
    """
    found = set(labels)
    numbers = _numbers(found)
    broken = min((number for number in numbers if not number.is_integer()), default=None)
    if broken is not None:
        raise UserError(
            f"{where}: labels such as {broken:g} are numbers that are not whole, so they are measured and no "
            "classes; a classifier is what is pruned here: give each range of them a name"
        )
    if len(found) == len(labels) > _DISTINCT:
        raise UserError(f"{where}: all {len(labels):,} labels are different; a class has several samples")
    try:
        return tuple(sorted(found, key=int))
    except ValueError:
        return tuple(sorted(found))


def numbered_labels(labels: Sequence[str], names: Sequence[str]) -> Tensor:
    """Places of the labels in ``names``, ``[N]`` int64."""
    place = {name: number for number, name in enumerate(names)}
    return torch.tensor([place[label] for label in labels], dtype=torch.int64)


def held_out(parts: Mapping[str, Texts]) -> tuple[Texts, ...]:
    """Training, held-out and perhaps validation texts out of the parts ``train``, ``dev``, ``test``.

    A dev part is for validation where there is a test part, else it is held out. Without either a fifth is
    held out, the classes in their proportion, the same one in every run.
    """
    train = parts["train"]
    if "test" in parts:
        return train, parts["test"], *([parts["dev"]] if "dev" in parts else [])
    if "dev" in parts:
        return train, parts["dev"]
    count = round(_HELDOUT_SHARE * len(train))
    if not count:
        raise UserError(f"{len(train)} texts are too few to hold some of them out; give more, or a split")
    drawn = drawn_indices(train.label, count, seed=_HELDOUT_SEED)
    return train.take(without(drawn, len(train))), train.take(drawn)


def load(argument: str | None) -> tuple[Texts, ...]:
    """Training, held-out and perhaps validation texts of one table, see :func:`held_out`.

    Args:
        argument: the file.

    Raises:
        UserError: as of :func:`parts_of`; or all training rows are missing.
    """
    parts = parts_of(argument)
    if "train" not in parts:
        raise UserError(f"tsv:{argument}: no training rows; give some the split train")
    return held_out(parts)


def parts_of(argument: str | None) -> dict[str, Texts]:
    """The parts ``train``, ``dev``, ``test`` that a table has; without the column split, train alone.

    Raises:
        UserError: no or an unreadable file, a column missing, an unknown split, an empty label.
    """
    if not argument:
        raise UserError("tsv: names no file; write tsv:FILE")
    where, table = f"tsv:{argument}", read_table(Path(argument).expanduser())
    text, labels = column(table, "text", where=where), column(table, "label", where=where)
    labels = [label.strip() for label in labels]
    if "" in labels:
        raise UserError(f"{where}: row {labels.index('') + 1} has no label; drop such rows")
    splits = [s.strip().lower() for s in table.get("split", ["train"] * len(text))]
    unknown = sorted(set(splits) - _PARTS.keys())
    if unknown:
        raise UserError(f"{where}: split '{unknown[0]}'; splits are train, dev and test")
    names = class_names(labels, where=where)
    whole = Texts(
        tuple(text),
        tuple(table["text_pair"]) if "text_pair" in table else None,
        numbered_labels(labels, names),
        names,
    )
    named = [_PARTS[split] for split in splits]
    at = {part: [i for i, of in enumerate(named) if of == part] for part in set(named)}
    return {part: whole.take(torch.tensor(index)) for part, index in at.items()}
