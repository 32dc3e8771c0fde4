"""Data sets of 🤗 Datasets: ``hf:NAME`` or ``hf:NAME:CONFIG``, of the hub or a folder.

A folder is one that it saved (``save_to_disk``), or has files in a layout that it knows (Parquet, JSON lines,
tables, images). Task and columns say what is read: tagged words, questions with answers, images, or texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from coprune.data.imagefolder import FolderSource
from coprune.data.source import digest
from coprune.data.subsample import held_out
from coprune.data.text import Texts
from coprune.data.tsv import read_texts, texts_of
from coprune.errors import UserError, first_line
from coprune.lazy import required

if TYPE_CHECKING:
    from PIL.Image import Image

_COLUMNS = (
    ("text", "text_pair"),
    ("premise", "hypothesis"),
    ("sentence1", "sentence2"),
    ("question", "sentence"),
    ("question1", "question2"),
    ("document", "summary"),
    ("article", "highlights"),
    ("dialogue", "summary"),
    ("source", "target"),
    ("text",),
    ("sentence",),
)
"""Names of the text and its pair, the first that a data set has."""

_IMAGES = ("image", "img", "pixel_values")
"""Names of the column, the first that a data set has."""

_LABELS = ("label", "labels")

_UNLABELLED = ("-1", "None")
"""What a part without labels has for one."""


_WORDS = (("tokens", "words"), ("ner_tags", "pos_tags", "chunk_tags", "tags", "labels"))
_ANSWERED = ("question", "context", "answers")


@dataclass(frozen=True)
class HubImages(FolderSource):
    """Images in a column; ``files`` are the numbers of its rows.

    Attributes:
        rows: the data set.
        column: of the images.
    """

    rows: Any = None
    column: str = _IMAGES[0]

    def fingerprint(self) -> str:
        """A digest of the library's own one, and of the rows and labels that were taken."""
        labels = None if self.labels is None else self.labels.tolist()
        return digest(str((self.size, self.names, self.rows._fingerprint, self.files, labels)))

    def opened(self, number: int) -> Image:
        """See :class:`~coprune.data.imagefolder.FolderSource`."""
        image: Image = self.rows[int(self.files[number])][self.column]
        return image.convert("RGB")


def _images(part: Any, column: str, label: str | None) -> HubImages:
    """All images of a part of a data set, with class numbers where there are such."""
    labels = None if label is None else torch.tensor(part[label], dtype=torch.int64)
    names = tuple(getattr(part.features.get(label), "names", None) or ())
    return HubImages(Path(), tuple(map(str, range(len(part)))), labels, names, rows=part, column=column)


def _loaded(name: str, config: str | None) -> Mapping[str, Any]:
    library = required("datasets", f"hf:{name} needs 🤗 Datasets", extra="text")
    folder = Path(name).expanduser()
    saved = any((folder / file).is_file() for file in ("dataset_dict.json", "state.json"))
    try:
        found = library.load_from_disk(str(folder)) if saved else library.load_dataset(name, config)
    except (OSError, ValueError, RuntimeError, LookupError, ImportError) as cause:
        raise UserError(
            f"hf:{name} cannot be loaded ({first_line(cause)}); check the name and the network, "
            "or save it as a table and use tsv:FILE"
        ) from cause
    return found if isinstance(found, Mapping) else {"train": found}


def _read(part: Any, task: str | None, *, where: str) -> Texts | FolderSource:
    """What of a part a task reads."""
    columns = list(part.column_names)
    known = (*_WORDS, _LABELS, _IMAGES)
    words, tags, label, image = (next((n for n in names if n in columns), None) for names in known)
    if task in (None, "token-classification") and words and tags:
        return _tagged(part, words, tags)
    if task in (None, "question-answering") and set(_ANSWERED) <= set(columns):
        return _answered(part)
    if task in ("token-classification", "question-answering"):
        needs = "tokens and ner_tags" if task == "token-classification" else ", ".join(_ANSWERED)
        raise UserError(f"{where}: no columns {needs}; it has {', '.join(columns)}")
    if task == "seq2seq" and "translation" in columns:
        one, two = zip(*(row.values() for row in part["translation"]), strict=True)
        return Texts(one, two)
    if image and label is None and task == "classification":
        raise UserError(f"{where}: no column label; it has {', '.join(columns)}")
    if image:
        return _images(part, image, label if task in (None, "classification") else None)
    return _texts(part, task, label, where=where)


def _tagged(part: Any, words: str, tags: str) -> Texts:
    """Words with a tag each."""
    # Of a list of class labels the inner feature knows their names.
    named = getattr(getattr(part.features[tags], "feature", None), "names", None)
    rows = [tuple(map(str, row)) for row in part[tags]]
    names = tuple(named or sorted({tag for row in rows for tag in row}, key=lambda tag: (len(tag), tag)))
    shown = map(str, range(len(names))) if named else names
    places = {tag: number for number, tag in enumerate(shown)}
    values = tuple(tuple(places[tag] for tag in row) for row in rows)
    return Texts(tuple(map(tuple, part[words])), names=names, values=values)


def _answered(part: Any) -> Texts:
    """Questions, texts, and where in these the first answer stands; at 0 where there is none."""
    spans = []
    for answer in part["answers"]:
        first = next(iter(answer["answer_start"]), 0)
        spans.append((first, first + len(next(iter(answer["text"]), ""))))
    question, context = (tuple(map(str, part[name])) for name in _ANSWERED[:2])
    return Texts(question, context, values=tuple(spans))


def _texts(part: Any, task: str | None, label: str | None, *, where: str) -> Texts:
    """Texts; where there are classes, those that have a label."""
    columns = list(part.column_names)
    found = next((names for names in _COLUMNS if set(names) <= set(columns)), None)
    if found is None or (label is None and task == "classification"):
        what = "text, sentence, (premise, hypothesis) or (sentence1, sentence2)" if found is None else "label"
        raise UserError(f"{where}: no column {what}; it has {', '.join(columns)}")
    table = {name: list(part[name]) for name in (*found, *([label] if label else ()))}
    # A class label of 🤗 Datasets is stored as its place among the names.
    stated = getattr(part.features.get(label), "names", None) or ()
    if task == "classification" or (task is None and stated):
        return texts_of(table, found, label=label or "", names=stated, unlabelled=_UNLABELLED, where=where)
    if label:
        table["label"] = table[label]
    return read_texts(table, found, task=task, where=where)


def load(argument: str | None, *, task: str | None = "classification") -> tuple[Any, ...]:
    """Training and held-out samples: the test part if it has labels, and the validation part; else that.

    Args:
        argument: ``NAME`` or ``NAME:CONFIG``.
        task: see :func:`coprune.data.load_data`.

    Raises:
        UserError: no name, 🤗 Datasets missing, the hub out of reach, parts or columns that are not there.
    """
    if not argument:
        raise UserError("hf: names no data set; write hf:NAME or hf:NAME:CONFIG")
    name, _, config = argument.partition(":")
    where = f"hf:{argument}"
    loaded = _loaded(name, config or None)
    parts: dict[str, Any] = {}
    for part, start in {"train": "train", "dev": "validation", "test": "test"}.items():
        keys = [start] if start in loaded else [key for key in loaded if key.startswith(f"{start}_")]
        found = _read(loaded[keys[0]], task, where=f"{where}, {keys[0]}") if keys else None
        if found:
            parts[part] = found
    if "train" not in parts:
        raise UserError(f"{where}: no labelled training part; it has {', '.join(loaded)}")
    names = parts["train"].names
    if any(not set(found.names) <= set(names) for found in parts.values()):
        raise UserError(f"{where}: its parts have different labels; save it as a table and use tsv:FILE")
    if isinstance(parts["train"], Texts):
        # A small part may lack a class.
        parts = {part: texts.numbered_as(names) for part, texts in parts.items()}
    return held_out(parts)
