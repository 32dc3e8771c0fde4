"""Model names, such as ``coprune:resnet20``, ``torchvision:resnet50`` or ``hf:DIR``, to fresh modules.

A model that was built here remembers its *source*: the name and the arguments. That is what a run
folder stores instead of code, and why loading one needs no pickle.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from coprune.errors import UserError, near_matches
from coprune.forward import FAILURES
from coprune.models.densenet import SmallImageDenseNet
from coprune.models.libraries import LIBRARIES, library_factory
from coprune.models.mobilenet import SmallImageMobileNetV2
from coprune.models.resnet import SmallImageResNet
from coprune.models.vgg import SmallImageVGG

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "resnet20": functools.partial(SmallImageResNet, 3),
    "resnet56": functools.partial(SmallImageResNet, 9),
    "resnet110": functools.partial(SmallImageResNet, 18),
    "vgg16_bn": functools.partial(SmallImageVGG, 3),
    "vgg19_bn": functools.partial(SmallImageVGG, 4),
    "mobilenet_v2": SmallImageMobileNetV2,
    "densenet40": SmallImageDenseNet,
}
"""The project's own small-image networks; each takes ``in_channels``, ``num_classes``, ``width``."""


@dataclass(frozen=True)
class Source:
    """What builds a model: a name and keyword arguments (JSON values only)."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


def _factory(name: str) -> Callable[..., nn.Module]:
    scheme, _, rest = name.partition(":")
    if scheme == "coprune":
        if rest not in NETWORKS:
            known = [f"coprune:{n}" for n in NETWORKS]
            raise UserError(f"unknown model '{name}'; {near_matches(name, known)}")
        return NETWORKS[rest]
    if scheme in LIBRARIES:
        return library_factory(scheme, rest)
    if scheme == "hf":
        from coprune.models.hf import from_config

        return functools.partial(from_config, name)
    if scheme == "python":
        module_name, _, attribute = rest.partition(":")
        if not module_name or not attribute:
            raise UserError(f"model '{name}': write python:package.module:factory")
        try:
            module = importlib.import_module(module_name)
        except ImportError as cause:
            raise UserError(
                f"model '{name}': {module_name} cannot be imported ({cause}); is it on PYTHONPATH?"
            ) from cause
        factory = getattr(module, attribute, None)
        if not callable(factory):
            names = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
            raise UserError(
                f"model '{name}': {module_name} has no callable '{attribute}'; "
                f"{near_matches(attribute, names)}"
            )
        return factory
    known = [
        *(f"coprune:{n}" for n in NETWORKS),
        *(f"{library}:NAME" for library in LIBRARIES),
        "python:package.module:factory",
        "hf:DIR",
        "a run folder",
    ]
    raise UserError(f"unknown model '{name}'; {near_matches(name, known)}")


def accepted_arguments(name: str, offered: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the offered keyword arguments that the named model's factory takes.

    The data's channels and classes are *offered* to every factory; a user's own factory may have
    fixed them and take neither.
    """
    parameters = inspect.signature(_factory(name)).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return {k: v for k, v in offered.items() if takes_any or k in parameters}


def build(source: Source) -> nn.Module:
    """Build the model that a source describes, with fresh weights, in evaluation mode.

    Raises:
        UserError: an unknown name (with near matches), a factory that cannot be imported, that
            refuses the arguments, fails, or returns something else than a module.
    """
    factory = _factory(source.name)
    try:
        model = factory(**source.arguments)
    except UserError:
        raise
    except (*FAILURES, OSError, ImportError) as cause:
        why = str(cause) or f"a {type(cause).__name__} without words"
        if isinstance(cause, (LookupError, AttributeError)):  # the key alone says little
            why = f"{type(cause).__name__}: {cause}"
        raise UserError(f"model '{source.name}' refused {dict(source.arguments)}: {why}") from cause
    if not isinstance(model, nn.Module):
        raise UserError(f"model '{source.name}' returned a {type(model).__name__}, not a torch.nn.Module")
    return remember(model.eval(), source)


def remember(model: nn.Module, source: Source) -> nn.Module:
    """Note on a model what it was built from; returns the same model."""
    model._coprune_source = source  # type: ignore[assignment]
    return model


def source_of(model: nn.Module) -> Source | None:
    """What a model was built from, or None when it was not built here."""
    source = getattr(model, "_coprune_source", None)
    return source if isinstance(source, Source) else None
