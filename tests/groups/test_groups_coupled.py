"""Coupled groups: which channels of which layers make a unit, and which groups are refused."""

import pytest
import torch

import tiny
import tiny_coupled
from coprune.errors import UserError
from coprune.groups import channel_indices, find_units
from coprune.plan import Member
from coprune.surgery import sound

IMAGE = torch.zeros(1, 1, 12, 12)


def groups(net, **options):
    units = find_units(net, IMAGE, coupled=True, **options)
    return {g.name: g for g in units.groups}, {s.layer: s.reason for s in units.skipped}


def coupled(net):
    return {n: g for n, g in groups(net)[0].items() if g.kind == "coupled"}


def test_the_streams_of_a_resnet_are_groups_beside_its_inner_ones(traced):
    net, inner = traced["resnet20"]
    found, skipped = groups(net)
    assert [g for g in found.values() if g.kind == "inner"] == list(inner.groups)
    streams = {n: g for n, g in found.items() if g.kind == "coupled"}
    assert {n: g.size for n, g in streams.items()} == {
        "conv1": 4,  # the first layer, since its stream is one that can be thinned
        "layer2.0.downsample.0": 8,
        "layer3.0.downsample.0": 16,
    }
    first = streams["conv1"]
    assert [m.layer for m in first.of_role("producer")] == ["conv1"] + [f"layer1.{b}.conv2" for b in range(3)]
    assert [m.layer for m in first.of_role("consumer")] == [
        *(f"layer1.{b}.conv1" for b in range(3)),
        "layer2.0.downsample.0",
        "layer2.0.conv1",
    ]
    assert {m.layer for m in first.of_role("carrier")} == {"bn1", *(f"layer1.{b}.bn2" for b in range(3))}
    assert skipped == {"fc": "makes the model's output"}


def test_nothing_changes_unless_coupled_groups_are_asked_for(traced):
    net, units = traced["resnet20"]
    assert find_units(net, IMAGE).groups == units.groups
    assert all(g.kind == "inner" for g in units.groups)


def test_parts_of_a_concatenation_know_their_place_in_it():
    found = coupled(tiny_coupled.Dense())
    assert list(found) == ["stem", "convs.0", "convs.1"]
    assert set(found["convs.0"].members) == {
        Member(layer="convs.0", role="producer"),
        Member(layer="norms.1", role="carrier", offset=4, width=7),
        Member(layer="norms.2", role="carrier", offset=4, width=10),
        Member(layer="convs.1", role="consumer", offset=4, width=7),
        Member(layer="fc", role="consumer", offset=4, width=10),
    }


def test_a_unit_of_a_grouped_layer_is_a_block_with_its_excitation():
    found = coupled(tiny_coupled.Grouped())
    assert found["a"].size == 4
    assert set(found["a"].members) == {
        Member(layer="a", role="producer", span=2),
        Member(layer="bn_a", role="carrier", span=2),
        Member(layer="b", role="carrier", span=2),
        Member(layer="bn_b", role="carrier", span=2),
        Member(layer="squeeze", role="consumer", span=2),
        Member(layer="excite", role="producer", span=2),
        Member(layer="c", role="consumer", span=2),
    }


def test_a_depthwise_layer_that_multiplies_channels_makes_wider_units_behind_it():
    members = {m.layer: m for m in coupled(tiny_coupled.Grouped(groups=8, multiplier=2))["a"].members}
    assert (members["a"].span, members["bn_a"].span) == (1, 1)
    assert (members["b"].span, members["c"].span) == (2, 2)


def test_a_layer_scale_and_a_layer_norm_belong_to_the_stream():
    (stream,) = coupled(tiny_coupled.Normed()).values()
    assert Member(layer="", role="carrier", parameter="scale") in stream.members
    assert Member(layer="norm", role="carrier") in stream.members
    assert {m.layer for m in stream.of_role("consumer")} == {"up", "fc"}


def test_the_groups_of_a_group_norm_are_units():
    (made,) = coupled(tiny_coupled.GroupNormed()).values()
    assert (made.name, made.size) == ("made", 4)
    assert Member(layer="norm", role="carrier", span=2) in made.members


def test_units_may_own_channels_in_any_order():
    member = Member(layer="a", role="consumer", offset=1, span=2, width=9, channels=(5, 1, 7, 3))
    assert channel_indices(member, torch.tensor([1])).tolist() == [7, 3]
    assert channel_indices(member, torch.tensor([0, 1])).tolist() == [5, 1, 7, 3]


def test_what_would_be_cut_wrongly_is_refused_with_the_reason():
    model = tiny.randomise(tiny_coupled.Strongest())
    units = sound(model, find_units(model, IMAGE, coupled=True), IMAGE)
    reasons = {s.layer: s.reason for s in units.skipped}
    assert all("mixes or orders channels" in reasons[layer] for layer in ("one", "two"))
    assert not {"one", "two"} & {m.layer for g in units.groups for m in g.members if m.role == "producer"}


def test_a_trial_leaves_the_network_as_it_is_and_refuses_only_the_culprit():
    net = tiny.randomise(tiny_coupled.Strongest())
    before = tiny.state_of(net)
    units = find_units(net, IMAGE, coupled=True)
    kept = sound(net, units, IMAGE)
    assert tiny.same_state(before, tiny.state_of(net))
    assert [g.name for g in kept.groups] == ["read"]


@pytest.mark.parametrize("name", list(tiny_coupled.networks()))
def test_what_can_be_cut_passes_the_trial(name):
    net = tiny_coupled.networks()[name]
    units = find_units(net, IMAGE, coupled=True)
    assert any(g.kind == "coupled" for g in units.groups)
    assert sound(net, units, IMAGE) == units


def test_every_layer_is_accounted_for():
    for net in tiny_coupled.networks().values():
        found, skipped = groups(net)
        made = {m.layer for g in found.values() for m in g.of_role("producer")}
        dense = {
            n
            for n, m in net.named_modules()
            if isinstance(m, torch.nn.Linear) or (isinstance(m, torch.nn.Conv2d) and m.groups == 1)
        }
        assert made | skipped.keys() == dense
        assert not made & skipped.keys()


def test_a_skipped_layer_leaves_its_whole_stream_alone():
    found, skipped = groups(tiny.network("resnet20"), skip=("layer1.1.conv2",))
    assert "conv1" not in found
    assert skipped["layer1.0.conv2"] == skipped["conv1"] == "left alone as asked (--skip)"


def test_only_the_named_layers_groups_are_offered(traced):
    net, _ = traced["resnet20"]
    found, skipped = groups(net, only=("layer2",))
    assert list(found) == ["layer2.0.downsample.0", *(f"layer2.{b}.conv1" for b in range(3))]
    assert skipped["layer1.0.conv1"] == "left alone: not among --only"
    one = find_units(net, IMAGE, only=("layer2.1.conv1",))
    assert [g.name for g in one.groups] == ["layer2.1.conv1"]


def test_an_unknown_name_in_only_is_one_line_with_a_near_one(traced):
    with pytest.raises(UserError, match=r"only=\('layer2\.1\.conv9',\): no such layer .*did you mean"):
        find_units(traced["resnet20"][0], IMAGE, only=("layer2.1.conv9",))
