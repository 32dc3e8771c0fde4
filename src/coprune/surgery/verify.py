"""Verify groups of channels before they are offered: what is cut must compute what is masked.

Following channels sees which values meet, not what an unknown function does to them, nor that a width stands
in the code (``x.view(-1, 80)``). So every group is cut, on a twin in float64 with other weights, and compared
with the twin that has the same units silenced. A network that does not run in float64, because of a cast, a
constant or fake quantisation, is tried in its own precision.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from coprune.errors import UserError
from coprune.groups import ChannelGroup, Units
from coprune.models.copies import copied as copy_of
from coprune.plan import GroupDecision
from coprune.seeding import generator as seeded
from coprune.skipped import Reason, SkipCode, because
from coprune.surgery.cut import cut
from coprune.surgery.mask import masked
from coprune.tracing.forward import (
    FAILURES,
    Counts,
    Inputs,
    copied,
    counted,
    mapped,
    model_raised,
    run,
    samples_in,
    tensors_of,
)
from coprune.user_code import code_of

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3, torch.float16: 0.03, torch.bfloat16: 0.1}
"""Largest difference between masked and cut outputs, in proportion to how far outputs are apart."""

_BLIND = 1e-6
_IMAGES = 4
_NOISE = 0.1
_DRAWS = 2
_DRAWS_SIMILAR = 6
"""Where images are more similar, so that a wrong cut may show by a single unit only, the strongest."""


def sound(model: nn.Module, units: Units, example: Inputs, *, counts: Counts = counted) -> Units:
    """The units without those groups whose cut is not what it should be.

    Args:
        model: unpruned; left as it is.
        units: of it.
        example: one sample; what is tried are random ones around it, or where the model does not take those,
            some in the range of its values, or the sample itself.
        counts: takes what counts out of what the model hands back.

    Returns:
        All other groups; the producers of the refused ones are among the skipped, with the reason.
    """
    # Other heads and neurons are not tried: a family's forward pass was read for them.
    # Blocks differ in their numbers only, and what fails together is best halved together.
    candidates = [g for g in units.groups if g.kind in ("inner", "coupled") or g.tried]
    candidates.sort(key=lambda group: re.sub(r"\d+", "", group.name))
    if not candidates:
        return units
    refused = _outcome(model, candidates, example, counts)
    groups = tuple(g for g in units.groups if g.name not in refused)
    made = {layer for g in groups for layer in g.producers}
    wrong = (g for g in candidates if g.name in refused)
    left = (refused[g.name].of(layer) for g in wrong for layer in g.producers if layer not in made)
    return Units(groups, (*left, *units.skipped))


@dataclass(frozen=True)
class _Trial:
    """What is tried.

    Attributes:
        samples: what the model is run on.
        draws: how many times units are drawn.
        counts: takes what counts out of what the model hands back.
    """

    samples: Inputs
    draws: int
    counts: Counts

    @torch.no_grad()
    def outputs(self, model: nn.Module) -> list[Tensor]:
        """All that counts and is computed: no whole numbers, nothing empty."""
        output = self.counts(run(model, copied(self.samples)))  # the first layer may work in place
        return [t for t in output if t.numel() and (t.is_floating_point() or t.is_complex())]


def _outcome(
    model: nn.Module, groups: Sequence[ChannelGroup], example: Inputs, counts: Counts
) -> dict[str, Reason]:
    """Group name → what is wrong with its cut, or why it could not be verified."""
    for double, (samples, draws) in itertools.product((True, False), _samples(example)):
        trial = _Trial(samples if double else _of_types(samples, example), draws, counts)
        reason = because(SkipCode.NOT_FINITE)
        try:
            twin = _twin(model, trial, double=double)
            outputs, again = trial.outputs(twin), trial.outputs(twin)
        except FAILURES as cause:
            reason = because(SkipCode.UNVERIFIED, cause=model_raised(model, cause))
            continue
        if all(bool(torch.isfinite(output).all()) for output in outputs):
            # What differs from itself would differ from its cut too, whatever that is.
            pairs = list(zip(outputs, again, strict=False))
            if len(outputs) == len(again) and all(_same(twin, *pair) for pair in pairs):
                return _refused(twin, groups, trial)
            reason = because(SkipCode.RANDOM)
            break
    return dict.fromkeys((group.name for group in groups), reason)


def _same(model: nn.Module, output: Tensor, again: Tensor) -> bool:
    most = _tolerance(model, output) * float(output.abs().max())
    return output.shape == again.shape and float((output - again).abs().max()) <= most


def _tolerance(model: nn.Module, output: Tensor) -> float:
    """That of the coarsest numbers a model computes in."""
    used = {output.dtype, *(p.dtype for p in model.parameters())}
    return max(TOLERANCE.get(dtype, 0.0) for dtype in used) or TOLERANCE[torch.float32]


def _samples(example: Inputs) -> Iterator[tuple[Inputs, int]]:
    """What to try and how often: the most telling first, then what more models take.

    The more samples differ, the better a wrong cut shows. But a logarithm, a root or an index may take no
    values other than the example's, and only the example itself is known to lie in the model's domain.
    """
    around = _each(example, _around)
    yield around, _DRAWS
    if any(t.is_floating_point() and bool(t.min() < t.max()) for t in tensors_of(example)):
        limits = iter([(t.min(), t.max()) for t in tensors_of(example)] * _IMAGES)
        yield mapped(around, lambda t: t.clamp(*next(limits)) if t.is_floating_point() else t), _DRAWS_SIMILAR
    yield mapped(example, lambda t: t.double() if t.is_floating_point() else t), _DRAWS_SIMILAR


def _each(example: Inputs, more: Callable[[Tensor], Tensor]) -> Inputs:
    """Several samples of one; of a list, whose entries are samples, as many entries."""
    if not isinstance(example, list):
        return mapped(example, more)
    samples = [mapped(sample, lambda t: more(t.unsqueeze(0))) for sample in example]
    return [mapped(sample, itemgetter(i)) for i in range(_IMAGES) for sample in samples]


def _of_types(samples: Inputs, example: Inputs) -> Inputs:
    """Samples in the example's types of numbers."""
    types = itertools.cycle([t.dtype for t in tensors_of(example)])
    return mapped(samples, lambda t: t.to(next(types)))


def _around(example: Tensor) -> Tensor:
    """Random samples like the example, in float64; far from what it has learnt a network may be constant."""
    generator = torch.Generator().manual_seed(0)
    if not example.ndim:
        return example
    shape = (_IMAGES, *example.shape[1:])
    if not example.is_floating_point():
        # Token numbers: below the largest there is, in another order. A mask stays as it is.
        most = int(example.max()) + 1 if example.numel() else 1
        if most <= 2 or example.dtype == torch.bool:
            return example[:1].expand(shape).clone()
        return torch.randint(0, most, shape, generator=generator).to(example.dtype)
    images = torch.randn(shape, generator=generator, dtype=torch.float64)
    spread = float(example.double().std()) if example.numel() > 1 else 0.0
    return example.double() + images * spread if spread > 0 else images


@torch.no_grad()
def _twin(model: nn.Module, trial: _Trial, *, double: bool) -> nn.Module:
    """In float64 or not, with no weight at 0 and no signal that dies away, where a wrong cut would not show.

    One image has no statistics of its own, and is like what the model has seen: norms keep those they have.
    """
    twin = copy_of(model).cpu().eval()
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
    norms = norms if samples_in(trial.samples) > 1 else []
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    if norms:
        trial.outputs(twin)
    return twin.eval()


def _refused(model: nn.Module, groups: Sequence[ChannelGroup], trial: _Trial) -> dict[str, Reason]:
    """Group name → what is wrong with its cut. Halves are tried until the culprits stand alone."""
    wrong = _difference(model, groups, trial)
    if wrong is None:
        return {}
    if len(groups) == 1:
        return {groups[0].name: wrong}
    half = len(groups) // 2
    found: dict[str, Reason] = {}
    for part in (groups[:half], groups[half:]):
        found |= _refused(model, part, trial)
    if not found:
        # Each half alone is right, both together are not: one of them stays whole.
        found = dict.fromkeys((g.name for g in groups[half:]), because(SkipCode.TOGETHER, cause=wrong))
    return found


@torch.no_grad()
def _difference(model: nn.Module, groups: Sequence[ChannelGroup], trial: _Trial) -> Reason | None:
    """What is wrong when some of every group's units go; None when nothing is."""
    seen = False
    for draw in range(trial.draws):
        wrong = _wrong(model, tuple(_some(group, draw) for group in groups), trial)
        if wrong is not None and wrong.code is not SkipCode.CONSTANT:
            return wrong
        seen = seen or wrong is None
    # What little stays may be silent for all of the images; nearly all of it is not.
    return None if seen else _wrong(model, tuple(_some(group, None) for group in groups), trial)


def _wrong(model: nn.Module, decisions: tuple[GroupDecision, ...], trial: _Trial) -> Reason | None:
    """Why a cut does not compute what the mask does, or cannot be compared with it."""
    try:
        # The cut one first: where it does not run, there is nothing to compare.
        found = trial.outputs(cut(model, decisions))
        with masked(model, decisions):
            expected = trial.outputs(model)
        count = samples_in(trial.samples)
        several = count > 1 and all(len(t) == count for t in expected if t.ndim)
        # Of one sample it can only be said whether its output depends on what is cut.
        others = [t.mean(0) for t in expected] if several else trial.outputs(model)
        if not several and [t.shape for t in others] != [t.shape for t in expected]:
            others = [t.new_zeros(()) for t in expected]  # boxes, of which there are others
    except UserError as cause:
        return because(SkipCode.NOT_CUT, cause=cause)
    except FAILURES as cause:
        place = code_of(cause)  # on which line of whose code
        return because(SkipCode.CUT_FAILS, cause=model_raised(model, cause) + (f"; {place}" if place else ""))
    if [t.shape for t in found] != [t.shape for t in expected]:
        return because(SkipCode.OUTPUT_SIZE)
    if not all(bool(torch.isfinite(t).all()) for t in (*expected, *others)):
        return because(SkipCode.NOT_FINITE)
    wrong: Reason | None = because(SkipCode.CONSTANT)
    for one, due, other in zip(found, expected, others, strict=True):
        apart, size = float((one - due).abs().max()), float(due.abs().max())
        spread = float((due - other).abs().max()) if due.shape[-other.ndim :] == other.shape else size
        constant = spread <= _BLIND * size
        # Not the other way round: what is not a number is no smaller either.
        if not apart <= _tolerance(model, due) * (size if constant else spread):
            return because(SkipCode.CONSTANT if constant else SkipCode.OTHERS_CHANGE)
        wrong = wrong if constant else None
    return wrong


def _some(group: ChannelGroup, draw: int | None) -> GroupDecision:
    """A random set of units, fewer than all: groups that lost the same ones could stand for each other.

    Without a number of the draw all but one.
    """
    drawing = seeded(draw, group.name)
    count = group.size - 1 if draw is None else int(torch.randint(1, group.size, (1,), generator=drawing))
    kept = torch.randperm(group.size, generator=drawing)[:count]
    return group.decision(kept.tolist(), "tried")
