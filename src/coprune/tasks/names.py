"""Names of the built-in tasks and metrics, without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from coprune.lazy import Registry

if TYPE_CHECKING:
    from coprune.tasks.metrics import Metric

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

_HERE = "coprune.tasks.metrics"
METRICS: Registry[Metric] = Registry(
    "metric",
    {
        "top1": f"{_HERE}:TOP1",
        "label_accuracy": f"{_HERE}:LABEL_ACCURACY",
        "f1": f"{_HERE}:F1",
        "r2": f"{_HERE}:R2",
        "mse": f"{_HERE}:MSE",
        "psnr": f"{_HERE}:PSNR",
        "miou": f"{_HERE}:MIOU",
        "pixel_accuracy": f"{_HERE}:PIXEL_ACCURACY",
        "token_accuracy": f"{_HERE}:TOKEN_ACCURACY",
        "perplexity": f"{_HERE}:PERPLEXITY",
        "exact_match": f"{_HERE}:EXACT_MATCH",
    },
)
