"""Names of the built-in tasks, without torch."""

from __future__ import annotations

from typing import Literal

TaskName = Literal[
    "classification",
    "multilabel",
    "regression",
    "segmentation",
    "detection",
    "text-generation",
    "token-classification",
    "question-answering",
    "seq2seq",
    "feature-extraction",
    "reconstruction",
    "outputs",
]
