"""Statistics of coupled groups against figures worked out from the network's own activations."""

import pytest
import torch

import tiny
import tiny_coupled
from coprune.budget.sensitivity_curves import pruned_alone
from coprune.groups import find_units
from coprune.statistics import Calibration, ClassMoments, ConsumerCovariance, Importance, L1Norm, collect
from coprune.surgery import masked

IMAGE = torch.zeros(1, 1, 12, 12)


def gathered(net, *wanted, n=30):
    source = tiny.source(n, kind=tiny.DoubleSource)
    groups = find_units(net, IMAGE, coupled=True).groups
    net = net.double()
    return {g.name: g for g in groups}, collect(Calibration(net, groups, source, 3), wanted), source


def reads(net, layer, source):
    """What a layer reads of all samples."""
    seen = []
    handle = net.get_submodule(layer).register_forward_pre_hook(lambda m, i: seen.append(i[0].detach()))
    with torch.no_grad():
        for images, _ in source.batches(10):
            net(images)
    handle.remove()
    return torch.cat(seen)


def test_a_consumer_behind_a_concatenation_is_described_by_its_part():
    net = tiny_coupled.networks()["dense"]
    wanted = ConsumerCovariance(places=1)
    groups, found, source = gathered(net, wanted)
    consumers = wanted.of_group(found[wanted.key], groups["convs.0"])
    assert [c.layer for c in consumers] == ["convs.1", "fc"]
    fc = consumers[1]
    assert fc.channels.tolist() == [[4], [5], [6]]
    x = reads(net, "fc", source)[:, 4:7]
    torch.testing.assert_close(fc.mean, x.mean(0))
    torch.testing.assert_close(fc.covariance, torch.cov(x.T, correction=0))
    torch.testing.assert_close(fc.weight, net.fc.weight.detach()[:, 4:7])
    assert consumers[0].weight.shape == (3, 3 * 9)


def test_the_moments_of_a_stream_are_those_of_what_its_last_reader_reads():
    for at in ("producer", "consumer"):
        net, wanted = tiny_coupled.networks()["stream"], ClassMoments(grid=1, at=at)
        groups, found, source = gathered(net, wanted)
        assert groups["stem"].kind == "coupled"
        x = reads(net, "fc", source)
        _, labels = next(iter(source.batches(30)))
        mean = torch.stack([x[labels == c].mean(0) for c in range(3)])
        torch.testing.assert_close(found[wanted.key]["stem/mean"].squeeze(2), mean)


def test_the_channels_of_a_block_are_cells_of_its_unit():
    net = tiny_coupled.networks()["grouped"]
    wanted = ClassMoments(grid=1)
    groups, found, source = gathered(net, wanted)
    assert found[wanted.key]["a/mean"].shape == (3, groups["a"].size, 2)
    x = reads(net, "c", source).mean((2, 3)).view(-1, 4, 2)
    _, labels = next(iter(source.batches(30)))
    torch.testing.assert_close(found[wanted.key]["a/mean"][1], x[labels == 1].mean(0))


def test_the_magnitude_of_a_unit_counts_all_of_its_members():
    net = tiny_coupled.networks()["plain"]
    wanted, weight = Importance("magnitude"), L1Norm()
    _, found, _ = gathered(net, wanted, weight)
    stem, same, fc = (m.weight.detach().abs() for m in (net.stem, net.same, net.fc))
    made = stem.flatten(1).sum(1) + same.flatten(1).sum(1)
    read = same.sum((0, 2, 3)) + fc.sum(0)
    total = (made + read) / 4
    torch.testing.assert_close(found[wanted.key]["stem"], total / total.mean(), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(found[weight.key]["stem"], made)


def test_the_magnitude_of_a_block_is_the_sum_over_its_channels():
    net = tiny_coupled.networks()["group_normed"]
    wanted = Importance("magnitude")
    _, found, _ = gathered(net, wanted)
    made, read = net.made.weight.detach().abs(), net.read.weight.detach().abs()
    total = made.flatten(1).sum(1).view(4, 2).sum(1) + read.sum((0, 2, 3)).view(4, 2).sum(1)
    torch.testing.assert_close(
        found[wanted.key]["made"] / found[wanted.key]["made"].sum(), total / total.sum(), atol=1e-6, rtol=1e-5
    )


@pytest.mark.parametrize("name", ["dense", "stream", "flat"])
@torch.no_grad()
def test_a_group_pruned_alone_is_the_masked_network_with_other_consumers(name):
    net = tiny_coupled.networks()[name]
    wanted = ConsumerCovariance()
    groups, found, source = gathered(net, wanted)
    net = net.double()
    for group in groups.values():
        consumers = wanted.of_group(found[wanted.key], group)
        kept = torch.arange(0, group.size, 2)
        before = tiny.state_of(net)
        with pruned_alone(net, consumers, kept, group.size):
            alone = net(source.images.double())
            # Nobody reads what is gone: silencing it changes nothing.
            with masked(net, (tiny.decision(group, kept.tolist()),)):
                assert torch.allclose(net(source.images.double()), alone, atol=1e-9)
            if name == "dense":
                others = [c for c in range(10) if c not in consumers[-1].channels.flatten()]
                assert torch.equal(net.fc.weight[:, others], before["fc.weight"][:, others])
        assert tiny.same_state(before, tiny.state_of(net))
