"""Classifiers of 🤗 transformers: ``hf:DIR`` or ``hf:ID``, texts or images.

A checkpoint's ``config.json`` says what it is; no code that comes with a checkpoint is ever run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from coprune.errors import UserError, shown
from coprune.files import read_json
from coprune.models.hubs import quiet_hub
from coprune.models.names import HF, ModelSource
from coprune.models.registry import check_arguments, remember

CONFIG = "config.json"

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "spm.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)
"""A folder with any of these has a tokenizer."""

_FAILURES = (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError, RuntimeError)


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as cause:
        raise UserError("hf: models need 🤗 transformers: pip install coprune[text]") from cause
    return transformers


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's bars and tables; what matters of them is kept (:func:`fresh_parameters`)."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with quiet_hub():
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _first_line(cause: Exception) -> str:
    lines = str(cause).strip().splitlines()
    return lines[0].strip() if lines else type(cause).__name__


def place_of(name: str) -> str:
    """``hf:DIR`` or ``hf:ID`` → the folder or the id.

    Raises:
        UserError: nothing named, a folder that is not there or holds no ``config.json`` (naming one
            inside it that does).
    """
    where = name.removeprefix(HF)
    if not where:
        raise UserError("hf: names no model; write hf:DIR or hf:ID")
    folder = Path(where).expanduser()
    if folder.is_dir():
        if (folder / CONFIG).is_file():
            return str(folder)
        inside = sorted(p.parent for p in folder.glob(f"*/{CONFIG}"))
        hint = f"did you mean hf:{inside[0]}?" if inside else "give the folder of a 🤗 transformers model"
        raise UserError(f"model '{name}': the folder has no {CONFIG}; {hint}")
    if where.startswith((".", "/", "~")) or where.count("/") > 1 or folder.exists():
        raise UserError(f"model '{name}': no such folder")
    return where


def config_of(name: str) -> Any:
    """The configuration of a checkpoint.

    Raises:
        UserError: no such folder or id, the hub out of reach, an architecture that is not known.
    """
    where, library = place_of(name), _transformers()
    try:
        if Path(where).is_dir():
            read_config(Path(where))
        with _quiet():
            config = library.AutoConfig.from_pretrained(where, trust_remote_code=False)
    except _FAILURES as cause:
        way_out = (
            f"check its {CONFIG}"
            if Path(where).is_dir()
            else "no folder of that name; check the id and the network, or give a folder: hf:DIR"
        )
        raise UserError(f"model '{name}' cannot be read ({_first_line(cause)}); {way_out}") from cause
    return tamed(config)


_ELSEWHERE = (
    "attn_implementation",
    "auto_map",
    "compression_config",
    "custom_pipelines",
    "experts_implementation",
    "kernel_config",
    "name_or_path",
    "quantization_config",
    "trust_remote_code",
    "use_kernels",
    "use_pretrained_backbone",
)
"""Keys of a configuration that make transformers look for code, weights or kernels somewhere."""

_MOST = {"label": 1_000_000, "layer": 10_000, "block": 10_000, "depth": 10_000}
"""What keys with these words in them may count: lists are made of so many entries before any weight is."""


def read_config(folder: Path) -> dict[str, Any]:
    """The content of a folder's ``config.json``, without what names anything outside of the folder.

    Raises:
        UserError: missing or damaged, counts that no network has, arguments for timm that do more than shape
            a network.
    """
    described = read_json(folder / CONFIG, what="configuration")
    if not isinstance(described, dict):
        raise UserError(f"{folder / CONFIG}: not a configuration of 🤗 transformers")
    return _inside(described, where=folder / CONFIG)


def _inside(part: Any, *, where: Path) -> Any:
    if isinstance(part, list):
        return [_inside(inner, where=where) for inner in part]
    if not isinstance(part, dict):
        return part
    found = {}
    for key, value in part.items():
        most = min((most for word, most in _MOST.items() if word in key.lower()), default=None)
        if most is not None and isinstance(value, int) and value > most:
            raise UserError(f"{where}: {shown(key)} = {shown(value)} is more than {most:,}")
        if key in ("model_args", "backbone_kwargs") and isinstance(value, dict):
            check_arguments(ModelSource(f"{HF}{where.parent}", value))
        place = key.startswith("_") or key in _ELSEWHERE
        place = place or (isinstance(value, str) and bool(re.search(r"[/\\:]", value)))
        if not place:
            found[key] = value if key in ("id2label", "label2id") else _inside(value, where=where)
    return found


def tamed(config: Any) -> Any:
    """A configuration that fetches neither weights nor kernels; changed in place."""
    for part in (config, *(getattr(config, key, None) for key in getattr(config, "sub_configs", ()))):
        if getattr(part, "use_pretrained_backbone", False):
            part.use_pretrained_backbone = False
        for attribute in ("_attn_implementation", "_experts_implementation"):
            if "/" in str(getattr(part, attribute, None)):
                setattr(part, attribute, None)
    return config


def reads_images(config: Any) -> bool:
    """Whether a configuration is that of an image model."""
    if getattr(config, "vocab_size", None) is not None:
        return False
    return any(getattr(config, key, None) is not None for key in ("image_size", "num_channels"))


_CLASSIFIERS = (
    "ForSequenceClassification",
    "ForImageClassification",
    "ForImageClassificationWithTeacher",
)

_ENCODERS = ("Model", "ForMaskedLM", "ForPreTraining", "ForMaskedImageModeling")
"""Ends of the names of what is trained into a classifier: without a task, or with that of a pretraining."""

_OTHER_HEADS = ("HeadModel", "HeadsModel", "EncoderDecoderModel")


def _check_classifies(config: Any, name: str) -> None:
    """Refuse a checkpoint of another task, of which a classifier would have a head of random numbers.

    Raises:
        UserError: names the class that its configuration names.
    """
    named = [str(found) for found in getattr(config, "architectures", None) or ()]
    if named and not any(
        found.endswith((*_CLASSIFIERS, *_ENCODERS)) and not found.endswith(_OTHER_HEADS) for found in named
    ):
        due = _CLASSIFIERS[1 if reads_images(config) else 0]
        raise UserError(
            f"model '{name}' is a {named[0]}, and no classifier; only classifiers are pruned so far: "
            f"give a checkpoint of a …{due}, or of an encoder to train as one"
        )


def _auto_class(config: Any, name: str) -> Any:
    auto = _transformers()
    _check_classifies(config, name)
    if reads_images(config):
        return auto.AutoModelForImageClassification
    return auto.AutoModelForSequenceClassification


def from_config(name: str, *, num_labels: int | None = None) -> nn.Module:
    """A classifier with fresh weights, in evaluation mode.

    Args:
        name: ``hf:DIR`` or ``hf:ID``; of a folder only ``config.json`` is read.
        num_labels: classes; those of the configuration when not given.

    Raises:
        UserError: see :func:`config_of`; an architecture without a classifier.
    """
    config = config_of(name)
    if num_labels is not None and config.num_labels != num_labels:
        config.num_labels = num_labels
    auto = _auto_class(config, name)
    try:
        with _quiet():
            model: nn.Module = auto.from_config(config)
    except _FAILURES as cause:
        raise UserError(f"model '{name}' makes no classifier ({_first_line(cause)})") from cause
    return model.float().eval()


def pretrained(name: str, *, num_classes: int | None, seed: int | None = None) -> nn.Module:
    """A classifier with its trained weights, float32, in evaluation mode.

    A checkpoint without a head, or with one of another number of classes, gets a fresh one
    (:func:`fresh_parameters` says so).

    Args:
        name: ``hf:DIR`` or ``hf:ID``.
        num_classes: of the data; None keeps those of the checkpoint.
        seed: of a fresh head; None draws from torch's generator as it stands.

    Raises:
        UserError: see :func:`config_of`; weights that are missing, damaged or of another architecture.
    """
    config = config_of(name)
    classes = num_classes if num_classes is not None else config.num_labels
    if config.num_labels != classes:
        config.num_labels = classes
    auto = _auto_class(config, name)
    try:
        with _quiet(), torch.random.fork_rng(devices=[], enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            model, report = auto.from_pretrained(
                place_of(name),
                config=config,
                dtype=torch.float32,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                trust_remote_code=False,
            )
    except (SafetensorError, *_FAILURES) as cause:
        raise UserError(f"model '{name}': its weights cannot be loaded ({_first_line(cause)})") from cause
    wrong = sorted(
        f"{key} {list(saved)} for {list(due)}"
        for key, saved, due in report["mismatched_keys"]
        if saved[1:] != due[1:] or due[0] != classes
    )
    if wrong:
        raise UserError(f"model '{name}': weights do not fit its {CONFIG}: {'; '.join(wrong[:3])}")
    fresh = {*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}
    if 2 * len(fresh) > len(model.state_dict()):
        raise UserError(
            f"model '{name}': {len(fresh)} of {len(model.state_dict())} weights are not in the checkpoint; "
            "it is of another architecture"
        )
    model._coprune_fresh = tuple(sorted(fresh))
    model._coprune_tokenizer = _files_of(name)
    return remember(model.eval(), ModelSource(name, {"num_labels": classes}))


def _files_of(name: str) -> str:
    """The folder where the files of a checkpoint lie: its own, or that of the hub's cache."""
    where = place_of(name)
    if Path(where).is_dir():
        return where
    from transformers.utils import cached_file

    found = cached_file(where, CONFIG)
    return str(Path(found).parent) if found else where


def fresh_parameters(model: nn.Module) -> tuple[str, ...]:
    """Names of the weights that a checkpoint did not have: an untrained head, mostly."""
    return getattr(model, "_coprune_fresh", ())


def tokenizer_of(name: str) -> str | None:
    """Where the tokenizer of a model is: a folder, or a hub id.

    Args:
        name: what is typed after ``--model``: ``hf:DIR``, ``hf:ID``, a run folder, or any other name.

    Returns:
        None for a model without one: an image model, or a folder without tokenizer files.

    Raises:
        UserError: ``hf:`` and no such model, see :func:`config_of`.
    """
    where = place_of(name) if name.startswith(HF) else name
    if Path(where).is_dir():
        return where if any((Path(where) / file).is_file() for file in TOKENIZER_FILES) else None
    if not name.startswith(HF) or reads_images(config_of(name)):
        return None
    return where


def label_names(name: str) -> tuple[str, ...] | None:
    """What a checkpoint calls its classes, in their order; None when it does not say.

    Args:
        name: as for :func:`tokenizer_of`.
    """
    if not name.startswith(HF) and not (Path(name) / CONFIG).is_file():
        return None
    config = config_of(name if name.startswith(HF) else HF + name)
    names = tuple(str(config.id2label[place]) for place in sorted(config.id2label))
    unnamed = all(label == f"LABEL_{place}" for place, label in enumerate(names))
    return None if unnamed else names
