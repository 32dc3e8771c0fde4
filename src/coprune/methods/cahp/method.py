"""CAHP as a selection method (arXiv 2606.19150, Livertovsky, Somin & Singer, IJCNN 2026).

Heads of all layers share one space, in which those are near that tell the classes apart in the same
way. Cluster them for every number of clusters, score each by the mean simplified silhouette, take the
knee, keep the most salient head of each cluster; a layer that would lose all its heads keeps one.

Shapes: ``H`` heads of a layer, ``A`` heads of all layers, in the order of the layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from coprune.clustering.assignment import Clustering, heaviest, with_k
from coprune.clustering.embedding import tsne
from coprune.clustering.kmedoids import cluster_every_k
from coprune.clustering.knee import find_knee
from coprune.clustering.silhouette import silhouette_curve
from coprune.errors import UserError
from coprune.groups import ChannelGroup
from coprune.methods.cahp.distances import head_distances
from coprune.methods.cahp.salience import HeadSalience, salience_of
from coprune.methods.cahp.settings import CAHPSettings, ClusterSettings
from coprune.methods.cahp.signatures import HeadSignatures, heads_of
from coprune.methods.joint import first_best
from coprune.plan import GroupDecision, Knee
from coprune.statistics import Profile

PERPLEXITY = 10.0
"""CAHP's, of its t-SNE."""


@dataclass(frozen=True)
class HeadClusters:
    """All heads clustered for every k, and which of a cluster stays.

    Attributes:
        groups: the layers.
        distance: between all heads in the space that was clustered, ``[A, A]``.
        position: of all heads, ``[A, 2]``.
        clusterings: for k = 2 … A − 1.
        curve: mean simplified silhouette for k = 2, 3, … up to the first k where it is 1.
        knee: what the curve says.
        salience: ``[A]``; None keeps the medoids.
    """

    groups: tuple[ChannelGroup, ...]
    distance: Tensor
    position: Tensor
    clusterings: Sequence[Clustering]
    curve: tuple[tuple[int, float], ...]
    knee: Knee
    salience: Tensor | None

    def keep(self, k: int, *, why: str) -> tuple[GroupDecision, ...]:
        """One head of each of ``k`` clusters, and one of every layer that these leave empty.

        See :class:`coprune.methods.joint.JointChoice`.
        """
        clustering = with_k(self.distance.numpy(), self.clusterings, k)
        medoids, sizes = torch.from_numpy(clustering.medoids), [group.size for group in self.groups]
        # What decides within a cluster and in an emptied layer: salience, or how central a head is.
        if self.salience is None:
            own = medoids[torch.from_numpy(clustering.labels)]
            rank = -self.distance.gather(1, own.unsqueeze(1)).squeeze(1)
            heads, of, best = medoids, "medoid", "most central"
        else:
            rank, of, best = self.salience, "most salient head", "most salient"
            heads = torch.from_numpy(heaviest(clustering, rank.numpy()))
        every = torch.arange(len(rank))
        medoid, chosen = torch.isin(every, medoids), torch.isin(every, heads)
        empty = torch.cat([(~part.any()).expand(len(part)) for part in chosen.split(sizes)])
        kept = chosen | (empty & first_best(rank.split(sizes)))
        clusters, total = int(chosen.sum()), int(kept.sum())
        said = f"the {of} of each of {clusters} clusters of the {len(rank)} heads of all layers"
        if total > clusters:
            said += f" ({total} stay, since {total - clusters} more keep a layer from losing all its heads)"
        decisions = []
        # Heads of a layer are a part of everything that spans all layers.
        for group, end in zip(self.groups, accumulate(sizes), strict=True):
            part = slice(end - group.size, end)
            here = kept[part].nonzero().flatten().tolist()
            guard = f"; none was chosen here, so the layer keeps its {best} head" if empty[part][0] else ""
            decisions.append(
                group.decision(
                    here,
                    f"{len(here)} of {group.size} here: {said}{guard}; {why}",
                    curve=self.curve,
                    curve_name="mean simplified silhouette over all layers",
                    knee=self.knee,
                    clusters=clustering.labels[part].tolist(),
                    medoids=medoid[part].nonzero().flatten().tolist(),
                    position=self.position[part].tolist(),
                    score=() if self.salience is None else self.salience[part].tolist(),
                )
            )
        return tuple(decisions)


def head_groups(profile: Profile, method: str) -> tuple[ChannelGroup, ...]:
    """The layers whose heads can be removed.

    Raises:
        UserError: there is none.
    """
    groups = heads_of(profile.groups)
    if not groups:
        raise UserError(f"method '{method}' prunes attention heads, and none can be removed from this model")
    return groups


def cluster_heads(
    profile: Profile,
    groups: tuple[ChannelGroup, ...],
    settings: ClusterSettings,
    *,
    seed: int,
    salience: Tensor | None,
) -> HeadClusters:
    """Cluster the heads of all layers for every k and read the knee.

    Args:
        profile: with the signatures.
        groups: the layers.
        settings: how to cluster.
        seed: of t-SNE.
        salience: ``[A]``; None keeps medoids.
    """
    wanted = HeadSignatures(settings.grid)
    distance = head_distances([profile.of(wanted, g) for g in groups])
    position = tsne(distance, seed=seed, perplexity=PERPLEXITY)
    if settings.space == "tsne":
        distance = torch.cdist(position, position, compute_mode="donot_use_mm_for_euclid_dist")
    clusterings = cluster_every_k(distance, seed=seed, start="previous")
    values = silhouette_curve(distance, clusterings, variant=settings.mss)
    if 1 in values:
        # Every head lies on its medoid: more clusters only part what is the same.
        values = values[: values.index(1) + 1]
    sizes, degree = range(2, 2 + len(values)), settings.knee_degree
    knee = find_knee(sizes, values, units=len(distance), fit="polynomial", degree=degree)
    if knee.fallback and values and values[-1] == 1:
        # No more than so many heads differ, which says more than a fallback for odd curves does.
        said = "no knee found; from here on every head lies on a medoid"
        knee = knee.model_copy(update={"k": len(values) + 1, "fallback": said})
    curve = tuple(enumerate(values, start=2))
    return HeadClusters(groups, distance, position, clusterings, curve, knee, salience)


def choose(profile: Profile, settings: CAHPSettings, seed: int) -> HeadClusters:
    """All heads clustered; of a cluster the most salient stays."""
    groups = head_groups(profile, "cahp")
    salience = torch.cat(salience_of(profile, HeadSalience(settings.share), groups))
    return cluster_heads(profile, groups, settings, seed=seed, salience=salience)
