"""CAHP as a whole: one head a cluster, the most salient one, and no layer without heads."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from coprune.clustering.assignment import Clustering
from coprune.errors import UserError
from coprune.groups import ChannelGroup
from coprune.methods.cahp import CAHP, CAHPSettings
from coprune.methods.cahp.method import HeadClusters, cluster_heads
from coprune.plan import Knee, Member
from coprune.statistics import Calibration, Profile, collect
from tiny_heads import CLASSES, bert, bert_groups, sentences

KNEE = Knee(k=3, rule="by hand")


def layers(*sizes):
    members = (Member(layer="v", role="producer", span=8), Member(layer="out", role="consumer", span=8))
    return tuple(ChannelGroup(f"layer{i}", n, members, kind="heads") for i, n in enumerate(sizes))


def by_hand(labels, medoids, salience, *sizes):
    """A choice with one given clustering, at k = 2 or 3."""
    heads = len(labels)
    clustering = Clustering(np.array(medoids), np.array(labels), 0.0)
    distance = (torch.arange(heads).unsqueeze(0) - torch.arange(heads).unsqueeze(1)).abs().double()
    return HeadClusters(
        groups=layers(*sizes),
        distance=distance,
        position=torch.zeros(heads, 2, dtype=torch.float64),
        clusterings=[clustering, clustering],
        curve=((2, 0.5), (3, 0.8)),
        knee=KNEE,
        salience=None if salience is None else torch.tensor(salience, dtype=torch.float64),
    )


def test_the_most_salient_head_of_each_cluster_stays():
    choice = by_hand([0, 1, 0, 1, 0, 1], [0, 3], [0.1, 0.4, 0.9, 0.2, 0.3, 0.8], 3, 3)
    first, second = choice.keep(2, why="asked")
    assert (first.kept, second.kept) == ((2,), (2,))
    assert (first.clusters, second.clusters) == ((0, 1, 0), (1, 0, 1))
    assert (first.medoids, second.medoids) == ((0,), (0,))
    assert first.score == (0.1, 0.4, 0.9)
    assert first.reason == (
        "1 of 3 here: the most salient head of each of 2 clusters of the 6 heads of all layers; asked"
    )
    assert first.knee == second.knee == KNEE
    assert first.curve == second.curve


def test_an_emptied_layer_gets_its_most_salient_head_back():
    # The best of both clusters is in the first layer; the second and third would lose everything.
    choice = by_hand([0, 1, 0, 1, 0, 1], [0, 3], [0.9, 0.8, 0.1, 0.2, 0.3, 0.3], 2, 2, 2)
    first, second, third = choice.keep(2, why="asked")
    assert (first.kept, second.kept, third.kept) == ((0, 1), (1,), (0,))  # of equals the first
    assert "4 stay, since 2 more keep a layer from losing all its heads" in first.reason
    assert "its most salient head" in third.reason
    assert "keeps its" not in first.reason


def test_without_salience_the_medoids_stay_and_an_emptied_layer_keeps_its_most_central_head():
    choice = by_hand([0, 0, 0, 1, 1, 1], [0, 1], None, 2, 2, 2)
    first, second, third = choice.keep(2, why="asked")
    # Distances to the own medoid: heads 2 and 3 are 2 away, 4 is 3 away, 5 is 4 away.
    assert (first.kept, second.kept, third.kept) == ((0, 1), (0,), (0,))
    assert "the medoid of each of 2 clusters" in first.reason
    assert first.score == ()


@pytest.fixture(scope="module")
def profile():
    model = bert(layers=3)
    groups = bert_groups(model)
    tensors = collect(
        Calibration(model, groups, sentences(60, longest=8), CLASSES), CAHP.needs(CAHPSettings(grid=4))
    )
    return Profile(groups, tensors)


@pytest.mark.parametrize("space", ["tsne", "full"])
@pytest.mark.parametrize("mss", ["paper", "nearest"])
def test_every_number_of_heads_can_be_asked_for(profile, space, mss):
    settings = CAHPSettings(grid=4, space=space, mss=mss)
    choice = CAHP.choose(profile, settings, 0)
    assert [g.kind for g in choice.groups] == ["heads"] * 3  # neurons are passed over
    assert [k for k, _ in choice.curve] == list(range(2, 12))
    assert 2 <= choice.knee.k <= 12
    assert "degree 6" in choice.knee.rule
    for k in range(1, 13):
        decisions = choice.keep(k, why="test")
        kept = sum(len(d.kept) for d in decisions)
        helped = sum("keeps its most salient head" in d.reason for d in decisions)
        assert kept == k + helped
        assert all(1 <= len(d.kept) <= d.size for d in decisions)
        assert {c for d in decisions for c in d.clusters} == set(range(k))
        assert sum(len(d.medoids) for d in decisions) == k
        assert all(len(d.position) == d.size == len(d.score) for d in decisions)
        by_cluster = {}
        for d in decisions:
            for cluster, score in zip(d.clusters, d.score, strict=True):
                by_cluster.setdefault(cluster, []).append(score)
        best = {(cluster, max(scores)) for cluster, scores in by_cluster.items()}
        assert best <= {(d.clusters[u], d.score[u]) for d in decisions for u in d.kept}
    assert [d.kept for d in choice.keep(12, why="")] == [(0, 1, 2, 3)] * 3


def test_salience_is_normalised_over_all_layers(profile):
    scores = [s for d in CAHP.choose(profile, CAHPSettings(grid=4), 0).keep(3, why="") for s in d.score]
    assert (min(scores), max(scores)) == (0, 1)


def test_the_same_seed_gives_the_same_choice(profile):
    torch.manual_seed(1)
    first = CAHP.choose(profile, CAHPSettings(grid=4), 7)
    torch.manual_seed(2)
    again = CAHP.choose(profile, CAHPSettings(grid=4), 7)
    other = CAHP.choose(profile, CAHPSettings(grid=4), 8)
    assert first.keep(5, why="") == again.keep(5, why="")
    assert first.knee == again.knee
    assert first.keep(5, why="")[0].position != other.keep(5, why="")[0].position


KEY = "head_signatures-grid4"


def with_kinds(profile, kinds):
    """A profile whose twelve heads are copies of the first layer's four, by number."""
    groups = tuple(g for g in profile.groups if g.kind == "heads")
    one = {p: profile.tensors[KEY][f"{groups[0].name}/{p}"] for p in ("mean", "m2")}
    parts = list(zip(groups, torch.as_tensor(kinds).split(4), strict=True))
    tensors = {f"{g.name}/{p}": one[p][:, part] for g, part in parts for p in one}
    tensors |= {f"{g.name}/count": profile.tensors[KEY][f"{g.name}/count"] for g in groups}
    return Profile(groups, {**profile.tensors, KEY: tensors})


@pytest.mark.parametrize("kinds", [2, 3, 4])
def test_the_curve_stops_once_every_head_lies_on_a_medoid(profile, kinds):
    choice = CAHP.choose(
        with_kinds(profile, [i % kinds for i in range(12)]), CAHPSettings(grid=4, space="full"), 0
    )
    assert [k for k, _ in choice.curve] == list(range(2, kinds + 1))
    assert choice.curve[-1] == (kinds, 1.0)
    assert choice.knee.k <= kinds
    # More can be asked for all the same.
    for k in (5, 9, 11):
        assert sum(len(d.kept) for d in choice.keep(k, why="")) >= k


@given(seed=st.integers(0, 10_000))
def test_a_duplicate_is_not_kept_while_a_distinct_head_goes(profile, seed):
    draw = torch.Generator().manual_seed(seed)
    kinds = torch.cat([torch.arange(4), torch.randint(0, 4, (8,), generator=draw)])
    kinds = kinds[torch.randperm(12, generator=draw)]
    alike = with_kinds(profile, kinds)
    salience = torch.rand(12, generator=draw, dtype=torch.float64)
    settings = CAHPSettings(grid=4, space="full")
    choice = cluster_heads(alike, alike.groups, settings, seed=0, salience=salience)
    kept = [4 * i + u for i, d in enumerate(choice.keep(4, why="")) for u in d.kept]
    assert set(kinds[kept].tolist()) == {0, 1, 2, 3}


def test_a_model_without_heads_is_refused():
    group = ChannelGroup("conv", 4, (Member(layer="conv", role="producer"),), "inner")
    with pytest.raises(UserError, match="attention heads"):
        CAHP.choose(Profile((group,), {}), CAHPSettings(), 0)


def test_the_method_declares_what_it_reads_and_refuses_odd_settings():
    assert [s.key for s in CAHP.needs(CAHPSettings())] == ["head_signatures-grid32", "head_salience-0.25"]
    for bad in ({"grid": 0}, {"share": 0}, {"share": 1.5}, {"space": "profile"}, {"no_such": 1}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            CAHPSettings(**bad)
