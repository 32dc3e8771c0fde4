"""What consumers read, by plain NumPy over the same rows, and what their errors cost, sample by sample."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import tiny
from coprune.data import LoaderSource
from coprune.groups import find_units
from coprune.statistics import Calibration, ConsumerCovariance, collect
from coprune.statistics import input_covariance as consumers
from coprune.statistics.fisher import active_positions, output_sensitivity
from coprune.tracing.patches import draw_positions, draw_valid
from tiny_blocks import LastState

IMAGE = torch.zeros(1, 1, 12, 12, dtype=torch.float64)


class Forked(nn.Module):
    """Channels that two convolutions of other kernels and strides read; the one is then ReLUed in place."""

    def __init__(self):
        super().__init__()
        self.stem, self.conv = nn.Conv2d(1, 3, 3), nn.Conv2d(3, 5, 3)
        self.bn = nn.BatchNorm2d(5)
        self.wide = nn.Conv2d(5, 4, 3, 2, padding=1)
        self.point = nn.Conv2d(5, 6, 1)
        self.fc = nn.Linear(10, 3)

    def forward(self, x):
        x = torch.relu(self.bn(self.conv(torch.relu(self.stem(x)))))
        a, b = F.relu(self.wide(x), inplace=True), torch.tanh(self.point(x))
        return self.fc(torch.cat([a.mean((2, 3)), b.mean((2, 3))], 1))


class Tokens(nn.Module):
    """Images stand for 12 tokens of 12 features."""

    def __init__(self):
        super().__init__()
        self.embed, self.up, self.down = nn.Linear(12, 8), nn.Linear(8, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.down(torch.relu(self.up(self.embed(x.squeeze(1))))).mean(1)


class Windows(Tokens):
    """The two halves of an image pass on their own, one sample's after the other."""

    def forward(self, x):
        halves = self.embed(x.reshape(2 * len(x), 6, 12))
        return self.down(torch.relu(self.up(halves))).reshape(len(x), 12, 3).mean(1)


class Repeated(Tokens):
    """The same two layers twice, as in ALBERT."""

    def __init__(self):
        super().__init__()
        self.down, self.head = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x):
        x = self.embed(x.squeeze(1))
        for _ in range(2):
            x = x + self.down(torch.relu(self.up(x)))
        return self.head(x.mean(1))


NETS = {
    "forked": Forked,
    "flattened": tiny.Flattened,
    "perceptron": tiny.Perceptron,
    "depthwise": tiny.Depthwise,
    "tokens": Tokens,
    "windows": Windows,
    "repeated": Repeated,
}

TOKENS = ("tokens", "windows", "repeated")
"""Applied to tokens, of which some may not count."""


def made(name):
    net = tiny.randomise(NETS[name]()).double()
    return net, find_units(net, IMAGE).groups


def samples(n=24):
    return tiny.source(n, kind=tiny.DoubleSource)


def gathered(net, groups, wanted, source=None, batch_size=7):
    return collect(Calibration(net, groups, source or samples(), 3, batch_size=batch_size), [wanted])[
        wanted.key
    ]


@torch.no_grad()
def rows_twin(net, layer, key, wanted, source):
    """What a layer reads at the drawn places, ``[N, P, D]`` as NumPy, cut out one by one."""
    seen = []
    handle = layer.register_forward_hook(lambda _, i, o: seen.append((i[0].clone(), o.clone())))
    for x, _ in source.batches(len(source)):
        net(x)
    handle.remove()
    read, out = seen[0]
    if isinstance(layer, nn.Linear):
        tokens = read.ndim > 2
        runs = [r.reshape(len(source), -1, r.shape[-1]) for r, _ in seen]
        at = draw_positions(key, samples=len(source), places=runs[0].shape[1], wanted=wanted, seed=0)
        if tokens:
            # Batch by batch, since texts are of different widths; all of these tokens count.
            every = torch.ones(runs[0].shape[:2], dtype=torch.bool)
            drawn = [
                draw_valid(f"{key}/{i}", every[i : i + 7], wanted=wanted, seed=0)
                for i in range(0, len(source), 7)
            ]
            at = torch.cat(drawn)
        return np.stack([torch.cat([r[i, at[i]] for r in runs]).numpy() for i in range(len(source))])
    pad = F.pad(read, (layer.padding[1],) * 2 + (layer.padding[0],) * 2)
    width = out.shape[-1]
    at = draw_positions(key, samples=len(read), places=out[0, 0].numel(), wanted=wanted, seed=0)
    (kh, kw), (sh, sw) = layer.kernel_size, layer.stride

    def window(i, p):
        top, left = p // width * sh, p % width * sw
        return pad[i, :, top : top + kh, left : left + kw].flatten().numpy()

    return np.stack([[window(i, p) for p in at[i].tolist()] for i in range(len(read))])


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize(("places", "each"), [(5, 0), (1000, 0), (5, 8)])
def test_mean_covariance_and_class_means_equal_numpy(name, places, each):
    net, groups = made(name)
    wanted, source = ConsumerCovariance(rows=each, places=places, classes=True), samples()
    tensors = gathered(net, groups, wanted, source)
    labels = source.labels.numpy()
    looked_at = 0
    for group in groups:
        for consumer in ConsumerCovariance().of_group(tensors, group):
            layer = net.get_submodule(consumer.layer)
            taken = max(places, math.ceil(each * consumer.weight.shape[1] / len(source)))
            rows = rows_twin(net, layer, f"{group.name}/{consumer.layer}", taken, source)
            flat = rows.reshape(-1, rows.shape[-1])
            np.testing.assert_allclose(consumer.mean, flat.mean(0), rtol=1e-9, atol=1e-9)
            np.testing.assert_allclose(
                consumer.covariance, np.cov(flat.T, bias=True).reshape(consumer.covariance.shape), atol=1e-9
            )
            means = np.stack([rows[labels == c].reshape(-1, rows.shape[-1]).mean(0) for c in range(3)])
            between = np.cov(means.T, bias=True).reshape(consumer.covariance.shape)
            np.testing.assert_allclose(consumer.between, between, atol=1e-9)
            assert torch.equal(consumer.weight, layer.weight.detach().double().flatten(1))
            looked_at += 1
    assert looked_at >= len(groups) > 0


def test_every_consumer_of_a_group_is_there():
    net, groups = made("forked")
    group = next(g for g in groups if g.name == "conv")
    found = ConsumerCovariance().of_group(gathered(net, groups, ConsumerCovariance()), group)
    assert {c.layer: tuple(c.weight.shape) for c in found} == {"wide": (4, 45), "point": (6, 5)}
    assert all(c.between is None for c in found)


@pytest.mark.parametrize("name", ["forked", "flattened"])
def test_the_size_of_a_batch_does_not_matter(name):
    net, groups = made(name)
    wanted = ConsumerCovariance(rows=0, places=4, classes=True)
    once = gathered(net, groups, wanted, batch_size=24)
    for batch_size in (1, 5, 23):
        again = gathered(net, groups, wanted, batch_size=batch_size)
        assert once.keys() == again.keys()
        for key, tensor in once.items():
            np.testing.assert_allclose(again[key], tensor, rtol=1e-9, atol=1e-9, err_msg=key)
            assert again[key].dtype == torch.float64


def test_a_class_without_samples_has_no_say():
    net, groups = made("flattened")
    x, y = next(samples().batches(24))
    there = y != 1
    source = LoaderSource([(x[there], y[there])], int(there.sum()))
    wanted = ConsumerCovariance(rows=0, places=100, classes=True)
    for group in groups:
        for consumer in ConsumerCovariance().of_group(gathered(net, groups, wanted, source), group):
            rows = rows_twin(net, net.get_submodule(consumer.layer), "any", 100, source)
            means = np.stack([rows[y[there] == c].mean((0, 1)) for c in (0, 2)])
            np.testing.assert_allclose(consumer.between, np.cov(means.T, bias=True), atol=1e-9)


@pytest.mark.parametrize("name", NETS)
def test_sensitivity_equals_the_gradients_of_single_samples(name):
    net, groups = made(name)
    source = samples()
    found = output_sensitivity(Calibration(net, groups, source, 3, batch_size=7))
    reached = active_positions(Calibration(net, groups, source, 3, batch_size=7))
    whole = name in TOKENS  # what a sample's tokens cost together; some may not count
    assert bool(reached) == whole
    generator = torch.Generator().manual_seed(0)
    drawn = []
    with torch.no_grad():
        for x, _ in source.batches(7):
            drawn.append(torch.multinomial(net(x).softmax(1), 1, generator=generator)[:, 0])
    drawn = torch.cat(drawn)
    layers = {m.layer: g.name for g in groups for m in g.of_role("consumer")}
    assert sorted(found) == sorted(f"{g}/{layer}/sensitivity" for layer, g in layers.items())
    for name, group in layers.items():
        layer = net.get_submodule(name)
        squares = []
        for i, (x, _) in enumerate(source.batches(1)):
            # What is added to the output is a leaf, whatever is done to the output afterwards.
            added = []

            def add(_, __, output, added=added):
                added.append(torch.zeros_like(output, requires_grad=True))
                return output + added[-1]

            handle = layer.register_forward_hook(add)
            loss = -net(x).log_softmax(1)[0, drawn[i]]
            handle.remove()
            axis = -1 if isinstance(layer, nn.Linear) else 1
            for gradient in torch.autograd.grad(loss, added):
                squares.append(gradient.movedim(axis, -1).flatten(0, -2).square())
        expected = torch.cat(squares).sum(0) / len(source) if whole else torch.cat(squares).mean(0)
        np.testing.assert_allclose(found[f"{group}/{name}/sensitivity"], expected, rtol=1e-8, atol=1e-14)


@pytest.mark.parametrize("words", [False, True], ids=["numbers", "words"])
@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("LSTM", {"batch_first": True}),
        ("GRU", {"bidirectional": True, "num_layers": 2}),
        ("LSTM", {"bidirectional": True, "batch_first": True}),
    ],
)
def test_the_last_state_of_a_recurrent_layer_is_that_of_its_last_step(kind, more, words):
    found = []
    for stated in (True, False):
        torch.manual_seed(0)
        net = tiny.randomise(LastState(kind, words=words, stated=stated, **more)).double().eval()
        x = torch.randint(2, 20, (12, 6)) if words else torch.randn(12, 6, 5).double()
        groups = find_units(net, x[:1], coupled=True).groups
        assert {group.name for group in groups} >= {"up.2", "rnn"}
        source = LoaderSource([(x, torch.arange(12) % 3)], 12)
        found.append(output_sensitivity(Calibration(net, groups, source, 3, batch_size=7)))
    stated, last = found
    assert stated.keys() == last.keys()
    assert "up.2/rnn/sensitivity" in stated
    assert all(float(value.sum()) > 0 for value in stated.values())
    for key, value in last.items():
        torch.testing.assert_close(stated[key], value)


def test_no_label_is_read_unless_class_means_are_asked_for():
    net, groups = made("flattened")
    x, y = next(samples().batches(24))
    once, again = (
        gathered(net, groups, ConsumerCovariance(), LoaderSource([(x, labels)], 24))
        for labels in (y, y.roll(1))
    )
    assert tiny.same_state(once, again)


def test_the_users_own_tensors_and_the_model_are_left_as_they_were():
    # Once a bug: the loader's own tensors were marked as requiring gradients.
    net, groups = made("flattened")
    batches = list(samples().batches(8))
    copies, before = [x.clone() for x, _ in batches], tiny.state_of(net)
    gathered(net, groups, ConsumerCovariance(), LoaderSource(batches, 24))
    assert [x.requires_grad for x, _ in batches] == [False] * 3
    assert all(torch.equal(x, c) for (x, _), c in zip(batches, copies, strict=True))
    assert tiny.same_state(before, tiny.state_of(net))
    assert all(p.grad is None for p in net.parameters())
    assert all(
        not m._forward_hooks and not m._forward_pre_hooks and not m._backward_hooks for m in net.modules()
    )


def test_a_first_layer_that_works_in_place():
    # Once a bug: "a leaf Variable that requires grad is being used in an in-place operation".
    class Shifted(tiny.Flattened):
        def forward(self, x):
            return super().forward(x.sub_(0.5))

    net = tiny.randomise(Shifted()).double()
    groups = find_units(net, IMAGE.clone()).groups
    plain = tiny.randomise(tiny.Flattened()).double()
    source = samples()
    shifted = LoaderSource([(x - 0.5, y) for x, y in source.batches(24)], 24)
    found, wanted = (
        output_sensitivity(Calibration(m, groups, s, 3, batch_size=24))
        for m, s in ((net, source), (plain, shifted))
    )
    for key, tensor in wanted.items():
        torch.testing.assert_close(found[key], tensor)


@pytest.mark.parametrize(("largest", "cells"), [(8192, 4), (13, 2), (12, 2), (6, 1), (1, 1)])
def test_of_a_wide_consumer_neighbouring_pixels_are_averaged(monkeypatch, largest, cells):
    net, groups = made("flattened")
    source = samples()
    whole = gathered(net, groups, ConsumerCovariance())
    monkeypatch.setattr(consumers, "LARGEST", largest)
    group = next(g for g in groups if g.name == "conv2")
    (found,) = ConsumerCovariance().of_group(gathered(net, groups, ConsumerCovariance(), source), group)
    (full,) = ConsumerCovariance().of_group(whole, group)
    assert found.weight.shape == (10, 6 * cells)
    assert found.covariance.shape == (6 * cells, 6 * cells)
    # A map that is the same at every pixel says the same through either weight.
    level = torch.arange(6.0, dtype=torch.float64)
    torch.testing.assert_close(
        found.weight @ level.repeat_interleave(cells), full.weight @ level.repeat_interleave(4)
    )
    # The statistics are those of the averages, so they follow from those of all pixels.
    average = torch.block_diag(
        *[torch.full((1, 4 // cells), cells / 4, dtype=torch.float64) for _ in range(6 * cells)]
    )
    torch.testing.assert_close(found.mean, average @ full.mean)
    torch.testing.assert_close(found.covariance, average @ full.covariance @ average.T)
    assert torch.equal(found.sensitivity, full.sensitivity)
