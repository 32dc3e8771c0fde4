"""What an error of a consumer's output costs, and which places of it have a say at all.

Shapes: ``O`` outputs of a consumer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from itertools import accumulate
from typing import TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from coprune.data import Source
from coprune.data.sharding import own_batches, own_steps
from coprune.data.subsample import spread_batches
from coprune.distributed.collectives import Parts, merged
from coprune.distributed.world import own
from coprune.groups import ChannelGroup
from coprune.layers import channel_count, is_linear
from coprune.progress import track
from coprune.tracing.active_positions import has_tokens, learn_reach
from coprune.tracing.forward import Inputs, copied, logits_of, moved, part_of, samples_in

SENSITIVE_TEXTS = 250
"""Texts whose gradients are taken: a mean square needs fewer than a covariance, and a backward pass is
dear. Of images all are."""

_PROBES = 16


def output_sensitivity(
    model: nn.Module,
    groups: Iterable[ChannelGroup],
    source: Source,
    *,
    batch_size: int,
    device: str,
    label: str,
) -> dict[str, Tensor]:
    """Mean square gradient by every output of every consumer.

    The loss is the model's own log-likelihood: classes are drawn from what it predicts (Fisher
    information, not the empirical one), so no label is read.

    Args:
        model: in evaluation mode; its parameters' gradients are left alone.
        groups: whose consumers to look at.
        source: calibration samples, floating-point.
        batch_size: samples of a backward pass.
        device: where to compute.
        label: of the progress bar.

    Returns:
        ``group/layer/sensitivity`` → ``[O]``: the mean over samples and places of a convolution; over
        samples the sum of all tokens, of which only some count. Of a layer that runs several times, the
        sum of its runs.
    """
    model.to(device).eval()
    keys = _keys(groups)
    sums: dict[str, Parts] = {}
    roots: list[GradientEdge] = []
    samples, ran = 0, set[str]()

    def watch(layer: nn.Module, _: Sequence[Tensor], output: Tensor, name: str) -> Tensor | None:
        axis = output.ndim - 1 if is_linear(layer) else 1
        # An error of a layer that runs several times is made, and costs, in all of its runs.
        first = name not in ran
        ran.add(name)
        tokens = has_tokens(layer, output, samples=samples)

        def add(gradient: Tensor) -> None:
            rows = gradient.movedim(axis, -1).flatten(0, -2)
            total = rows.square().sum(0, dtype=torch.float64)
            count = (samples if tokens else len(rows)) if first else 0
            part = {"sum": total, "count": total.new_tensor(count)}
            sums[name] = _added(sums[name], part) if name in sums else part

        frozen = not output.requires_grad
        if frozen:  # and no floating-point input before it; what follows may work in place
            output = output.requires_grad_().clone()
        if name in apart:
            roots.append(get_gradient_edge(output))
        # On the tensor, so that an activation that works in place afterwards does no harm.
        output.register_hook(add)
        return output if frozen else None

    first, _ = next(iter(source.batches(1)))
    apart = _apart_from_input(model, keys, moved(first, device))
    batches: Iterable[tuple[int, Inputs]] = ((b.start, b.inputs) for b in own_batches(source, batch_size))
    steps = own_steps(source, batch_size)
    if not isinstance(first, Tensor):
        texts = spread_batches(source, SENSITIVE_TEXTS, batch_size=batch_size)
        starts = accumulate((samples_in(inputs) for inputs in texts), initial=0)
        batches = own(list(zip(starts, texts, strict=False)))
        steps = len(own(texts))
    drawing = _Drawing(batch_size)
    with ExitStack() as hooks:
        for name in keys:
            layer = model.get_submodule(name)
            hooks.enter_context(layer.register_forward_hook(lambda m, i, o, name=name: watch(m, i, o, name)))
        for start, inputs in track(batches, label=label, total=steps):
            with torch.enable_grad():
                # The loader's own tensor is not to be marked; the first layer may work in place.
                x = moved(inputs, device)
                roots.clear()
                ran.clear()
                samples = samples_in(x)
                end = x.detach().requires_grad_() if _differentiable(x) else None
                x = x if end is None else end
                logits = logits_of(model, copied(x))
                drawn = drawing.classes(logits.detach().softmax(1).cpu(), start=start)
                loss = F.cross_entropy(logits, drawn.to(device), reduction="sum")
                # All gradients on the way to the input, and to layers that do not depend on it.
                ends = roots if end is None else [get_gradient_edge(end), *roots]
                torch.autograd.grad(loss, ends, allow_unused=bool(apart))
    whole = merged(sums, _added)
    means = {name: (parts["sum"] / parts["count"]).cpu() for name, parts in whole.items()}
    for name in keys.keys() - means.keys():  # the model's output does not depend on it
        count = channel_count(model.get_submodule(name), "output") or 0
        means[name] = torch.zeros(count, dtype=torch.float64)
    return {f"{key}/sensitivity": means[name] for name, found in keys.items() for key in found}


def _apart_from_input(model: nn.Module, names: Iterable[str], inputs: Inputs) -> set[str]:
    """Layers that gradients on the way to the input pass by: all of them, where it has no gradient.

    Others run on a learned query or a fixed time step.
    """
    found = set(names)
    if not _differentiable(inputs):
        return found
    trained = [p for p in model.parameters() if p.requires_grad]
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        with ExitStack() as hooks, torch.enable_grad():
            for name in names:

                def note(_: nn.Module, __: object, output: Tensor, name: str = name) -> None:
                    if output.requires_grad:
                        found.discard(name)

                hooks.enter_context(model.get_submodule(name).register_forward_hook(note))
            logits_of(model, copied(inputs.detach().requires_grad_()))
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
    return found


def _differentiable(inputs: Inputs) -> TypeGuard[Tensor]:
    """Whether there is a gradient by the input: images have one, tokens have none."""
    return isinstance(inputs, Tensor) and inputs.is_floating_point()


def _added(a: Parts, b: Parts) -> Parts:
    return {key: a[key] + b[key] for key in a}


class _Drawing:
    """Draws a class for every sample, in the order of all samples, whoever has those before."""

    def __init__(self, batch_size: int) -> None:
        self._generator = torch.Generator().manual_seed(0)
        self._size, self._drawn = batch_size, 0

    def classes(self, shares: Tensor, *, start: int) -> Tensor:
        """``[N]`` int64.

        Args:
            shares: probabilities, ``[N, C]``.
            start: number of the first sample among all.
        """
        while self._drawn < start:  # other processes' batches
            count = min(self._size, start - self._drawn)
            torch.multinomial(torch.ones(count, shares.shape[1]), 1, generator=self._generator)
            self._drawn += count
        self._drawn += len(shares)
        return torch.multinomial(shares, 1, generator=self._generator)[:, 0]


def reached_places(
    model: nn.Module, groups: Iterable[ChannelGroup], source: Source, *, batch_size: int, device: str
) -> dict[str, list[Tensor]]:
    """Which places of what the consumers put out have a say, of layers that are applied to tokens.

    Args:
        model: in evaluation mode; its parameters' gradients are left alone.
        groups: whose consumers to look at.
        source: calibration samples; read only where there are tokens.
        batch_size: as that of the pass in which the places are looked at.
        device: where to compute.

    Returns:
        ``group/layer`` → a batch's ``[B, places]`` bool, batch by batch of this process.
    """
    model.to(device).eval()
    keys = _keys(groups)
    first, _ = next(iter(source.batches(_PROBES)))
    rule = learn_reach(model, moved(part_of(first, slice(_PROBES)), device), list(keys))
    if not rule.patterns:
        return {}
    found: dict[str, list[Tensor]] = {}
    for batch in own_batches(source, batch_size):
        for name, places in rule.of(moved(batch.inputs, device)).items():
            for key in keys[name]:
                found.setdefault(key, []).append(places)
    return found


def _keys(groups: Iterable[ChannelGroup]) -> dict[str, list[str]]:
    """Consumer → ``group/layer`` for every group that it reads."""
    keys: dict[str, list[str]] = {}
    for group in groups:
        for layer in group.channels("consumer"):
            keys.setdefault(layer, []).append(f"{group.name}/{layer}")
    return keys
