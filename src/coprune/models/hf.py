"""Models of 🤗 transformers: ``hf:DIR`` or ``hf:ID``.

A checkpoint's ``config.json`` says what it is; no code that comes with a checkpoint is ever run.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from torch import nn

from coprune.compat.transformers import (
    CONFIG,
    cached_folder,
    library,
    library_errors,
    local_only,
    pretrained_weights,
)
from coprune.errors import UserError, shown
from coprune.files import read_json
from coprune.models.architectures import PROBLEMS, has_labels, is_base, kind_of, reads_images
from coprune.models.names import HF, ModelSource
from coprune.models.registry import check_arguments, remember
from coprune.seeding import seeded

TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.txt", "vocab.json"),
    *("spiece.model", "spm.model", "sentencepiece.bpe.model"),
)
"""A folder with any of these has a tokenizer."""


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

    Args:
        name: ``hf:DIR`` or ``hf:ID``.

    Raises:
        UserError: no such folder or id, the hub out of reach, an architecture that is not known.
    """
    where, transformers = place_of(name), library()
    way_out = "no folder of that name; check the id and the network, or give a folder: hf:DIR"
    if Path(where).is_dir():
        way_out = f"check its {CONFIG}"
    with library_errors(f"model '{name}' cannot be read", then=f"; {way_out}"):
        if Path(where).is_dir():
            read_config(Path(where))
        return local_only(transformers.AutoConfig.from_pretrained(where, trust_remote_code=False))


_ELSEWHERE = (
    *("attn_implementation", "auto_map", "compression_config", "custom_pipelines", "experts_implementation"),
    *("kernel_config", "name_or_path", "quantization_config", "trust_remote_code", "use_kernels"),
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
        place = isinstance(value, str) and bool(re.search(r"[/\\:]", value))
        if not (place or key.startswith("_") or key in _ELSEWHERE):
            found[key] = value if key in ("id2label", "label2id") else _inside(value, where=where)
    return found


def pretrained(
    name: str, *, num_classes: int | None, task: str | None = None, seed: int | None = None
) -> nn.Module:
    """A model with its trained weights, float32, in evaluation mode.

    A checkpoint without a head, or with one of another number of classes, gets a fresh one
    (:func:`fresh_parameters` says so).

    Args:
        name: ``hf:DIR`` or ``hf:ID``.
        num_classes: of the data, where the model has classes; None keeps those of the checkpoint.
        task: what it is to do, see :func:`coprune.models.architectures.kind_of`.
        seed: of a fresh head; None draws from torch's generator as it stands.

    Raises:
        UserError: see :func:`config_of`; a class that is not known; weights that are missing, damaged or of
            another architecture.
    """
    config, place = config_of(name), place_of(name)
    kind = kind_of(config, name, task=task, classes=num_classes)
    if is_base(config) and task in PROBLEMS:
        config.problem_type = PROBLEMS[task]
        num_classes = num_classes or (1 if task == "regression" else None)
    if num_classes is not None and config.num_labels != num_classes and has_labels(kind):
        config.num_labels = num_classes
    with library_errors(f"model '{name}': its weights cannot be loaded"), seeded(seed):
        made, missing, other = pretrained_weights(kind, place, config)
    wrong = sorted(
        f"{key} {list(saved)} for {list(due)}"
        for key, saved, due in other
        if saved[1:] != due[1:] or due[0] != config.num_labels
    )
    if wrong:
        raise UserError(f"model '{name}': weights do not fit its {CONFIG}: {'; '.join(wrong[:3])}")
    fresh, model = missing | {key for key, *_ in other}, made.eval()
    if 2 * len(fresh) > len(model.state_dict()):
        raise UserError(
            f"model '{name}': {len(fresh)} of {len(model.state_dict())} weights are not in the checkpoint; "
            "it is of another architecture"
        )
    files: Any = place if Path(place).is_dir() else cached_folder(place)
    vars(model).update(_coprune_fresh=tuple(sorted(fresh)), _coprune_tokenizer=files)
    return remember(model, ModelSource(name, {"num_labels": config.num_labels}))


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
    return where if name.startswith(HF) and not reads_images(config_of(name)) else None


def label_names(name: str) -> tuple[str, ...] | None:
    """What a checkpoint calls its classes, in their order; None when it does not say.

    Args:
        name: as for :func:`tokenizer_of`.
    """
    if not name.startswith(HF) and not (Path(name) / CONFIG).is_file():
        return None
    config = config_of(HF + name.removeprefix(HF))
    names = tuple(str(config.id2label[place]) for place in sorted(config.id2label))
    return None if all(label == f"LABEL_{place}" for place, label in enumerate(names)) else names
