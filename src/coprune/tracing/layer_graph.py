"""Where the output of every dense layer goes: into which batch norm, sum and rectifier.

Found by running the model once on a small example and noting every call, so it holds for any
network whose forward pass is plain PyTorch, traceable by torch.fx or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from coprune import layers
from coprune.errors import UserError
from coprune.layers import is_convolution, is_linear, is_recurrent, made_of
from coprune.tracing.call_trace import Call, Place, Record
from coprune.tracing.forward import Inputs, copied, part_of, run, samples_in
from coprune.tracing.hooks import hooked
from coprune.tracing.patches import fits, output_positions


@dataclass(frozen=True)
class Site:
    """One dense layer as the walk through the network meets it.

    Attributes:
        layer: module name.
        norm: the batch norm that alone reads its output, if any.
        addition: whether a sum of two whole tensors alone reads the output (behind ``norm``).
        other: where the sum's other operand is made, when that is before this layer runs: then the
            layer can make up for what is wrong with it.
        rectified: whether ReLUs alone read the result (behind ``norm`` and sum): values below 0 are
            then all the same.
        places: at how many places of one sample the layer is applied (pixels, tokens of all windows, or 1).
        runs: how often it is applied in one pass, with the same weights (ALBERT). Of one that runs more
            than once what lies behind it is not known.
    """

    layer: str
    norm: str | None = None
    addition: bool = False
    other: Place | None = None
    rectified: bool = False
    places: int = 1
    runs: int = 1


def is_dense(module: nn.Module) -> bool:
    """Whether every output channel reads every input channel, so that it can absorb a mix of them."""
    return layers.is_dense(module) or layers.is_gpt2_linear(module) or is_recurrent(module)


@torch.no_grad()
def find_sites(model: nn.Module, example: Inputs) -> tuple[Site, ...]:
    """All dense layers, in the order in which they run first.

    Layers whose weights are not theirs alone are left out: tied ones, and those that a parametrisation
    (weight norm) makes anew at every call; those that read no samples, but a table of positions; and those
    that run several times, on other numbers of places; and those with complex weights.

    Args:
        model: run in evaluation mode.
        example: one or more samples ``[N, …]``.
    """
    watched = {
        name: module
        for name, module in model.named_modules()
        if is_dense(module) or (isinstance(module, _BatchNorm) and module.running_mean is not None)
        if not any(p.is_complex() for p in module.parameters(recurse=False))
    }
    record = Record()
    outputs: dict[str, list[Tensor]] = {}

    def enter(name: str, *_: object) -> None:
        record.layer = name

    def leave(name: str, layer: nn.Module, args: Sequence[Any], output: Any) -> None:
        record.layer = None
        if not isinstance(args[0], Tensor):  # packed: without places
            return
        with record.aside():
            made = made_of(layer, args[0], output)
            if fits(layer, args[0], made):
                outputs.setdefault(name, []).append(made)

    seen = copied(example)  # which a model whose first layer works in place changes
    entered = hooked(model, {name: partial(enter, name) for name in watched}, before=True)
    with entered, hooked(model, {name: partial(leave, name) for name in watched}), record.of(model):
        run(model.eval(), seen)
    readers: dict[int, list[Call]] = {}
    own: dict[str, list[Call]] = {}
    for call in record.calls:
        for value in set(call.reads):
            readers.setdefault(value, []).append(call)
        if call.layer:
            own.setdefault(call.layer, []).append(call)
    alike = {name: found[0] for name, found in outputs.items() if len({o.shape for o in found}) == 1}
    places = _places(model, {n: output for n, output in alike.items() if is_dense(watched[n])}, example)
    once = {name for name, found in outputs.items() if len(found) == 1}
    tied = layers.tied_layers(model)
    sites = []
    for name, calls in own.items():
        if name not in places or name in tied:
            continue
        layer, runs = watched[name], len(outputs[name])
        if is_recurrent(layer):  # what it makes of its input nobody else reads
            sites.append(Site(name, places=places[name], runs=runs))
            continue
        # Padding other than by zeros is a call of its own. Any other call makes more of the weights.
        plain = ("view", "addmm") if layers.is_gpt2_linear(layer) else ("pad",)
        more = sum(call.name not in plain for call in calls) > runs
        # A parametrisation (weight norm) makes the weight anew at every call.
        if layer._parameters.get("weight") is None or more:
            continue
        # Behind a linear layer's tokens a batch norm treats every token by itself, not every channel.
        norms = once if is_convolution(layer) or alike[name].ndim == 2 else set()
        site = Site(name, places=places[name], runs=runs)
        sites.append(_followed(site, calls[-1], readers, record.places, norms) if runs == 1 else site)
    return tuple(sites)


def paired_sites(model: nn.Module, teacher: nn.Module, example: Inputs) -> list[tuple[Site, Site]]:
    """The sites of a pruned model, each beside that of the unpruned one.

    Args:
        model: pruned.
        teacher: unpruned.
        example: one or more samples ``[N, …]``.

    Raises:
        UserError: the models are not one network before and after surgery.
    """
    before = dict(teacher.named_modules())
    # Surgery elsewhere may have given tied layers weights of their own.
    tied = layers.tied_layers(teacher).keys() | layers.tied_layers(model).keys()
    theirs = [s for s in find_sites(teacher, example) if s.layer not in tied]
    # A depthwise layer that is left with one channel looks dense.
    ours = [
        s
        for s in find_sites(model, example)
        if s.layer not in tied and (s.layer not in before or is_dense(before[s.layer]))
    ]
    if [s.layer for s in ours] != [s.layer for s in theirs]:
        raise UserError("the pruned and the unpruned model are not the same network: their layers differ")
    return list(zip(ours, theirs, strict=True))


def _places(model: nn.Module, outputs: dict[str, Tensor], example: Inputs) -> dict[str, int]:
    """Layer → its places of one sample, for those whose output grows with the number of samples."""
    samples = samples_in(example)
    other = [0] if samples > 1 else [0, 0]
    heights: dict[str, int] = {}

    def note(name: str, layer: nn.Module, args: Sequence[Any], output: Any) -> None:
        heights[name] = len(made_of(layer, args[0], output))

    with hooked(model, {name: partial(note, name) for name in outputs}):
        run(model, copied(part_of(example, other)))
    found: dict[str, int] = {}
    for name, output in outputs.items():
        layer, windows = model.get_submodule(name), len(output) // samples
        follows = len(output) == windows * samples and heights[name] == windows * len(other)
        if follows and (windows == 1 or is_linear(layer)):
            found[name] = output_positions(layer, output, samples=samples)
    return found


def _followed(
    site: Site, call: Call, readers: dict[int, list[Call]], made: dict[int, Place], norms: set[str]
) -> Site:
    """A layer with where its output goes; ``norms`` are the modules that may be the batch norm behind it."""
    value = call.makes[0]
    norm = other = None
    addition = False
    reader = _only(readers.get(value, []))
    if reader and reader.name == "batch_norm" and reader.layer in norms:
        norm, value = reader.layer, reader.makes[0]
        reader = _only(readers.get(value, []))
    if reader and reader.addition and len(reader.reads) == 2:
        addition = True
        place = made.get(reader.reads[1 - reader.reads.index(value)])
        other = place if place and place[0] < call.number else None
        value = reader.makes[0]
    after = readers.get(value, [])
    rectified = bool(after) and all(c.rectifier for c in after)
    # What a rectifier does to a sum depends on both operands.
    rectified = rectified and (other is not None or not addition)
    return replace(site, norm=norm, addition=addition, other=other, rectified=rectified)


def _only(calls: list[Call]) -> Call | None:
    return calls[0] if len(calls) == 1 else None
