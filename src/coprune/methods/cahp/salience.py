"""How much the loss hangs on a head: gradients of the loss by a gate on every head.

Every head's output is multiplied by a gate before the output projection; the gate is 1, so nothing
changes, and ``∂loss/∂gate`` is the first-order effect of removing the head. Each sample has gates of
its own, so one backward pass a batch answers two published questions:

- CAHP (arXiv 2606.19150): mean over batches of ``|∂loss/∂gate|``, the loss being the batch's mean.
- Michel, Levy & Neubig (2019, arXiv 1905.10650), *expected sensitivity*: mean over samples of
  ``|∂loss/∂gate|``, the loss being the sample's; equal to ``|Σ contextᵀ ∂loss/∂context|`` over tokens
  and channels of the head.

Shapes: ``N`` samples of a batch, ``H`` heads of a layer, ``A`` heads of all layers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coprune.data.subsample import evenly
from coprune.distributed.collectives import summed
from coprune.groups import ChannelGroup
from coprune.methods.cahp.signatures import heads_of
from coprune.plan import Member
from coprune.statistics import Calibration, Profile
from coprune.statistics.collect import Reads
from coprune.tracing.forward import Inputs, samples_in
from coprune.tracing.hooks import hooked

BATCH = 32
"""Samples of a batch. The mean over batches depends on it, so it is no matter of memory or speed."""


class Salience(NamedTuple):
    """Of the heads of a layer, ``[H]`` float64 each.

    Attributes:
        of_batches: mean over batches of the absolute gradient of the batch's mean loss.
        of_samples: mean over samples of the absolute gradient of the sample's loss.
    """

    of_batches: Tensor
    of_samples: Tensor


@dataclass(frozen=True)
class HeadSalience:
    """Gradients by the heads' gates, on evenly spread batches of 32.

    Attributes:
        share: of the batches, in (0, 1]; CAHP's quarter. At least one batch is taken.
    """

    share: float = 0.25
    reads: ClassVar[Reads] = "loss"

    @property
    def key(self) -> str:
        """Name of the statistic's file."""
        return f"head_salience-{self.share:g}"

    def collect(self, calibration: Calibration) -> dict[str, Tensor]:
        """Sums of absolute gradients; see :class:`coprune.statistics.Statistic`.

        Returns:
            ``NAME/batch`` and ``NAME/sample``, ``[H]`` float64 each, for every group of heads: sums
            over batches and over samples. ``seen``, ``[2]``: numbers of batches and samples. Sums
            and numbers of several parts of the data add up.

        Raises:
            UserError: labels outside the classes of data or model, NaN or Inf in the model's output.
        """
        groups = heads_of(calibration.groups)
        sizes = {f"{g.name}/{over}": g.size for g in groups for over in ("batch", "sample")}
        found = {name: torch.zeros(n, dtype=torch.float64) for name, n in {"seen": 2, **sizes}.items()}
        steps = calibration.source.steps(BATCH)
        # Evenly spread, since samples may be stored by length or by class.
        chosen = evenly(steps, max(1, math.ceil(self.share * steps)))
        for batch in calibration.batches("salience", size=BATCH, chosen=chosen):
            gradients = gate_gradients(calibration, groups, batch.inputs, batch.labels)
            for group, gradient in zip(groups, gradients, strict=True):
                gradient = gradient.double().cpu()
                found[f"{group.name}/batch"] += gradient.mean(0).abs()
                found[f"{group.name}/sample"] += gradient.abs().sum(0)
            found["seen"] += torch.tensor([1.0, samples_in(batch.inputs)])
        return {name: summed(part) for name, part in found.items()}

    def of_group(self, tensors: Mapping[str, Tensor], group: ChannelGroup) -> Salience:
        """Means over batches and over samples."""
        batches, samples = tensors["seen"]
        return Salience(tensors[f"{group.name}/batch"] / batches, tensors[f"{group.name}/sample"] / samples)


def gate_gradients(
    calibration: Calibration, groups: Sequence[ChannelGroup], inputs: Inputs, targets: Any
) -> list[Tensor]:
    """Derivative of every sample's loss by a gate on every head, at gate 1.

    Args:
        calibration: its model is put into evaluation mode; its task's loss counts.
        groups: of heads; their consumers are output projections. Layers that can only lose the same
            heads are one group, whose gates act in all of them.
        inputs: of ``N`` samples.
        targets: of them.

    Returns:
        ``[N, H]`` for each group, in the dtype of what the output projection reads.

    Raises:
        UserError: NaN or Inf in the model's output, labels outside its classes.
    """
    model = calibration.ready()
    gates: list[list[Tensor]] = [[] for _ in groups]
    hooks = [
        (consumer.layer, partial(_gate, consumer, group.size, placed))
        for group, placed in zip(groups, gates, strict=True)
        for consumer in group.of_role("consumer")
    ]
    with hooked(model, hooks, before=True), torch.enable_grad():
        loss = calibration.loss(model, inputs, targets)
        flat = [gate for placed in gates for gate in placed]
        found = iter(torch.autograd.grad(loss, flat, materialize_grads=True))
    # Gates of one head in several layers, in a layer that runs several times, or in several windows of
    # an image (rows of a sample follow one another) are one gate.
    n = samples_in(inputs)
    return [
        torch.stack([next(found).unflatten(0, (n, -1)).sum(1) for _ in placed]).sum(0) for placed in gates
    ]


def _gate(
    consumer: Member, heads: int, placed: list[Tensor], _: nn.Module, inputs: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """A hook that multiplies each head's channels by a new gate of each sample, and notes the gates."""
    x = inputs[0]
    gate = torch.ones(len(x), heads, dtype=x.dtype, device=x.device, requires_grad=True)
    placed.append(gate)
    channels = gate.repeat_interleave(consumer.span, 1)
    behind = x.shape[-1] - consumer.offset - channels.shape[1]
    factor = F.pad(channels, (consumer.offset, behind), value=1.0)
    return (x * factor.view(len(x), *[1] * (x.ndim - 2), -1), *inputs[1:])


def salience_of(profile: Profile, wanted: HeadSalience, groups: Sequence[ChannelGroup]) -> list[Tensor]:
    """CAHP's salience, min–max normalised over the heads of all layers; ``[H]`` a group, in [0, 1].

    All 0 when no head differs from another.
    """
    raw = torch.cat([profile.of(wanted, group).of_batches for group in groups])
    low, high = raw.min(), raw.max()
    scaled = (raw - low) / torch.where(high > low, high - low, torch.ones_like(high))
    return list(scaled.split([g.size for g in groups]))


def sensitivity_of(profile: Profile, wanted: HeadSalience, groups: Sequence[ChannelGroup]) -> list[Tensor]:
    """Expected sensitivity of Michel et al., each layer divided by its Euclidean norm; ``[H]`` a group.

    The normalisation is the paper's, after Molchanov et al. (2017).
    """
    return [F.normalize(profile.of(wanted, group).of_samples, dim=0, eps=1e-300) for group in groups]
