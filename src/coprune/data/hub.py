"""Text data sets of the 🤗 hub, or of a folder in a layout it knows: ``hf:NAME`` or ``hf:NAME:CONFIG``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coprune.data.text import Texts
from coprune.data.tsv import held_out, texts_of
from coprune.errors import UserError, first_line
from coprune.lazy import required

_COLUMNS = (
    ("text", "text_pair"),
    ("premise", "hypothesis"),
    ("sentence1", "sentence2"),
    ("question", "sentence"),
    ("question1", "question2"),
    ("text",),
    ("sentence",),
)
"""Names of the text and its pair, the first that a data set has."""

_LABELS = ("label", "labels")

_UNLABELLED = ("-1", "None")
"""What a part without labels has for one."""


def _loaded(name: str, config: str | None) -> Mapping[str, Any]:
    library = required("datasets", f"hf:{name} needs 🤗 Datasets", extra="text")
    try:
        return library.load_dataset(name, config)
    except (OSError, ValueError, RuntimeError, LookupError, ImportError) as cause:
        raise UserError(
            f"hf:{name} cannot be loaded ({first_line(cause)}); check the name and the network, "
            "or save it as a table and use tsv:FILE"
        ) from cause


def _texts(part: Any, *, where: str) -> Texts:
    """The samples of a part that have a label."""
    columns = list(part.column_names)
    found = next((names for names in _COLUMNS if set(names) <= set(columns)), None)
    label = next((name for name in _LABELS if name in columns), None)
    if found is None or label is None:
        what = "text, sentence, (premise, hypothesis) or (sentence1, sentence2)" if found is None else "label"
        raise UserError(f"{where}: no column {what}; it has {', '.join(columns)}")
    # A class label of 🤗 Datasets is stored as its place among the names.
    stated = getattr(part.features.get(label), "names", None) or ()
    table = {name: list(part[name]) for name in (*found, label)}
    return texts_of(table, found, label=label, names=stated, unlabelled=_UNLABELLED, where=where)


def load(argument: str | None) -> tuple[Texts, ...]:
    """Training and held-out texts: the test part if it has labels, and the validation part; else the latter.

    Args:
        argument: ``NAME`` or ``NAME:CONFIG``.

    Raises:
        UserError: no name, 🤗 Datasets missing, the hub out of reach, parts or columns that are not there.
    """
    if not argument:
        raise UserError("hf: names no data set; write hf:NAME or hf:NAME:CONFIG")
    name, _, config = argument.partition(":")
    where = f"hf:{argument}"
    loaded = _loaded(name, config or None)
    parts: dict[str, Texts] = {}
    for part, start in {"train": "train", "dev": "validation", "test": "test"}.items():
        keys = [start] if start in loaded else [key for key in loaded if key.startswith(f"{start}_")]
        texts = _texts(loaded[keys[0]], where=f"{where}, {keys[0]}") if keys else None
        if texts:
            parts[part] = texts
    if "train" not in parts:
        raise UserError(f"{where}: no labelled training part; it has {', '.join(loaded)}")
    names = parts["train"].names
    if any(not set(texts.names) <= set(names) for texts in parts.values()):
        raise UserError(f"{where}: its parts have different labels; save it as a table and use tsv:FILE")
    # A small part may lack a class.
    return held_out({part: texts.numbered_as(names) for part, texts in parts.items()})
