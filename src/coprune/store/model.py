"""A model on disk: ``model.safetensors`` + ``model.json``, and nothing that could run.

``model.json`` names what builds the model (:class:`coprune.models.Source`) and the sizes its layers
have after surgery. Loading builds the full-size model, resizes the layers, loads the weights. A model of
🤗 transformers is built from its ``config.json`` instead (:mod:`coprune.store.transformers`).
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from coprune.errors import UserError
from coprune.files import read_document, write_json
from coprune.models import Source, build, remember, source_of
from coprune.models.attention import separate_attention, separated_in
from coprune.models.layout import laid_out
from coprune.models.reparametrised import fold_reparametrised
from coprune.models.standardised import fold_standardised, folded_in
from coprune.store.tensors import read_tensors, write_tensors
from coprune.store.transformers import (
    Architecture,
    attention_counts,
    build_architecture,
    save_architecture,
    tie_weights,
)
from coprune.units.layers import has_channels

SCHEMA = 1
WEIGHTS = "model.safetensors"
DESCRIPTION = "model.json"

# The attributes of a layer that say how large it is; everything else is the factory's business.
_SIZES = (
    "in_channels",
    "out_channels",
    "groups",
    "in_features",
    "out_features",
    "num_features",
    "num_channels",
    "num_groups",
    "num_parameters",
    "normalized_shape",
    "embedding_dim",
    "nf",
    "nx",
)


Size = int | tuple[int, ...]
"""A layer norm's is a tuple."""


def layer_sizes(model: nn.Module) -> dict[str, dict[str, Size]]:
    """Module name → the size attributes it has, for every layer with weights and every attention."""
    sizes: dict[str, dict[str, Size]] = {}
    for name, module in model.named_modules():
        found = {a: getattr(module, a) for a in _SIZES if isinstance(getattr(module, a, None), int | tuple)}
        if found and has_channels(module):
            sizes[name] = found
    for name, counts in attention_counts(model).items():
        sizes[name] = {**sizes.get(name, {}), **counts}
    return sizes


def weights_fingerprint(model: nn.Module) -> str:
    """A digest of all parameters and buffers: the same weights give the same text."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


class StoredSource(BaseModel):
    """What builds the model, see :class:`coprune.models.Source`."""

    name: str
    arguments: dict[str, Any] = {}


class Description(BaseModel):
    """The content of ``model.json``.

    Attributes:
        source: what builds the full-size model; None when it was not built by name.
        class_name: its class, for messages.
        layers: module name → size attributes after surgery.
        separated: modules whose attention has projections of its own (:mod:`coprune.models.attention`).
        folded: convolutions whose weight is standardised already (:mod:`coprune.models.standardised`).
        transformers: set when ``config.json`` says what builds the model.
        fingerprint: digest of the weights.
        notes: how the model came to be.
    """

    schema_version: int = Field(alias="schema")
    source: StoredSource | None
    class_name: str = Field(alias="class")
    layers: dict[str, dict[str, Size]]
    separated: tuple[str, ...] = ()
    folded: tuple[str, ...] = ()
    transformers: Architecture | None = None
    fingerprint: str
    notes: dict[str, Any] = {}


def save_model(folder: Path, model: nn.Module, *, notes: dict[str, Any] | None = None) -> int:
    """Write a model into a folder.

    Args:
        folder: made when missing.
        model: its source is stored when it is known (see :func:`coprune.models.source_of`).
        notes: JSON values stored beside it, e.g. how it was trained.

    Returns:
        Size of the weights file in bytes.
    """
    source = source_of(model)
    size = write_tensors(folder / WEIGHTS, model.state_dict())
    architecture = save_architecture(folder, model)
    described = {
        "schema": SCHEMA,
        "source": {"name": source.name, "arguments": dict(source.arguments)} if source else None,
        "class": f"{type(model).__module__}:{type(model).__qualname__}",
        "layers": layer_sizes(model),
        **({"separated": apart} if (apart := separated_in(model)) else {}),
        **({"folded": folded} if (folded := folded_in(model)) else {}),
        **({"transformers": architecture.model_dump()} if architecture else {}),
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
    return read_document(folder / DESCRIPTION, Description, what="model description", schema=SCHEMA)


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
    folder = Path(run)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such run folder")
    described = describe(folder)
    tensors = read_tensors(folder / WEIGHTS, what="weights file")
    source = Source(described.source.name, described.source.arguments) if described.source else None
    if model is None and described.transformers is not None:
        model = build_architecture(folder, described.transformers)
    if model is None:
        if source is None:
            raise UserError(
                f"{folder}: holds a {described.class_name} that was not built by name; "
                "give a fresh one: coprune.load(run, model=...)"
            )
        if source.name.startswith("python:") and not trust:
            raise UserError(
                f"{folder}: was built by {source.name}, and loading it runs that code; allow it with "
                "coprune.load(run, trust=True) or --trust, or give the model: coprune.load(run, model=...)"
            )
        model = build(source)
    fold_reparametrised(model, only=tensors)
    fold_standardised(separate_attention(model, only=described.separated), only=described.folded)
    resize(model, described.layers, tensors, where=str(folder))
    tie_weights(model)
    load_weights(laid_out(model), tensors, where=str(folder / WEIGHTS))
    if weights_fingerprint(model) != described.fingerprint:
        raise UserError(f"{folder}: {WEIGHTS} is damaged or not the one that {DESCRIPTION} describes")
    return (remember(model, source) if source else model).eval()


def resize(
    model: nn.Module,
    layers: dict[str, dict[str, Size]],
    tensors: dict[str, Tensor],
    *,
    where: str,
) -> None:
    """Give layers the sizes, and (uninitialised) weights of the shapes and types, of a pruned model.

    Args:
        model: full size; changed in place.
        layers: module name → size attributes.
        tensors: the weights to come; only their shapes and types are used.
        where: how a message names the origin.

    Raises:
        UserError: a layer that this model does not have.
    """
    modules = dict(model.named_modules())
    for name, sizes in layers.items():
        if name not in modules:
            raise UserError(f"{where}: layer '{name}' is not in this {type(model).__name__}")
        for attribute, value in sizes.items():
            setattr(modules[name], attribute, value)
    for name, module in modules.items():
        for key, old in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            saved = tensors.get(f"{name}.{key}" if name else key)
            if saved is None or (saved.shape == old.shape and saved.dtype == old.dtype):
                continue
            fresh = torch.empty_like(saved)
            if isinstance(old, nn.Parameter):
                fresh = nn.Parameter(fresh, requires_grad=old.requires_grad)
            setattr(module, key, fresh)


def load_weights(model: nn.Module, tensors: dict[str, Tensor], *, where: str) -> None:
    """Load a complete state dict, in place.

    Raises:
        UserError: names or shapes that differ (the first few are listed), NaN or Inf.
    """
    expected = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    given = {name: tuple(t.shape) for name, t in tensors.items()}
    if expected != given:
        wrong = [
            f"{name} {given.get(name, 'missing')} for {expected.get(name, 'nothing')}"
            for name in sorted(expected.keys() | given.keys())
            if expected.get(name) != given.get(name)
        ]
        raise UserError(
            f"{where}: not weights of this {type(model).__name__}: {'; '.join(wrong[:3])}"
            + (f" and {len(wrong) - 3} more" if len(wrong) > 3 else "")
        )
    check_finite(tensors, model=model, where=where)
    state = OrderedDict(tensors)
    # Versions of its modules' formats, without which some (MNASNet) refuse what they wrote themselves.
    state._metadata = model.state_dict()._metadata  # type: ignore[attr-defined]
    model.load_state_dict(state)


def check_finite(tensors: dict[str, Tensor], *, model: nn.Module, where: str) -> None:
    """Refuse weights with NaN or Inf, or without values.

    A buffer may hold Inf, as limits do that nothing is clipped at, but for a batch norm's statistics.

    Args:
        tensors: a state dict.
        model: whose it is.
        where: what the message begins with.

    Raises:
        UserError: names the first tensor that has any.
    """
    limits = {
        f"{name}.{buffer}".lstrip(".")
        for name, module in model.named_modules()
        if not isinstance(module, _BatchNorm)
        for buffer, _ in module.named_buffers(recurse=False)
    }
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise UserError(
                f"{where}: '{name}' is no tensor (get_extra_state), which no file without pickle holds; "
                "give a model without it"
            )
        if tensor.is_meta:
            raise UserError(f"{where}: '{name}' is on the meta device and has no values; load weights first")
        if not tensor.is_floating_point():
            continue
        wrong = torch.isnan(tensor) if name in limits else ~torch.isfinite(tensor)
        if bool(wrong.any()):
            raise UserError(f"{where}: NaN or Inf in '{name}'; the training diverged or the file is bad")
