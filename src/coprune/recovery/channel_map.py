"""Which output channels of every layer survived: from the decisions that cut them, or by looking."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from coprune.errors import UserError, setting
from coprune.groups import ChannelGroup, channel_indices, in_blocks, removed, removed_channels
from coprune.layers import channel_count, filters, is_linear, is_recurrent, made_of
from coprune.plan import GroupDecision, Member
from coprune.tracing.forward import Inputs, copied, part_of, run
from coprune.tracing.hooks import hooked
from coprune.tracing.layer_graph import paired_sites
from coprune.tracing.patches import draw_positions, output_positions, pick_outputs

_PLACES = 16
_ALIKE = 0.5

Share = tuple[GroupDecision, Member, Tensor]
"""A layer's part in a group that loses units, with those of its channels that go."""


def kept_outputs(teacher: nn.Module, decisions: Iterable[GroupDecision]) -> dict[str, Tensor]:
    """Layer → output channels of the unpruned layer that are still there, for layers that lost some.

    Args:
        teacher: the unpruned model.
        decisions: what was cut.
    """
    gone: dict[str, list[Tensor]] = {}
    for _, member, channels in removed_channels(decisions):
        layer = teacher.get_submodule(member.layer)
        if is_recurrent(layer) and member.role == "producer" and member.parameter is None:
            # A row of every gate and direction for a hidden unit.
            rows = in_blocks(channels, layer.hidden_size, len(filters(layer)))
            gone.setdefault(member.layer, []).append(rows)
        elif member.parameter is None and _has_rows(teacher, member):
            gone.setdefault(member.layer, []).append(channels)
    had = {layer: len(filters(teacher.get_submodule(layer))) for layer in gone}
    # What is left of all channels without those that are gone.
    return {layer: removed(torch.cat(parts), had[layer]) for layer, parts in gone.items()}


def removed_inputs(decisions: Iterable[GroupDecision]) -> dict[str, list[Share]]:
    """Layer → its shares in the groups that it reads and that lose units."""
    found: dict[str, list[Share]] = {}
    for decision, member, channels in removed_channels(decisions):
        if member.role == "consumer" and member.parameter is None:
            found.setdefault(member.layer, []).append((decision, member, channels))
    return found


def _has_rows(model: nn.Module, member: Member) -> bool:
    """Whether a layer makes or carries a group's channels with a row of its weight for each.

    An attention module has no weight, a PReLU perhaps one slope for all channels, and an embedding (of T5's
    positions, a number a head) a row for each of its entries.
    """
    layer = model.get_submodule(member.layer)
    if member.role == "consumer" or layer._parameters.get("weight") is None:
        return False
    return member.role == "producer" or channel_count(layer, "output") == len(filters(layer))


@torch.no_grad()
def matched_outputs(
    model: nn.Module, teacher: nn.Module, inputs: Inputs, groups: Sequence[ChannelGroup] = ()
) -> dict[str, Tensor]:
    """The same for a pruned model that came without a plan.

    Layer after layer, each channel is assigned to the unpruned channel it is most alike, one to one
    (Kuhn's Hungarian method): by the direction of its weights where it is known which channels it
    reads, which survives fine-tuning, else by how it varies over samples and places.

    Args:
        model: pruned.
        teacher: unpruned.
        inputs: calibration samples ``[N, …]``.
        groups: of the unpruned model, in the order of the network; they say who reads whom.

    Raises:
        UserError: the layers differ, or a channel is like none.
    """
    pairs = paired_sites(model, teacher, part_of(inputs, slice(2)))
    ours = [site.layer for site, _ in pairs if site.runs == 1]
    names = [n for n in ours if len(_weight(model, n)) < len(_weight(teacher, n))]
    small, large = _outputs(model, names, inputs), _outputs(teacher, names, inputs)
    readers = {m.layer: (g, m) for g in groups for m in g.of_role("consumer")}
    found: dict[str, Tensor] = {}
    for name in names:
        columns = None
        if name in readers:
            group, member = readers[name]
            kept = found.get(group.name, torch.arange(group.size))
            columns = channel_indices(member, kept)
        alike = _alike_weights(_weight(model, name), _weight(teacher, name), columns)
        if alike is None:
            alike = _cosines(small[name] - small[name].mean(0), large[name] - large[name].mean(0))
        rows, matched = linear_sum_assignment(alike.numpy(), maximize=True)
        weakest = float(alike.numpy()[rows, matched].min())
        if weakest < _ALIKE:
            raise UserError(
                f"layer '{name}': a channel of the pruned model is like none of the unpruned one "
                f"(cosine {weakest:.2f}); give the plan that cut it with {setting('plan')}"
            )
        found[name] = torch.from_numpy(matched)
    return found


def _alike_weights(small: Tensor, large: Tensor, columns: Tensor | None) -> Tensor | None:
    """Cosines of filters ``[K, U]``; None when it is not known which input channels are which."""
    if columns is not None and len(columns) == small.shape[1]:
        large = large[:, columns]
    elif small.shape[1] != large.shape[1]:
        return None
    rows = (w.detach().double().cpu().flatten(1).T for w in (small, large))
    return _cosines(*rows)


def _cosines(a: Tensor, b: Tensor) -> Tensor:
    """Between the columns of two matrices with as many rows."""
    return (a / a.norm(dim=0).clamp_min(1e-12)).T @ (b / b.norm(dim=0).clamp_min(1e-12))


def _weight(model: nn.Module, name: str) -> Tensor:
    return filters(model.get_submodule(name))


def _outputs(model: nn.Module, names: list[str], inputs: Inputs) -> dict[str, Tensor]:
    """Layer → what it puts out at a few places of every sample, ``[N·P, O]`` float64."""
    found: dict[str, Tensor] = {}

    def take(name: str, layer: nn.Module, args: Sequence[Tensor], output: Tensor) -> None:
        output = made_of(layer, args[0], output)
        places = output_positions(layer, output, samples=len(output))
        at = draw_positions(name, samples=len(output), places=places, wanted=_PLACES, seed=0)
        picked = pick_outputs(output, at.to(output.device), last=is_linear(layer))
        found[name] = picked.double().cpu()

    with hooked(model, {name: partial(take, name) for name in names}):
        run(model.eval(), copied(inputs))  # the first layer may work in place
    return found
