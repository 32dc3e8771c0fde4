"""The built-in tasks and metrics. A task or a metric of your own is one entry here, or a value given in Python."""

from __future__ import annotations

from coprune.task import Task
from coprune.tasks import losses, metrics, outputs
from coprune.tasks.divergence import Divergence
from coprune.tasks.metrics import Metric

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("top1", unit="%", sums=metrics.right, pairs=True),
        Metric("label_accuracy", unit="%", sums=metrics.agreed_labels),
        Metric("f1", unit="%", sums=metrics.f1_sums),
        Metric("r2", sums=metrics.explained, finish=metrics.r2),
        Metric("mse", higher_is_better=False, sums=metrics.squared),
        Metric("psnr", sums=metrics.psnr),
        Metric("miou", sums=metrics.overlaps, finish=metrics.mean_iou),
        Metric("pixel_accuracy", unit="%", sums=metrics.right_places(1)),
        Metric("token_accuracy", unit="%", sums=metrics.right_places(-1)),
        Metric(
            "perplexity",
            higher_is_better=False,
            sums=metrics.likelihood(-1, shift=True),
            finish=metrics.perplexity,
        ),
        Metric("exact_match", unit="%", sums=metrics.exact_spans, pairs=True),
    )
}
"""Name → metric. Of two with the ratio of sums, an entry says only what is summed."""

_SEQ2SEQ = Metric(
    "perplexity", higher_is_better=False, sums=metrics.likelihood(-1), finish=metrics.perplexity
)

_LOGITS = outputs.either("logits", what="logits [N, C]")
_MAPS = outputs.either("logits", "out", "masks", what="logits [N, C, H, W]")
_IMAGES = outputs.either("sample", "reconstruction", "logits", what="images [N, C, H, W]")
_VALUES = outputs.either("logits", "predictions", what="values [N, …]")

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            "classification",
            "one class a sample",
            _LOGITS,
            Divergence("softmax"),
            METRICS["top1"],
            losses.class_loss,
        ),
        Task(
            "multilabel",
            "several labels a sample, each yes or no",
            _LOGITS,
            Divergence("sigmoid"),
            METRICS["f1"],
            losses.label_loss,
        ),
        Task(
            "regression", "numbers", _VALUES, Divergence("gaussian"), METRICS["r2"], losses.squared_loss
        ),
        Task(
            "segmentation",
            "a class a pixel",
            _MAPS,
            Divergence("softmax"),
            METRICS["miou"],
            losses.PlaceLoss(1),
        ),
        Task("detection", "boxes: the raw heads count, your metric judges", outputs.everything, Divergence("gaussian")),
        Task(
            "text-generation",
            "the next token",
            _LOGITS,
            Divergence("softmax", -1),
            METRICS["perplexity"],
            losses.PlaceLoss(-1, shift=True),
        ),
        Task(
            "token-classification",
            "a class a token",
            _LOGITS,
            Divergence("softmax", -1),
            METRICS["token_accuracy"],
            losses.PlaceLoss(-1),
        ),
        Task(
            "question-answering",
            "start and end of an answer",
            outputs.answers,
            Divergence("softmax"),
            METRICS["exact_match"],
            losses.span_loss,
        ),
        Task("seq2seq", "a text for a text", _LOGITS, Divergence("softmax", -1), _SEQ2SEQ, losses.PlaceLoss(-1)),
        Task("feature-extraction", "embeddings", outputs.embeddings, Divergence("cosine")),
        Task(
            "reconstruction",
            "an image for an image",
            _IMAGES,
            Divergence("gaussian"),
            METRICS["psnr"],
            losses.squared_loss,
        ),
        Task("outputs", "anything; the unpruned model's outputs are what is wanted", outputs.everything, Divergence("gaussian")),
    )
}
