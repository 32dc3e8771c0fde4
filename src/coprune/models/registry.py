"""Model names, such as ``coprune:resnet20`` or ``torchvision:resnet50``, to fresh modules.

A model that was built here remembers its *source*: the name and the arguments. That is what a run
folder stores instead of code, and why loading one needs no pickle.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from coprune.errors import UserError, setting, shown
from coprune.memory import check_free
from coprune.models import small_images
from coprune.models.hubs import hub_factory
from coprune.models.names import HUBS, NETWORKS, ULTRALYTICS, ModelSource, unknown
from coprune.tracing.forward import FAILURES
from coprune.user_factory import PYTHON, user_code, user_factory

BUILD_FAILURES = (*FAILURES, OSError, ImportError)
"""What a library may raise that is asked for a network."""

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
    features_only out_indices
    output_stride replace_stride_with_dilation global_pool act_layer norm_layer pos_embed stem_type pad_type
    aux_logits transform_input init_weights zero_init_residual zero_init_last fixed_size bottleneck
    """

SHAPING = frozenset(_SHAPING.split())
"""Arguments that say what shape a network has. Others of a library's may name files, addresses or code."""


def check_arguments(source: ModelSource) -> None:
    """Refuse arguments that do more than shape a network, whatever version of a library would take them.

    Those of the project's own networks are the factory's business.

    Raises:
        UserError: names the first.
    """
    for name, value in () if source.name.startswith("coprune:") else source.arguments.items():
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
    if scheme == "coprune" and rest in NETWORKS:
        kind, sizes = NETWORKS[rest]
        return functools.partial(getattr(small_images, kind), *sizes)
    if scheme in HUBS:
        return hub_factory(scheme, rest)
    if name.startswith(ULTRALYTICS):
        from coprune.models.yolo import fresh

        return functools.partial(fresh, rest)
    if name.startswith(PYTHON):
        return user_factory(name)
    raise unknown(name)


def accepted_arguments(name: str, offered: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the offered keyword arguments that the named model's factory takes.

    The data's channels and classes are *offered* to every factory; a user's own factory may have
    fixed them and take neither.

    Raises:
        UserError: an unknown name.
    """
    factory = _factory(name)
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):  # some of C's functions do not say
        return {}
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return {k: v for k, v in offered.items() if takes_any or k in parameters}


def build(source: ModelSource) -> nn.Module:
    """Build the model that a source describes, with fresh weights, in evaluation mode.

    Raises:
        UserError: an unknown name (with near matches), a factory that cannot be imported, that
            refuses the arguments, fails, or returns something else than a module.
    """
    factory = _factory(source.name)
    if source.name.startswith(PYTHON):
        with user_code(source.name):
            model = factory(**source.arguments)
    else:
        check_arguments(source)
        _check_size(source, factory)
        try:
            model = factory(**source.arguments)
        except UserError:
            raise
        except BUILD_FAILURES as cause:
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


def _check_size(source: ModelSource, factory: Callable[..., nn.Module]) -> None:
    """Refuse a network that is larger than the memory, before any of it is made.

    Raises:
        UserError: names its largest argument.
    """
    sizes = {k: v for k, v in source.arguments.items() if isinstance(v, int) and v > LARGE}
    if not sizes:
        return
    try:
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            parameters = sum(p.numel() for p in factory(**source.arguments).parameters())
    except BUILD_FAILURES:
        return  # what refuses them says so when it is made
    name = max(sizes, key=lambda k: sizes[k])
    check_free(4 * parameters, what=setting(name, sizes[name]))


def remember(model: nn.Module, source: ModelSource) -> nn.Module:
    """Note on a model what it was built from; returns the same model."""
    model._coprune_source = source  # type: ignore[assignment]
    return model


def source_of(model: nn.Module) -> ModelSource | None:
    """What a model was built from, or None when it was not built here."""
    source = getattr(model, "_coprune_source", None)
    return source if isinstance(source, ModelSource) else None
