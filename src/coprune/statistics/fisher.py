"""What an error of a consumer's output costs, and which positions of it can reach the prediction at all.

Shapes: ``O`` outputs of a consumer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import accumulate
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from coprune.data.sharding import OwnBatch
from coprune.data.subsample import spread_batches
from coprune.distributed.collectives import merged
from coprune.distributed.world import own
from coprune.errors import UserError, first_line, is_out_of_memory, setting
from coprune.groups import ChannelGroup
from coprune.layers import channel_count, filters, is_linear, is_recurrent, with_last_states
from coprune.progress import track
from coprune.seeding import generator
from coprune.statistics.collect import Calibration, Gatherer
from coprune.statistics.moments import merge
from coprune.tasks.outputs import Outputs
from coprune.tracing.active_positions import has_tokens, learn_active_positions
from coprune.tracing.forward import Inputs, are_photographs, copied, moved, part_of, run, samples_in
from coprune.tracing.hooks import hooked
from coprune.tracing.modes import gradients

SENSITIVE = 250
"""Texts and photographs whose gradients are taken: a mean square needs fewer than a covariance, and a pass
backward is dear. Of small images all are."""

_PROBES = 16


def output_sensitivity(calibration: Calibration) -> dict[str, Tensor]:
    """Mean square gradient by every output of every consumer.

    The loss is the model's own log-likelihood of outputs drawn from what it predicts (Fisher information, not
    the empirical one), so no target counts; see :mod:`coprune.tasks.divergence`.

    Args:
        calibration: the parameters' gradients are left alone; of texts, a part of the samples is taken.

    Returns:
        ``group/layer/sensitivity`` → ``[O]``: the mean over samples and positions of a convolution; over
        samples the sum of all tokens, of which only some count. Of a layer that runs several times, the
        sum of its runs.
    """
    model = calibration.ready()
    keys = _keys(calibration.groups)
    first = moved(next(iter(calibration.source.batches(1)))[0], calibration.device)
    squares = _SquaredGradients(_apart_from_input(model, keys, first))
    drawing, task = _Drawing(calibration.backward), calibration.task
    with hooked(model, {name: partial(squares.watch, name) for name in keys}):
        cheap = isinstance(first, Tensor) and not are_photographs(first)
        for batch in _passed(calibration, cheap=cheap):
            squares.start_batch(batch)
            inputs = batch.inputs
            # The loader's own tensor is not to be marked; the first layer may work in place.
            end = inputs.detach().requires_grad_() if _differentiable(inputs) else None
            with torch.enable_grad():
                outputs = task.outputs(model, copied(inputs if end is None else end))
                loss = task.divergence.drawn_loss(outputs, drawing.at(batch.start, outputs))
                # All gradients on the way to the input, and to layers that do not depend on it.
                ends = squares.roots if end is None else [get_gradient_edge(end), *squares.roots]
                try:
                    torch.autograd.grad(loss, ends, allow_unused=bool(squares.apart))
                except RuntimeError as cause:
                    if is_out_of_memory(cause):
                        raise
                    raise UserError(
                        f"{type(model).__name__} has no gradients, which the method reads: "
                        f"{first_line(cause)}; give one that reads none, {setting('method', 'magnitude')}"
                    ) from cause
    outputs_of = {name: len(filters(model.get_submodule(name))) for name in keys}
    # The model's output need not depend on a layer.
    means = {n: torch.zeros(count, dtype=torch.float64) for n, count in outputs_of.items()} | squares.means()
    return {f"{key}/sensitivity": means[name] for name, found in keys.items() for key in found}


def _passed(calibration: Calibration, *, cheap: bool) -> Iterator[OwnBatch]:
    """The batches whose gradients are taken."""
    if cheap:
        yield from calibration.batches("sensitivity", size=calibration.backward)
        return
    some = spread_batches(calibration.source, SENSITIVE, batch_size=calibration.backward)
    starts = accumulate((samples_in(inputs) for inputs in some), initial=0)
    mine = own([OwnBatch(n, *batch, None) for n, batch in enumerate(zip(starts, some, strict=False))])
    for batch in track(mine, label=f"{calibration.label}, sensitivity", total=len(mine)):
        yield batch._replace(inputs=moved(batch.inputs, calibration.device))


class _SquaredGradients(Gatherer):
    """Sums of squared gradients by the outputs of layers.

    Attributes:
        apart: layers that gradients on the way to the input pass by.
        roots: of these, where to take the gradients of this batch to.
    """

    def __init__(self, apart: set[str]) -> None:
        super().__init__()
        self.apart, self.roots = apart, list[GradientEdge]()
        self._ran = set[str]()

    def start_batch(self, batch: OwnBatch) -> None:
        """Called before every batch."""
        super().start_batch(batch)
        self._ran.clear()
        self.roots.clear()

    def watch(self, name: str, layer: nn.Module, _: Sequence[Tensor], made: Any) -> Any:
        """A hook behind a layer; of a recurrent one the hidden states stand for all gates of theirs."""
        output = _states(made)
        gates = len(filters(layer)) // output.shape[-1] if is_recurrent(layer) else 1
        axis = output.ndim - 1 if is_linear(layer) else 1
        # An error of a layer that runs several times is made, and costs, in all of its runs.
        first = name not in self._ran
        self._ran.add(name)
        samples = self._samples
        tokens = has_tokens(layer, output, samples=samples)

        def add(gradient: Tensor) -> None:
            rows = gradient.movedim(axis, -1).flatten(0, -2)
            total = rows.square().sum(0, dtype=torch.float64)
            if gates > 1:
                hidden = channel_count(layer, "output") or 1
                total = total.view(-1, 1, hidden).expand(-1, gates, -1).flatten()
            count = (samples if tokens else len(rows)) if first else 0
            self._take(name, {"sum": total, "count": total.new_tensor(count)})

        frozen = not output.requires_grad
        if frozen:  # and no floating-point input before it; what follows may work in place
            output = output.requires_grad_().clone()
        if name in self.apart:
            self.roots.append(get_gradient_edge(output))
        # On the tensor, so that an activation that works in place afterwards does no harm.
        output.register_hook(add)
        if isinstance(made, tuple):
            return with_last_states(layer, (output, *made[1:]))
        return output if frozen else None

    def means(self) -> dict[str, Tensor]:
        """Mean squares of all processes, ``[O]`` on the CPU, by layer."""
        whole = merged(self._found, merge)
        return {name: (parts["sum"] / parts["count"]).cpu() for name, parts in whole.items()}


def _states(made: Any) -> Tensor:
    """What a layer makes; of a recurrent one, which hands back several things, the hidden states."""
    found: Tensor = made[0] if isinstance(made, tuple) else made
    return found


def _apart_from_input(model: nn.Module, names: Iterable[str], inputs: Inputs) -> set[str]:
    """Layers that gradients on the way to the input pass by: all of them where the input has none.

    Others run on a learned query or a fixed time step.
    """
    found = set(names)
    if not _differentiable(inputs):
        return found

    def note(name: str, _: nn.Module, __: object, made: Any) -> None:
        if _states(made).requires_grad:
            found.discard(name)

    # Not by torch.func.functional_call: a layer with two names keeps plain tensors (torch 2.14).
    noting = hooked(model, {name: partial(note, name) for name in names})
    with gradients(model.parameters(), False), noting, torch.enable_grad():
        run(model, copied(inputs.detach().requires_grad_()))
    return found


def _differentiable(inputs: Inputs) -> TypeGuard[Tensor]:
    """Whether there is a gradient by the input: images have one, tokens have none."""
    return isinstance(inputs, Tensor) and inputs.is_floating_point()


class _Drawing:
    """Draws outputs for every sample, the same ones whoever has the batches before."""

    def __init__(self, batch_size: int) -> None:
        self._generator = torch.Generator().manual_seed(0)
        self._size, self._drawn = batch_size, 0

    def at(self, start: int, outputs: Outputs) -> torch.Generator:
        """For a batch.

        Args:
            start: number of its first sample among all.
            outputs: of a classifier the draws of all samples before are passed over; else a batch has its
                own.
        """
        first = outputs.tensors[0]
        if len(outputs.tensors) > 1 or first.ndim != 2:
            return generator(0, "sensitivity", str(start))
        while self._drawn < start:  # other processes' batches
            count = min(self._size, start - self._drawn)
            torch.multinomial(torch.ones(count, first.shape[1]), 1, generator=self._generator)
            self._drawn += count
        self._drawn += len(first)
        return self._generator


def active_positions(calibration: Calibration) -> dict[str, list[Tensor]]:
    """Which positions of what the consumers put out can reach the logits, of layers applied to tokens.

    Args:
        calibration: read only where there are tokens; the batches are those of the common pass.

    Returns:
        ``group/layer`` → a batch's ``[B, positions]`` bool, batch by batch of this process.
    """
    model, device = calibration.ready(), calibration.device
    keys = _keys(calibration.groups)
    first, _ = next(iter(calibration.source.batches(_PROBES)))
    probes = moved(part_of(first, slice(_PROBES)), device)
    rule = learn_active_positions(model, probes, list(keys), signal=calibration.task.signal)
    found: dict[str, list[Tensor]] = {}
    if rule.patterns:
        for batch in calibration.batches("positions"):
            for name, positions in rule.of(batch.inputs).items():
                for key in keys[name]:
                    found.setdefault(key, []).append(positions)
    return found


def _keys(groups: Iterable[ChannelGroup]) -> dict[str, list[str]]:
    """Consumer → ``group/layer`` for every group that it reads."""
    keys: dict[str, list[str]] = {}
    for group in groups:
        for layer in group.channels("consumer"):
            keys.setdefault(layer, []).append(f"{group.name}/{layer}")
    return keys
