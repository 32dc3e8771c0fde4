"""Networks of other libraries: ``torchvision:NAME``, ``timm:NAME``, ``pytorchcv:NAME``.

A name stands for fresh weights. ``NAME@pretrained`` stands for the library's published ones, which it
downloads; ``torchvision:NAME@IMAGENET1K_V1`` for one of several. What was built remembers the name
without them, so that a run folder needs no network.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

from coprune.compat.transformers import quiet_hub
from coprune.errors import UserError, first_line, near_matches
from coprune.lazy import required
from coprune.models.names import HUBS
from coprune.tracing.forward import FAILURES

PRETRAINED = "pretrained"
"""The tag of the weights that a library itself recommends."""


@dataclass(frozen=True)
class Hub:
    """How a library is asked; its ``module`` is what every function is given first.

    Attributes:
        module: what is imported.
        names: its classifiers.
        make: (module, name, keyword arguments) → a fresh network.
        weights: (module, name, tag, arguments of ``more``) → a state dict.
        channels: what its networks call the number of image channels; None where it is fixed.
        more: other arguments that its networks take.
    """

    module: str
    names: Callable[[Any], Iterable[str]]
    make: Callable[..., nn.Module]
    weights: Callable[..., dict[str, Tensor]]
    channels: str | None = None
    more: tuple[str, ...] = ()


def _torchvision_make(models: Any, name: str, **arguments: Any) -> nn.Module:
    if name in ("googlenet", "inception_v3"):
        # Their second outputs exist in training only; pruning would carry them along unseen.
        arguments = {"aux_logits": False, "init_weights": False, **arguments}
    return models.get_model(name, weights=None, **arguments)


def _torchvision_weights(models: Any, name: str, tag: str) -> dict[str, Tensor]:
    published = models.get_model_weights(name)
    key = "DEFAULT" if tag == PRETRAINED else tag
    if key not in published.__members__:
        near = near_matches(tag, [PRETRAINED, *published.__members__])
        raise UserError(f"torchvision:{name}@{tag}: no such weights; {near}")
    return published[key].get_state_dict(progress=False, check_hash=True, weights_only=True)


def _pytorchcv_weights(_: Any, name: str, tag: str) -> dict[str, Tensor]:
    from pytorchcv.models.common.model_store import get_model_file

    # Its own loader would run whatever a file's pickle says.
    return torch.load(get_model_file(name), map_location="cpu", weights_only=True)


_HUBS = (
    Hub(
        "torchvision.models",
        lambda models: models.list_models(module=models),
        _torchvision_make,
        _torchvision_weights,
    ),
    Hub(
        "timm",
        lambda timm: timm.list_models(),
        lambda timm, name, **arguments: timm.create_model(name, pretrained=False, **arguments),
        lambda timm, name, _, **more: timm.create_model(name, pretrained=True, **more).state_dict(),
        channels="in_chans",
        more=("features_only",),
    ),
    Hub(
        "pytorchcv.model_provider",
        lambda provider: getattr(provider, "_models", ()),
        lambda provider, name, **arguments: provider.get_model(name, **arguments),
        _pytorchcv_weights,
        channels="in_channels",
    ),
)
LIBRARIES: dict[str, Hub] = dict(zip(HUBS, _HUBS, strict=True))


def _opened(scheme: str) -> Any:
    what = f"{scheme}: models need {scheme}"
    required(scheme, what, extra="vision")  # a part of it may have been imported before it was hidden
    return required(LIBRARIES[scheme].module, what, extra="vision")


def known_names(scheme: str) -> list[str]:
    """All classifiers of a library, as ``scheme:NAME`` without the scheme.

    Raises:
        UserError: the library is not installed.
    """
    return list(LIBRARIES[scheme].names(_opened(scheme)))


def hub_factory(scheme: str, name: str) -> Callable[..., nn.Module]:
    """What makes a fresh network of a library, by keyword arguments.

    Args:
        scheme: a key of :data:`LIBRARIES`.
        name: as the library has it. timm's names may carry the tag of their weights.

    Raises:
        UserError: the library is not installed, or has no such classifier (with near matches).
    """
    library, opened, known = LIBRARIES[scheme], _opened(scheme), known_names(scheme)
    # timm would take a name such as ``resnet18.hf-hub:…`` for an address.
    plain, _, weights = name.partition(".") if scheme == "timm" else (name, "", "")
    if plain not in known or not re.fullmatch(r"[\w.]*", weights):
        raise UserError(
            f"unknown model '{scheme}:{name}'; {near_matches(name, known) if name else 'write a name'}"
        )

    def make(*, num_classes: int | None = None, in_channels: int | None = None, **rest: Any) -> nn.Module:
        offered = {"num_classes": num_classes, library.channels: in_channels}
        return library.make(opened, name, **{k: v for k, v in offered.items() if k and v is not None} | rest)

    # The arguments that the data offers to a network (coprune.models.registry.accepted_arguments).
    taken = ("num_classes", *(("in_channels",) if library.channels else ()), *library.more)
    make.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(argument, inspect.Parameter.KEYWORD_ONLY, default=None) for argument in taken]
    )
    return make


def split_tag(name: str) -> tuple[str, str | None]:
    """``torchvision:resnet50@pretrained`` → the name, and the tag of the published weights if any."""
    plain, _, tag = name.partition("@")
    return (plain, tag or None) if name.partition(":")[0] in HUBS else (name, None)


def load_published(model: nn.Module, name: str, tag: str, arguments: Mapping[str, Any]) -> None:
    """Load a library's published weights, in place.

    A classifier for another number of classes keeps its fresh last layer.

    Args:
        model: built from ``name``.
        name: ``scheme:NAME``.
        tag: of the weights.
        arguments: that it was built with.

    Raises:
        UserError: no such weights, no network, or weights that do not fit.
    """
    scheme, _, rest = name.partition(":")
    if scheme != "torchvision" and tag != PRETRAINED:
        renamed = f", or the tag as timm:{rest}.{tag}" if scheme == "timm" else ""
        raise UserError(f"{name}@{tag}: write {name}@{PRETRAINED}{renamed}")
    try:
        with quiet_hub():
            library = LIBRARIES[scheme]
            more = {name: value for name, value in arguments.items() if name in library.more}
            state = library.weights(_opened(scheme), rest, tag, **more)
    except UserError:
        raise
    except (*FAILURES, OSError, ImportError, UnpicklingError) as cause:
        raise UserError(
            f"model '{name}@{tag}': its weights cannot be fetched ({first_line(cause)}); check the network, "
            f"or download them elsewhere and use --model {name} --weights FILE"
        ) from cause
    due = model.state_dict()
    # Checkpoints may hold second classifiers for training; what the model lacks is not needed.
    fit = {key: value for key, value in state.items() if key in due and value.shape == due[key].shape}
    other = [key for key in due if key not in fit]
    heads = [key for key in other if key in state and state[key].shape[1:] == due[key].shape[1:]]
    if other != heads or len(heads) > 2:
        raise UserError(f"model '{name}@{tag}': its published weights do not fit: {', '.join(other[:3])}")
    model.load_state_dict(fit, strict=False)
