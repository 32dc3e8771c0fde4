"""Which class of 🤗 transformers a checkpoint is opened as, and what task a class is for.

``config.architectures`` says it. What names no task, or a pretraining's, is opened as the task asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from coprune.compat.transformers import library, model_class
from coprune.errors import UserError
from coprune.tracing.detectors import heads_of

_HEADS = {
    "classification": (
        "SequenceClassification",
        "ImageClassification",
        "ImageClassificationWithTeacher",
        "AudioClassification",
        "VideoClassification",
        "MultipleChoice",
        "NextSentencePrediction",
    ),
    "token-classification": ("TokenClassification", "AudioFrameClassification", "MaskedLM"),
    "question-answering": ("QuestionAnswering",),
    "segmentation": ("SemanticSegmentation",),
    "detection": ("ObjectDetection",),
    "regression": ("DepthEstimation",),
    "reconstruction": ("ImageSuperResolution", "MaskedImageModeling"),
    "text-generation": ("CausalLM",),
    "seq2seq": ("ConditionalGeneration", "SpeechSeq2Seq"),
}
"""Task → what stands behind ``For`` in the names of its classes."""

_TASKS = {head: task for task, heads in _HEADS.items() for head in heads}

_OTHERS = (
    ("HeadModel", "text-generation"),  # GPT2LMHeadModel
    ("EncoderDecoderModel", "seq2seq"),
    *((end, "feature-extraction") for end in ("Model", "WithProjection", "Encoder", "Backbone")),
)
"""Likewise, how other names end; the first that fits counts."""

_BASES = ("Model", "ForMaskedLM", "ForPreTraining", "ForMaskedImageModeling")
_NO_BASES = ("HeadModel", "HeadsModel", "EncoderDecoderModel")

_AUTO = {
    "text-generation": ("CausalLM",),
    "seq2seq": ("Seq2SeqLM", "SpeechSeq2Seq"),
    "token-classification": ("TokenClassification",),
    "question-answering": ("QuestionAnswering",),
    "segmentation": ("SemanticSegmentation",),
    "detection": ("ObjectDetection",),
    "feature-extraction": ("",),
}
"""Task → the library's ``AutoModelFor…`` that may know a model for it."""

PROBLEMS = {"multilabel": "multi_label_classification", "regression": "regression"}
"""Task → what the library calls it, where a classifier's configuration says it."""

_CLASSIFIED = ("classification", "multilabel", "regression")
_LABELLED = ("classification", "token-classification", "segmentation", "detection")
"""Tasks whose models have an output a class of the data."""


def task_of(model: Any) -> str | None:
    """The task that a model's class is for; None where the name says none, or the model is no library's.

    Args:
        model: a model, or the configuration of a checkpoint.
    """
    if heads_of(model):
        return "detection"
    config = getattr(model, "config", model)
    named = _named(config) if config is model else [type(model).__name__]
    return _task(named[0], config) if named and hasattr(config, "model_type") else None


def _named(config: Any) -> list[str]:
    """The classes that a configuration says it is of."""
    return [str(found) for found in getattr(config, "architectures", None) or ()]


def _task(kind: str, config: Any) -> str | None:
    head = kind.rpartition("For")[2] if "For" in kind else ""
    task = _TASKS.get(head)
    if task is None and not head:
        task = next((task for end, task in _OTHERS if kind.endswith(end)), None)
    if task == "classification" and head.endswith("Classification"):
        # As the library's own losses have it.
        asked = getattr(config, "problem_type", None)
        single = asked is None and config.num_labels == 1
        return "regression" if single else next((t for t, named in PROBLEMS.items() if named == asked), task)
    if task == "seq2seq" and not getattr(config, "is_encoder_decoder", True):
        return "text-generation"  # of texts about images
    return task


def is_base(config: Any) -> bool:
    """Whether a checkpoint is of no task, or of a pretraining's: something to train for any."""
    named = _named(config)
    return not named or any(n.endswith(_BASES) and not n.endswith(_NO_BASES) for n in named)


def reads_images(config: Any) -> bool:
    """Whether a configuration is that of an image model."""
    if getattr(config, "vocab_size", None) is not None:
        return False
    return any(getattr(config, key, None) is not None for key in ("image_size", "num_channels"))


def kind_of(config: Any, name: str, *, task: str | None, classes: int | None) -> Any:
    """The class that a checkpoint is opened as.

    Args:
        config: its configuration.
        name: for messages.
        task: that it is to do; None: not said.
        classes: of the data; None: none are known.

    Returns:
        A class with ``from_pretrained``; an ``AutoModel…`` for what is to be trained for the task.

    Raises:
        UserError: names a class that transformers does not have, or asks for a head that it has not.
    """
    named = _named(config)
    if is_base(config) and (task in _CLASSIFIED or (task is None and (classes or not named))):
        words = ("Image", "Sequence", "Audio") if reads_images(config) else ("Sequence", "Audio", "Image")
        return _auto([f"{word}Classification" for word in words], config, name)
    if is_base(config) and task in _AUTO:
        return _auto(_AUTO[task], config, name)
    if not named:
        return library().AutoModel
    kind = model_class(named[0])
    if kind is None:
        version = library().__version__
        raise UserError(
            f"model '{name}' names the class {named[0]}, which transformers {version} does not have; only "
            "its own classes are opened: build it in a function and give that: python:module:factory"
        )
    return kind


def _auto(heads: Sequence[str], config: Any, name: str) -> Any:
    kinds = [getattr(library(), f"AutoModel{f'For{head}' if head else ''}") for head in heads]
    for kind in kinds:
        if type(config) in kind._model_mapping:
            return kind
    raise UserError(
        f"model '{name}': transformers has no {kinds[0].__name__} of a {config.model_type}; give a "
        "checkpoint of a model that does the task"
    )


def has_labels(kind: Any) -> bool:
    """Whether a class has an output a class of the data."""
    head = kind.__name__.rpartition("For")[2]
    return _TASKS.get(head) in _LABELLED and head not in ("MaskedLM", "MultipleChoice")
