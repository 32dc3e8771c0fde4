"""Text data sets of the 🤗 hub: ``hf:NAME`` or ``hf:NAME:CONFIG``, through 🤗 Datasets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coprune.data.text import Texts
from coprune.data.tsv import class_names, held_out, numbered_labels
from coprune.errors import UserError

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

_UNLABELLED = {"-1", "None"}
"""What a part without labels has for one."""


def _fetched(name: str, config: str | None) -> Mapping[str, Any]:
    try:
        from datasets import load_dataset
    except ImportError as cause:
        raise UserError(f"hf:{name} needs 🤗 Datasets: pip install coprune[text]") from cause
    try:
        return load_dataset(name, config)
    except (OSError, ValueError, RuntimeError, LookupError, ImportError) as cause:
        said = str(cause).strip().splitlines()
        raise UserError(
            f"hf:{name} cannot be loaded ({said[0] if said else type(cause).__name__}); check the name and "
            "the network, or save it as a table and use tsv:FILE"
        ) from cause


def _texts(part: Any, *, where: str) -> Texts | None:
    """The samples of a part that have a label; None when none has."""
    columns = list(part.column_names)
    found = next((names for names in _COLUMNS if set(names) <= set(columns)), None)
    label = next((name for name in _LABELS if name in columns), None)
    if found is None or label is None:
        what = "text, sentence, (premise, hypothesis) or (sentence1, sentence2)" if found is None else "label"
        raise UserError(f"{where}: no column {what}; it has {', '.join(columns)}")
    labels = [str(value) for value in part[label]]
    kept = [i for i, value in enumerate(labels) if value not in _UNLABELLED]
    if not kept:
        return None
    labels = [labels[i] for i in kept]
    texts = [list(part[name]) for name in found]
    stated = getattr(part.features.get(label), "names", None) if hasattr(part, "features") else None
    # A class label of 🤗 Datasets is stored as its place among the names.
    names = tuple(str(place) for place in range(len(stated))) if stated else class_names(labels, where=where)
    unknown = sorted(set(labels) - set(names))
    if unknown:
        raise UserError(f"{where}: label {unknown[0]} is none of its {len(names)} classes")
    return Texts(
        tuple(str(texts[0][i]) for i in kept),
        tuple(str(texts[1][i]) for i in kept) if len(texts) == 2 else None,
        numbered_labels(labels, names),
        tuple(stated) if stated else names,
    )


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
    loaded = _fetched(name, config or None)
    parts: dict[str, Texts] = {}
    for part, starts in {"train": "train", "dev": "validation", "test": "test"}.items():
        key = next((k for k in loaded if k == starts), None) or next(
            (k for k in loaded if k.startswith(f"{starts}_")), None
        )
        texts = _texts(loaded[key], where=f"{where}, {key}") if key is not None else None
        if texts is not None:
            parts[part] = texts
    if "train" not in parts:
        raise UserError(f"{where}: no labelled training part; it has {', '.join(loaded)}")
    names = parts["train"].names
    if any(not set(texts.names) <= set(names) for texts in parts.values()):
        raise UserError(f"{where}: its parts have different labels; save it as a table and use tsv:FILE")
    # A small part may lack a class.
    return held_out({part: texts.numbered_as(names) for part, texts in parts.items()})
