"""CoSeP as a selection method (first version: ACSP, arXiv 2505.13225, Levin & Singer).

Profile of a unit: how well it separates each pair of classes. Cluster the units of a group by their
profiles for every k, score each k by the mean simplified silhouette, take the knee, keep one unit a
cluster. Every point the paper leaves open is a setting here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from coprune.clustering.assignment import Clustering, heaviest, with_k
from coprune.clustering.distances import exact_work, profile_distances
from coprune.clustering.distances_lowrank import LARGE, sketched_distances
from coprune.clustering.embedding import classical_scaling, tsne
from coprune.clustering.kmedoids import cluster_every_k
from coprune.clustering.knee import find_knee
from coprune.clustering.silhouette import silhouette_curve
from coprune.groups import ChannelGroup
from coprune.methods.base import GroupChoice
from coprune.methods.cosep.settings import CoSePSettings
from coprune.plan import GroupDecision, Knee
from coprune.progress import track
from coprune.statistics import L1Norm, Profile
from coprune.statistics.moments import Moments


@dataclass(frozen=True)
class CoSePChoice:
    """The clusterings of one group for every k.

    Attributes:
        group: the group.
        distance: between the units in the space that was clustered, ``[U, U]``.
        weight: L1 norm of every unit, ``[U]``.
        clusterings: for k = 2 … U − 1.
        curve: mean simplified silhouette of each of them.
        knee: what the curve says.
        settings: that led here.
        distances: a note on the distances; empty when they are exact.
    """

    group: ChannelGroup
    distance: Tensor
    weight: Tensor
    clusterings: Sequence[Clustering]
    curve: tuple[tuple[int, float], ...]
    knee: Knee
    settings: CoSePSettings
    distances: str = ""

    @cached_property
    def _position(self) -> list[list[float]]:
        return classical_scaling(self.distance).tolist()

    def keep(self, k: int, *, why: str) -> GroupDecision:
        """One unit of each of ``k`` clusters."""
        clustering = with_k(self.distance.numpy(), self.clusterings, k)
        kept, chosen = clustering.medoids, "medoid"
        if self.settings.representative == "weight":
            kept, chosen = heaviest(clustering, self.weight.numpy()), "largest weight"
        same = f"clusters of units that separate the same classes{self.distances}"
        return self.group.decision(
            kept.tolist(),
            f"the {chosen} of each of {k} {same}; {why}",
            curve=self.curve,
            curve_name="mean simplified silhouette",
            knee=self.knee,
            clusters=clustering.labels.tolist(),
            medoids=clustering.medoids.tolist(),
            position=self._position,
        )


def choose_group(profile: Profile, group: ChannelGroup, settings: CoSePSettings, seed: int) -> CoSePChoice:
    """Cluster one group for every k and read its knee.

    Args:
        profile: with the moments and weights that the settings need.
        group: the group.
        settings: of the method.
        seed: of the clustering's start, and of t-SNE.
    """
    moments = profile.of(settings.moments, group)
    distance, said = _distances(moments, settings, profile.device)
    if settings.space == "tsne":
        points = tsne(distance, seed=seed)
        distance = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    clusterings = cluster_every_k(distance, seed=seed, start=settings.start)
    values = silhouette_curve(distance, clusterings, variant=settings.mss)
    knee = find_knee(
        range(2, 2 + len(values)),
        values,
        units=group.size,
        fit=settings.knee,
        degree=settings.knee_degree,
        sensitivity=settings.sensitivity,
    )
    weight, curve = profile.of(L1Norm(), group), tuple(enumerate(values, start=2))
    return CoSePChoice(group, distance, weight, clusterings, curve, knee, settings, said)


def _distances(moments: Moments, settings: CoSePSettings, device: str) -> tuple[Tensor, str]:
    """The units' distances, and a note for the plan when they are not exact."""
    eps = settings.variance_eps
    if settings.pairs == "exact" or (settings.pairs == "auto" and exact_work(moments) <= LARGE):
        return profile_distances(moments, relative_eps=eps, device=device), ""
    sketch = sketched_distances(moments, relative_eps=eps, tolerance=settings.tolerance, device=device)
    said = f", by distances that were sketched, off by at most {sketch.bound_a_pair:.2g} JM a class pair"
    return sketch.distance, said


def choose(profile: Profile, settings: CoSePSettings, seed: int) -> Sequence[GroupChoice]:
    """The clusterings of all groups."""
    groups = track(profile.groups, label="clusters", total=len(profile.groups))
    return [choose_group(profile, group, settings, seed) for group in groups]
