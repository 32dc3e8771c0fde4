"""Baselines of language models that score a unit by what its consumers read of it, and by their weights.

For heads and neurons, as in their papers, and for channels, whose consumers have kernels: all positions of a
kernel count.

Shapes: ``U`` units, ``S`` values of a unit that a consumer reads.
"""

from __future__ import annotations

import torch
from torch import Tensor

from coprune.groups import ChannelGroup
from coprune.methods.base import NoSettings, Ranking
from coprune.methods.joint import JointRanking
from coprune.statistics import InputMoments, Profile


def wanda_sp(profile: Profile, settings: NoSettings, seed: int) -> list[Ranking]:
    """Wanda's score (arXiv 2306.11695) summed over a unit: ``Σ_j ‖x_j‖₂ Σ_i |W_ij|``, as FLAP's paper has it.

    All on what the unpruned network reads; the authors' code reads each layer behind the pruned ones.
    """
    return [Ranking(group, _wanda(profile, group), "weights times input norm") for group in profile.groups]


def _wanda(profile: Profile, group: ChannelGroup) -> Tensor:
    scores = (read.norm * read.weight_l1 for read in profile.of(InputMoments(), group))
    return torch.stack([score.sum(1) for score in scores]).sum(0)


def flap(profile: Profile, settings: NoSettings, seed: int) -> JointRanking:
    """FLAP (arXiv 2312.11983): variance of ``x_j`` times ``‖W_:j‖²``, standardised; one order for all layers.

    Scores of values are standardised within each layer and kind (mean 0, deviation 1); a unit's is the mean
    of its values'. The authors' code squares those of attention first, which the paper does not.
    """
    scores = tuple(standardised(_fluctuation(profile, group)).mean(1) for group in profile.groups)
    return JointRanking(profile.groups, scores, "standardised fluctuation")


def _fluctuation(profile: Profile, group: ChannelGroup) -> Tensor:
    """``[U, S]``; of several readers the sum: by values or, where they read maps of other sizes, by units."""
    parts = [read.variance * read.weight_square for read in profile.of(InputMoments(), group)]
    alike = len({part.shape for part in parts}) == 1
    return torch.stack(parts if alike else [part.mean(1, keepdim=True) for part in parts]).sum(0)


def standardised(scores: Tensor) -> Tensor:
    """With mean 0 and deviation 1; all 0 where they do not differ."""
    apart = scores - scores.mean()
    deviation = apart.square().mean().sqrt()
    return apart / deviation if deviation > 0 else apart
