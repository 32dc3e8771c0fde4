"""A model on disk: ``model.safetensors`` + ``model.json``, and nothing that could run.

``model.json`` names what builds the model (:class:`coprune.models.names.ModelSource`) and the sizes its
layers have after surgery. Loading builds the full-size model, resizes the layers, loads the weights. A model
of 🤗 transformers is built from its ``config.json`` instead (:mod:`coprune.store.transformers`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from coprune import given
from coprune.documents import Document
from coprune.errors import UserError, shown
from coprune.files import write_json
from coprune.folders import mend
from coprune.models.canonicalize import canonicalize, replaced_in, restore_format
from coprune.models.names import HF, ModelSource
from coprune.models.registry import accepted_arguments, build, remember, source_of
from coprune.store.guard import built_within
from coprune.store.sizes import Size, layer_sizes, resize
from coprune.store.state_dict import load_weights
from coprune.store.tensors import read_header, read_tensors, write_tensors
from coprune.store.transformers import (
    Architecture,
    architecture_builder,
    save_architecture,
    tie_weights,
)
from coprune.user_factory import PYTHON

WEIGHTS = "model.safetensors"
DESCRIPTION = "model.json"


def weights_fingerprint(model: nn.Module) -> str:
    """A digest of all parameters and buffers: the same weights give the same text."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


class Description(Document, extra="ignore"):
    """The content of ``model.json``.

    Attributes:
        source: what builds the full-size model; None when it was not built by name.
        class_name: its class, for messages.
        layers: module name → size attributes after surgery.
        separated: modules whose attention has projections of its own (:mod:`coprune.models.attention`).
        folded: convolutions whose weight is standardised already
            (:mod:`coprune.models.weight_standardization`).
        channels_last: the order in memory of its weights.
        transformers: set when ``config.json`` says what builds the model.
        names: what the model calls its classes, where it does (Ultralytics').
        fingerprint: digest of the weights.
        notes: how the model came to be.
    """

    what = "model description"

    source: ModelSource | None
    class_name: str = Field(alias="class")
    layers: dict[str, dict[str, Size]]
    separated: tuple[str, ...] = ()
    folded: tuple[str, ...] = ()
    channels_last: bool = False
    transformers: Architecture | None = None
    names: Mapping[int, str] = {}
    fingerprint: str
    notes: Mapping[str, Any] = {}


def save_model(folder: Path, model: nn.Module, *, notes: dict[str, Any] | None = None) -> int:
    """Write a model into a folder.

    Args:
        folder: made when missing.
        model: its source is stored when it is known (see :func:`coprune.models.registry.source_of`).
        notes: JSON values stored beside it, e.g. how it was trained.

    Returns:
        Size of the weights file in bytes.
    """
    source = source_of(model)
    size = write_tensors(folder / WEIGHTS, model.state_dict())
    architecture, named = save_architecture(folder, model), getattr(model, "names", None)
    described = {
        "schema": 1,
        "source": {"name": source.name, "arguments": dict(source.arguments)} if source else None,
        "class": f"{type(model).__module__}:{type(model).__qualname__}",
        "layers": layer_sizes(model),
        **replaced_in(model),
        **({"transformers": architecture.model_dump()} if architecture else {}),
        **({"names": named} if isinstance(named, dict) else {}),
        "fingerprint": weights_fingerprint(model),
        "notes": notes or {},
    }
    write_json(folder / DESCRIPTION, described)
    return size


def describe(folder: Path) -> Description:
    """The content of a folder's ``model.json``.

    Raises:
        UserError: missing, truncated, foreign, or written by a later version.
    """
    return Description.load(folder / DESCRIPTION)


def needs_trust(folder: Path) -> bool:
    """Whether :func:`load` runs code that is not the package's, and so must be told to."""
    source = describe(folder).source
    return source is not None and source.name.startswith(PYTHON)


def load(run: str | Path, *, model: nn.Module | None = None, trust: bool = False) -> nn.Module:
    """Rebuild the model of a run folder: no pickle, no code from the folder.

    Args:
        run: a folder with ``model.safetensors`` and ``model.json``.
        model: a fresh, full-size model of the same class; only needed when the saved model was not
            built by one of the project's names, since its code is then unknown here. It is resized
            in place.
        trust: run the factory that the folder names (``python:module:factory``). A folder from
            elsewhere could name any function of any installed package, so this must be asked for.

    Returns:
        The model in evaluation mode; its outputs are bit-equal to those of the saved one.

    Raises:
        UserError: missing, truncated or foreign files, a model of another shape, NaN in weights, a
            factory that was not trusted.
    """
    folder = given.folder(run, "run")
    if model is not None:
        given.module(model, "model")
    mend(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such run folder")
    described = describe(folder)
    header = read_header(folder / WEIGHTS, what="weights file")
    if model is None:
        model = _full_size(folder, described, header, trust=trust)
    replaced = {"separated": described.separated, "folded": described.folded}
    canonicalize(model, only={"parametrizations": header, **replaced})
    resize(model, described.layers, header, where=folder / WEIGHTS)
    tie_weights(model)
    load_weights(model, read_tensors(folder / WEIGHTS, what="weights file"), where=str(folder / WEIGHTS))
    if weights_fingerprint(model) != described.fingerprint:
        raise UserError(f"{folder}: {WEIGHTS} is damaged or not the one that {DESCRIPTION} describes")
    if described.names:
        model.names = described.names  # type: ignore[assignment]
    restore_format(model, channels_last=described.channels_last)
    return (remember(model, described.source) if described.source else model).eval()


def full_size(run: Path, *, trust: bool = False) -> nn.Module | None:
    """What the model of a run folder was cut from, with fresh weights; None where nobody says what that was.

    Raises:
        UserError: see :func:`load`.
    """
    described = describe(run)
    known = described.source or described.transformers
    header = read_header(run / WEIGHTS, what="weights file")
    return _full_size(run, described, header, trust=trust, full=True) if known else None


def _full_size(
    folder: Path, described: Description, header: Mapping[str, Tensor], *, trust: bool, full: bool = False
) -> nn.Module:
    if described.transformers is not None:
        make = architecture_builder(folder, described.transformers, full=full)
        return built_within(header, make, where=str(folder))
    source = described.source
    if source is None:
        raise UserError(
            f"{folder}: holds a {shown(described.class_name, most=80)} that was not built by name; "
            "give a fresh one: coprune.load(run, model=...)"
        )
    if source.name.startswith(PYTHON):
        if not trust:
            raise UserError(
                f"{folder}: was built by {source.name}, and loading it runs that code; allow it with "
                "coprune.load(run, trust=True) or --trust, or give the model: coprune.load(run, model=...)"
            )
        return build(source)
    if source.name.startswith(HF):
        raise UserError(f"{folder / DESCRIPTION}: does not say how its 🤗 model was built; restore the file")
    accepted_arguments(source.name, {})  # no library may be imported inside a device mode
    return built_within(header, lambda: build(source), where=str(folder))
