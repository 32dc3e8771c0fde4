"""Verify groups of channels before they are offered: what is cut must compute what is masked.

A dependency graph sees which tensors meet, not everything that is done to them: a channel shuffle is a
reshape to it, a maximum over channels an activation, a split in two halves stays where it was. So every
group is cut, on a twin in float64 with other weights, and compared with the twin that has the same
units silenced. A network that does not run in float64, because of a cast, a constant or fake quantisation,
is tried in its own precision.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from coprune.errors import UserError
from coprune.groups import ChannelGroup, Units
from coprune.models.copies import copied
from coprune.plan import GroupDecision
from coprune.seeding import generator as seeded
from coprune.skipped import Reason, SkipCode, because
from coprune.surgery.cut import cut
from coprune.surgery.mask import masked
from coprune.tracing.forward import FAILURES, Inputs, logits_of, model_raised

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3, torch.float16: 0.03, torch.bfloat16: 0.1}
"""Largest difference between masked and cut outputs, in proportion to how far outputs are apart."""

_BLIND = 1e-6
_IMAGES = 4
_NOISE = 0.1
_DRAWS = 2
_DRAWS_SIMILAR = 6
"""Where images are more similar, so that a wrong cut may show by a single unit only, the strongest."""


def sound(model: nn.Module, units: Units, example: Inputs) -> Units:
    """The units without those groups whose cut is not what it should be.

    Args:
        model: unpruned; left as it is.
        units: of it.
        example: one sample ``[1, …]``; the images are random ones around it, or where the model
            does not take those, some in the range of its values, or the sample itself.

    Returns:
        All other groups; the producers of the refused ones are among the skipped, with the reason.
    """
    # Heads and neurons are not traced: a family's forward pass was read for them.
    # Blocks differ in their numbers only, and what fails together is best halved together.
    candidates = [g for g in units.groups if g.kind in ("inner", "coupled")]
    candidates.sort(key=lambda group: re.sub(r"\d+", "", group.name))
    if not candidates or not isinstance(example, Tensor):
        return units
    refused = _outcome(model, candidates, example)
    groups = tuple(g for g in units.groups if g.name not in refused)
    made = {layer for g in groups for layer in g.producers}
    wrong = (g for g in candidates if g.name in refused)
    left = (refused[g.name].of(layer) for g in wrong for layer in g.producers if layer not in made)
    return Units(groups, (*left, *units.skipped))


def _outcome(model: nn.Module, groups: Sequence[ChannelGroup], example: Tensor) -> dict[str, Reason]:
    """Group name → what is wrong with its cut, or why it could not be verified."""
    for double, (images, draws) in itertools.product((True, False), _images(example)):
        images = images if double else images.to(example.dtype)
        reason = because(SkipCode.NOT_FINITE)
        try:
            twin = _twin(model, images, double=double)
            output, again = _output(twin, images), _output(twin, images)
        except FAILURES as cause:
            reason = because(SkipCode.UNVERIFIED, cause=model_raised(model, cause))
            continue
        if bool(torch.isfinite(output).all()):
            # What differs from itself would differ from its cut too, whatever that is.
            if float((output - again).abs().max()) <= _tolerance(twin, output) * float(output.abs().max()):
                return _refused(twin, groups, images, draws)
            reason = because(SkipCode.RANDOM)
            break
    return dict.fromkeys((group.name for group in groups), reason)


def _tolerance(model: nn.Module, output: Tensor) -> float:
    """That of the coarsest numbers a model computes in."""
    used = {output.dtype, *(p.dtype for p in model.parameters())}
    return max(TOLERANCE.get(dtype, 0.0) for dtype in used) or TOLERANCE[torch.float32]


@torch.no_grad()
def _output(model: nn.Module, images: Tensor) -> Tensor:
    return logits_of(model, images.clone())  # the first layer may work in place


def _images(example: Tensor) -> Iterator[tuple[Tensor, int]]:
    """What to try, ``[N, …]``, and how often: the most telling first, then what more models take.

    The more images differ, the better a wrong cut shows. But a logarithm, a root or an index may take no
    values other than the example's, and only the example itself is known to lie in the model's domain.
    """
    images = _around(example)
    yield images, _DRAWS
    if example.is_floating_point():
        example = example.double()
        least, most = float(example.min()), float(example.max())
        if least < most:
            yield images.clamp(least, most), _DRAWS_SIMILAR
    yield example, _DRAWS_SIMILAR


def _around(example: Tensor) -> Tensor:
    """Random samples like the example, in float64; far from what it has learnt a network may be constant."""
    generator = torch.Generator().manual_seed(0)
    if not example.is_floating_point():
        # Token numbers: below the largest there is, in another order.
        most = int(example.max()) + 1
        return torch.randint(0, most, (_IMAGES, *example.shape[1:]), generator=generator).to(example.dtype)
    images = torch.randn((_IMAGES, *example.shape[1:]), generator=generator, dtype=torch.float64)
    spread = float(example.double().std()) if example.numel() > 1 else 0.0
    return example.double() + images * spread if spread > 0 else images


@torch.no_grad()
def _twin(model: nn.Module, images: Tensor, *, double: bool) -> nn.Module:
    """In float64 or not, with no weight at 0 and no signal that dies away, where a wrong cut would not show.

    One image has no statistics of its own, and is like what the model has seen: norms keep those they have.
    """
    twin = copied(model).cpu().eval()
    if double:
        twin = twin.double()
        for tensor in (*twin.parameters(), *twin.buffers()):
            tensor.data = tensor.data.to(torch.complex128) if tensor.is_complex() else tensor.data
    generator = torch.Generator().manual_seed(0)
    for parameter in twin.parameters():
        if not (parameter.is_floating_point() or parameter.is_complex()):
            continue
        spread = float(parameter.abs().square().mean().sqrt()) or 1.0
        noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
        parameter.add_(noise, alpha=_NOISE * spread)
    norms = [m for m in twin.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    norms = norms if len(images) > 1 else []
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    if norms:
        _output(twin, images)
    return twin.eval()


def _refused(
    model: nn.Module, groups: Sequence[ChannelGroup], images: Tensor, draws: int
) -> dict[str, Reason]:
    """Group name → what is wrong with its cut. Halves are tried until the culprits stand alone."""
    wrong = _difference(model, groups, images, draws)
    if wrong is None:
        return {}
    if len(groups) == 1:
        return {groups[0].name: wrong}
    half = len(groups) // 2
    found: dict[str, Reason] = {}
    for part in (groups[:half], groups[half:]):
        found |= _refused(model, part, images, draws)
    if not found:
        # Each half alone is right, both together are not: one of them stays whole.
        found = dict.fromkeys((g.name for g in groups[half:]), because(SkipCode.TOGETHER, cause=wrong))
    return found


@torch.no_grad()
def _difference(
    model: nn.Module, groups: Sequence[ChannelGroup], images: Tensor, draws: int
) -> Reason | None:
    """What is wrong when some of every group's units go; None when nothing is."""
    seen = False
    for draw in range(draws):
        wrong = _wrong(model, tuple(_some(group, draw) for group in groups), images)
        if wrong is not None and wrong.code is not SkipCode.CONSTANT:
            return wrong
        seen = seen or wrong is None
    # What little stays may be silent for all of the images; nearly all of it is not.
    return None if seen else _wrong(model, tuple(_some(group, None) for group in groups), images)


def _wrong(model: nn.Module, decisions: tuple[GroupDecision, ...], images: Tensor) -> Reason | None:
    """Why a cut does not compute what the mask does, or cannot be compared with it."""
    try:
        # The cut one first: where it does not run, there is nothing to compare.
        found = _output(cut(model, decisions), images)
        with masked(model, decisions):
            expected = _output(model, images)
        # Of one image it can only be said whether its output depends on what is cut.
        other = expected.mean(0) if len(images) > 1 else _output(model, images)
    except UserError as cause:
        return because(SkipCode.NOT_CUT, cause=cause)
    except FAILURES as cause:
        return because(SkipCode.CUT_FAILS, cause=model_raised(model, cause))
    if found.shape != expected.shape:
        return because(SkipCode.OUTPUT_SIZE)
    if not bool(torch.isfinite(expected).all() and torch.isfinite(other).all()):
        return because(SkipCode.NOT_FINITE)
    apart, size = float((found - expected).abs().max()), float(expected.abs().max())
    spread = float((expected - other).abs().max())
    if spread <= _BLIND * size:
        return because(SkipCode.CONSTANT)
    # Not the other way round: what is not a number is no smaller either.
    return None if apart <= _tolerance(model, expected) * spread else because(SkipCode.OTHERS_CHANGE)


def _some(group: ChannelGroup, draw: int | None) -> GroupDecision:
    """A random set of units, fewer than all: groups that lost the same ones could stand for each other.

    Without a number of the draw all but one.
    """
    drawing = seeded(draw, group.name)
    count = group.size - 1 if draw is None else int(torch.randint(1, group.size, (1,), generator=drawing))
    kept = torch.randperm(group.size, generator=drawing)[:count]
    return group.decision(kept.tolist(), "tried")
