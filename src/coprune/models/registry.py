"""Model names, such as ``coprune:resnet20``, ``torchvision:resnet50`` or ``hf:DIR``, to fresh modules.

A model that was built here remembers its *source*: the name and the arguments. That is what a run
folder stores instead of code, and why loading one needs no pickle.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from coprune.errors import UserError, near_matches, setting, shown
from coprune.memory import check_free
from coprune.models.densenet import SmallImageDenseNet
from coprune.models.hubs import LIBRARIES, library_factory
from coprune.models.mobilenet import SmallImageMobileNetV2
from coprune.models.own import SCHEME, own_code, own_object
from coprune.models.resnet import SmallImageResNet
from coprune.models.vgg import SmallImageVGG
from coprune.tracing.forward import FAILURES

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


_SHAPING = """
    num_classes num_labels in_channels in_chans in_size img_size image_size patch_size spatial_size
    width widths width_mult width_factor widen_factor width_per_group base_width embed_dim embed_dims dim dims
    hidden_dim hidden_size hidden_sizes num_features stem_width stem_chs stem_size channels layers
    init_block_channels final_block_channels num_init_features growth_rate bn_size cardinality groups
    depth depths depth_mult num_layers num_blocks num_heads heads head_dim mlp_ratio mlp_ratios mlp_dim
    expand_ratio window_size window_sizes kernel_size kernel_sizes representation_size head_hidden_size
    qkv_bias qk_norm class_token reg_tokens no_embed_class dynamic_img_size init_values layer_scale
    drop_rate drop_path_rate proj_drop_rate attn_drop_rate pos_drop_rate patch_drop_rate
    dropout dropout_rate attention_dropout stochastic_depth_prob
    output_stride replace_stride_with_dilation global_pool act_layer norm_layer pos_embed stem_type pad_type
    aux_logits transform_input init_weights zero_init_residual zero_init_last fixed_size bottleneck
    """

SHAPING = frozenset(_SHAPING.split())
"""Arguments that say what shape a network has. Others of a library's may name files, addresses or code."""


def check_arguments(source: Source) -> None:
    """Refuse arguments that do more than shape a network, whatever version of a library would take them.

    Those of the project's own networks and of a user's own factory are the factory's business.

    Raises:
        UserError: names the first.
    """
    if source.name.partition(":")[0] in ("coprune", "python"):
        return
    for name, value in source.arguments.items():
        if name not in SHAPING:
            raise UserError(
                f"model '{source.name}' takes no {shown(name)} here; only what shapes the network can be "
                "given, such as num_classes, img_size or depth"
            )
        if not _is_plain(value):
            raise UserError(f"model '{source.name}': {name} = {shown(value)} is no size and no plain word")


def _is_plain(value: object) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_plain(part) for part in value)
    word = isinstance(value, str) and re.fullmatch(r"\w{0,32}", value)
    return value is None or isinstance(value, int | float) or bool(word)


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
        factory = own_object(name)
        if not callable(factory):
            raise UserError(
                f"model '{name}' is no function but {shown(factory)}; give one that makes a network"
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
    try:
        parameters = inspect.signature(_factory(name)).parameters
    except (TypeError, ValueError):  # some of C's functions do not say
        return {}
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return {k: v for k, v in offered.items() if takes_any or k in parameters}


def build(source: Source) -> nn.Module:
    """Build the model that a source describes, with fresh weights, in evaluation mode.

    Raises:
        UserError: an unknown name (with near matches), a factory that cannot be imported, that
            refuses the arguments, fails, or returns something else than a module.
    """
    factory = _factory(source.name)
    check_arguments(source)
    _check_size(source, factory)
    own = source.name.startswith(SCHEME)
    try:
        with own_code(source.name) if own else nullcontext():
            model = factory(**source.arguments)
    except UserError:
        raise
    except (*FAILURES, OSError, ImportError) as cause:
        why = str(cause) or f"a {type(cause).__name__} without words"
        if isinstance(cause, (LookupError, AttributeError)):  # the key alone says little
            why = f"{type(cause).__name__}: {cause}"
        given = shown(dict(source.arguments), most=200)
        raise UserError(f"model '{source.name}' refused {given}: {shown(why, most=300)}") from cause
    if not isinstance(model, nn.Module):
        raise UserError(f"model '{source.name}' returned a {type(model).__name__}, not a torch.nn.Module")
    return remember(model.eval(), source)


LARGE = 2048
"""An argument beyond may make a network that no memory holds."""


def _check_size(source: Source, factory: Callable[..., nn.Module]) -> None:
    """Refuse a network that is larger than the memory, before any of it is made.

    Raises:
        UserError: names its largest argument.
    """
    sizes = {k: v for k, v in source.arguments.items() if isinstance(v, int) and v > LARGE}
    if not sizes or source.name.startswith(SCHEME):
        return
    try:
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            parameters = sum(p.numel() for p in factory(**source.arguments).parameters())
    except (*FAILURES, OSError, ImportError):
        return  # what refuses them says so when it is made
    name = max(sizes, key=lambda k: sizes[k])
    check_free(4 * parameters, what=setting(name, sizes[name]))


def remember(model: nn.Module, source: Source) -> nn.Module:
    """Note on a model what it was built from; returns the same model."""
    model._coprune_source = source  # type: ignore[assignment]
    return model


def source_of(model: nn.Module) -> Source | None:
    """What a model was built from, or None when it was not built here."""
    source = getattr(model, "_coprune_source", None)
    return source if isinstance(source, Source) else None
