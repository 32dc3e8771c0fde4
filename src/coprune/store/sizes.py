"""The sizes that layers have after surgery, and whether they are those of the tensors that are to come.

Shapes: those of the layers' own parameters and buffers, see the layers of PyTorch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from coprune.errors import UserError, shown
from coprune.groups.attention import attention_family, channels_of, head_counts, relative, set_count
from coprune.layers import (
    COUNTED,
    attribute_of,
    channel_count,
    has_channels,
    is_convolution,
    is_dense,
    is_gpt2_linear,
    is_recurrent,
    is_transposed,
    norm_of,
    set_size,
    size_attributes,
)
from coprune.store.state_dict import check_weights, numbers_of

_Positive = Annotated[int, Field(ge=1, lt=2**31, strict=True)]

Size = _Positive | tuple[_Positive, ...]
"""A layer norm's is a tuple."""


def layer_sizes(model: nn.Module) -> dict[str, dict[str, Size]]:
    """Module name → the size attributes it has, for every layer with weights and every attention."""
    sizes: dict[str, dict[str, Size]] = {}
    attributes = size_attributes()
    for name, module in model.named_modules():
        named = ("input_size", "hidden_size") if is_recurrent(module) else attributes
        own = {a: getattr(module, a, None) for a in named if has_channels(module)}
        sizes[name] = {a: size for a, size in own.items() if isinstance(size, int | tuple)}
        sizes[name] |= {a: int(attribute_of(module, a)) for a in vars(module).get(COUNTED, ())}
        family = attention_family(name, module)
        sizes[name] |= head_counts(family, module) if family else {}
    return {name: found for name, found in sizes.items() if found}


def resize(
    model: nn.Module, layers: Mapping[str, Mapping[str, Size]], tensors: Mapping[str, Tensor], *, where: Path
) -> None:
    """Give layers the sizes, and (uninitialised) weights of the shapes and types, of a pruned model.

    Args:
        model: full size; changed in place.
        layers: module name → size attributes.
        tensors: the weights to come; only their shapes and types are used.
        where: the file that they are in.

    Raises:
        UserError: a layer or a size that this model does not have, weights of another kind of numbers, or
            sizes that are not those of the weights.
    """
    modules = dict(model.named_modules())
    full = layer_sizes(model)
    before = {name: channels_of(module, "output") for name, module in modules.items()}
    for name, sizes in layers.items():
        if name not in modules:
            raise UserError(f"{where.parent}: layer '{shown(name)}' is not in this {type(model).__name__}")
        for attribute, value in sizes.items():
            was = full.get(name, {}).get(attribute)
            counts = attribute_of(modules[name], attribute)
            if was is None and type(counts) is int and type(value) is int and 0 < value <= counts:
                set_size(modules[name], attribute, value)
                continue
            if was is None or isinstance(was, tuple) != isinstance(value, tuple):
                said = f"{shown(attribute)} = {shown(value)}"
                raise UserError(f"{where.parent}: layer '{name}' has no size {said}; restore model.json")
            set_count(modules[name], attribute, value)
    for name, module in modules.items():
        given = tensors.get(f"{name}.bias")
        # A recovery gives layers a bias that had none (coprune.recovery.mean_bias).
        if given is not None and (is_dense(module) or is_gpt2_linear(module)) and module.bias is None:
            weight = module.get_parameter("weight")
            module.bias = nn.Parameter(torch.empty(len(given), dtype=given.dtype), weight.requires_grad)
        for key, old in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            saved = tensors.get(f"{name}.{key}" if name else key)
            # What is left as it is here differs, and is refused below.
            if saved is None or numbers_of(saved) != numbers_of(old) or saved.ndim != old.ndim:
                continue
            if saved.numel() and (saved.shape != old.shape or saved.dtype != old.dtype):
                fresh = torch.empty(saved.shape, dtype=saved.dtype)
                if isinstance(old, nn.Parameter):
                    fresh = nn.Parameter(fresh, requires_grad=old.requires_grad)
                setattr(module, key, fresh)
        if isinstance(module, nn.RNNBase):
            module._flat_weights = [getattr(module, key) for key in module._flat_weights_names]
    check_weights(tensors, model, where=str(where))
    rows = {n: (was, channels_of(modules[n], "output") or was) for n, was in before.items() if was}
    for name, module in modules.items():
        own = {**module._buffers, **module._parameters}
        pairs = [(key, own[key], shape) for key, shape in _due(module) if own.get(key) is not None]
        causes = [f"{k} {list(t.shape)} for {list(due)}" for k, t, due in pairs if tuple(t.shape) != due]
        if not _heads_fit(name, module, full.get(name, {}), rows):
            causes.append("its heads are not those of its projections")
        if causes:
            its = f"sizes of layer '{name}' are not those of its weights"
            raise UserError(f"{where.parent}: {its} ({causes[0]})")


def _due(module: nn.Module) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """The shapes that a layer of PyTorch has by its size attributes, parameter by parameter."""
    size: Any = module
    norm = norm_of(module)
    if is_convolution(module) or isinstance(module, nn.Linear) or is_gpt2_linear(module):
        read, made = channel_count(module, "input") or 0, channel_count(module, "output") or 0
        groups, kernel = (module.groups, module.kernel_size) if is_convolution(module) else (1, ())
        channels = (read, made // groups) if is_transposed(module) else (made, read // groups)
        fits = not (read % groups or made % groups)
        yield "weight", (*(channels if fits else (-1, -1)), *kernel)
        yield "bias", (made,)
    elif is_recurrent(module):
        hidden = {"RNN": 1, "GRU": 3}.get(type(module).__name__.removesuffix("Cell"), 4) * size.hidden_size
        ends = ("",) if isinstance(module, nn.RNNCellBase) else ("_l0", "_l0_reverse")
        yield from ((f"weight_ih{end}", (hidden, size.input_size)) for end in ends)
    elif isinstance(module, nn.Embedding):
        yield "weight", (module.num_embeddings, module.embedding_dim)
    elif norm is not None and hasattr(module, norm.count):
        count = getattr(size, norm.count)
        fits = not norm.groups or count % getattr(size, norm.groups) == 0
        shape = (count,) if isinstance(count, int) else tuple(count)
        yield from ((vector, shape if fits else (-1,)) for vector in norm.vectors)


def _heads_fit(
    name: str, module: nn.Module, full: Mapping[str, Size], rows: Mapping[str, tuple[int, int]]
) -> bool:
    """Whether what counts an attention module's heads shrank as its first projection did.

    Args:
        name: of the module.
        module: with its new sizes.
        full: its sizes before.
        rows: layer → outputs before and now.
    """
    family = attention_family(name, module)
    first = rows.get(relative(name, family.projections[0].layer)) if family and family.scaled else None
    if family is None or first is None:
        return True
    before, now = first
    counts = ((count, full[a]) for a, count in head_counts(family, module).items())
    return all(count * before == was * now and count > 0 for count, was in counts if isinstance(was, int))
