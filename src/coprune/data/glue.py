"""SST-5 and MNLI in their published layouts.

``sst5:ROOT``: the Stanford Sentiment Treebank with five classes (Socher et al. 2013, EMNLP): files of
trees, ``train.txt``, ``dev.txt``, ``test.txt``, or tables with the columns ``text`` and ``label``.

``mnli:ROOT``: Multi-Genre Natural Language Inference (Williams et al. 2018, arXiv 1704.05426), as GLUE
gives it out (``train.tsv``, ``dev_matched.tsv`` …) or as its authors do (``multinli_1.0_train.jsonl`` …).
The test part has no labels; accuracy is reported on the matched part, or by ``mnli-mm:ROOT`` on the
mismatched one.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from coprune.data.names import place_of
from coprune.data.packed import first_file
from coprune.data.subsample import held_out
from coprune.data.text import Texts
from coprune.data.tsv import KINDS, kind_of, numbered_lines, read_table, texts_of
from coprune.errors import UserError
from coprune.user_code import within

SENTIMENTS = ("very negative", "negative", "neutral", "positive", "very positive")

ENTAILMENTS = ("entailment", "neutral", "contradiction")
"""In the order of GLUE, which most trained models keep."""

_ROOT = re.compile(r"\(\s*([0-4])\s")
_LEAF = re.compile(r"\(\s*[0-4]\s+([^\s()]+)\s*\)")
# How the Penn Treebank writes what would be mistaken for its own marks.
_ESCAPES = {"-LRB-": "(", "-RRB-": ")", "-LSB-": "[", "-RSB-": "]", "-LCB-": "{", "-RCB-": "}"}


def sentence_of(tree: str) -> tuple[str, str]:
    """A tree ``(3 (2 A) (4 (3 fine) (2 film)))`` → its leaves as one text, and the label of its root.

    Raises:
        UserError: not such a tree.
    """
    root, leaves = _ROOT.match(tree), _LEAF.findall(tree)
    if root is None or not leaves or tree.count("(") != tree.count(")"):
        raise UserError("not a tree such as (3 (2 A) (4 film)); fetch the file again")
    words = (_ESCAPES.get(leaf, leaf.replace("\\/", "/").replace("\\*", "*")) for leaf in leaves)
    return " ".join(words), root.group(1)


def _sentiments(path: Path) -> Texts:
    if kind_of(path) != ".txt":
        return texts_of(read_table(path), ("text",), names=SENTIMENTS, where=str(path))
    rows = []
    for number, line in numbered_lines(path):
        with within(f"{path}, line {number}"):
            rows.append(sentence_of(line.strip()))
    table = {"text": [text for text, _ in rows], "label": [label for _, label in rows]}
    return texts_of(table, ("text",), names=SENTIMENTS, where=str(path))


def _inferences(path: Path) -> Texts:
    return texts_of(
        read_table(path),
        ("sentence1", "sentence2"),
        label="gold_label",
        names=ENTAILMENTS,
        unlabelled=("-",),  # where the annotators did not agree
        where=str(path),
    )


def load_sst5(argument: str | None) -> tuple[Texts, ...]:
    """Training, held-out and perhaps validation sentences, see :func:`coprune.data.subsample.held_out`.

    Raises:
        UserError: no such folder, no training part, no held-out part, or a file that cannot be read.
    """
    root = place_of(argument, "sst5")
    stems = {"train": ("train",), "dev": ("dev", "validation", "valid"), "test": ("test",)}
    places, kinds = (root, root / "trees"), (".txt", *KINDS)
    found = {part: first_file(places, names, kinds) for part, names in stems.items()}
    parts = {part: _sentiments(path) for part, path in found.items() if path is not None}
    if "train" not in parts or len(parts) == 1:
        missing = "train.txt" if "train" not in parts else "test.txt"
        raise UserError(f"sst5:{argument}: {missing} is missing (or .jsonl, .csv, .tsv); give another ROOT")
    return held_out(parts)


def _load_mnli(argument: str | None, *, name: str, heldout: str) -> tuple[Texts, ...]:
    """Training and development pairs.

    Raises:
        UserError: no such folder, a part that is missing or cannot be read.
    """
    root, parts = place_of(argument, name), []
    places = (root, root / "MNLI", root / "multinli_1.0")
    for part in ("train", heldout):
        path = first_file(places, (part, f"multinli_1.0_{part}"), (".tsv", ".jsonl"))
        if path is None:
            neither = f"neither {part}.tsv (GLUE) nor multinli_1.0_{part}.jsonl"
            raise UserError(f"{name}:{argument}: {neither}; give another ROOT")
        parts.append(_inferences(path))
    return tuple(parts)


load_mnli = partial(_load_mnli, name="mnli", heldout="dev_matched")
load_mnli_mismatched = partial(_load_mnli, name="mnli-mm", heldout="dev_mismatched")
