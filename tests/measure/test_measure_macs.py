"""Multiply-adds, parameters and live bytes, worked out by hand."""

import pytest
import torch
from torch import nn

import tiny
from coprune.measure import count_macs, count_params, layer_costs, peak_memory
from coprune.measure.memory import waiting_memory
from coprune.surgery import cut


def test_a_convolution_and_a_linear_layer_by_hand():
    net = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 784, 10))
    cost = {c.name: c for c in layer_costs(net, torch.zeros(1, 16, 28, 28))}
    assert cost["0"].macs == 9 * 16 * 16 * 784 == 1_806_336
    assert cost["0"].params == 9 * 16 * 16 + 16
    assert cost["3"].macs == 16 * 784 * 10
    assert cost["3"].params == 16 * 784 * 10 + 10
    assert cost["1"].macs == cost["1"].params == 0
    assert count_macs(net, torch.zeros(1, 16, 28, 28)) == 1_806_336 + 125_440


def test_stride_groups_and_bias():
    example = torch.zeros(1, 8, 9, 9)
    assert count_macs(nn.Conv2d(8, 6, 3, stride=2), example) == 9 * 8 * 6 * 4 * 4
    assert count_macs(nn.Conv2d(8, 8, 3, groups=8), example) == 9 * 8 * 7 * 7
    # A bias is an addition, not a multiply-add.
    assert count_macs(nn.Conv2d(8, 6, 1, bias=False), example) == count_macs(nn.Conv2d(8, 6, 1), example)


def test_batches_count_each_sample():
    net = nn.Linear(5, 4)
    assert count_macs(net, torch.zeros(1, 5)) == 20
    assert count_macs(net, torch.zeros(3, 5)) == 60


def test_resnet20_by_formula():
    # width w, 12×12: stem, six 3×3 convolutions a stage (the first of a stage reads half the channels),
    # two 1×1 skips, the classifier.
    w, pixels = 4, 144
    macs = 9 * 1 * w * pixels
    for stage, factor in enumerate((1, 2, 4)):
        out, area = w * factor, pixels // 4**stage
        into = out if stage == 0 else out // 2
        macs += 9 * out * area * (into + 5 * out)
        macs += into * out * area if stage else 0
    macs += 4 * w * 3
    assert count_macs(tiny.network("resnet20", width=w), torch.zeros(1, 1, 12, 12)) == macs


class Recurrent(nn.Module):
    """An LSTM that classifies by its last step."""

    def __init__(self, kind: str = "LSTM", **settings):
        super().__init__()
        self.r = getattr(nn, kind)(16, 32, batch_first=True, **settings)
        self.fc = nn.Linear(32, 10)

    def forward(self, x):
        return self.fc(self.r(x)[0][:, -1, :32])


@pytest.mark.parametrize(("kind", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_recurrent_layers_by_hand(kind, gates):
    # Once a bug: an LSTM is one operation of oneDNN on a CPU, of which PyTorch's counter knows nothing, so
    # that it counted 0 MACs.
    net, example = Recurrent(kind), torch.zeros(1, 20, 16)
    macs = 20 * gates * 32 * (16 + 32)
    assert count_macs(net, example) == macs + 320
    assert {c.name: c.macs for c in layer_costs(net, example)} == {"r": macs, "fc": 320}


@pytest.mark.parametrize("bias", [True, False])
def test_lstm_layers_directions_and_samples_by_hand(bias):
    net = Recurrent(num_layers=2, bidirectional=True, bias=bias)
    # The second layer reads both directions of the first.
    macs = 20 * 2 * 4 * 32 * (16 + 32 + 64 + 32)
    assert count_macs(net, torch.zeros(3, 20, 16)) == 3 * (macs + 320)


class OfTwo(nn.Module):
    def __init__(self):
        super().__init__()
        self.b = nn.Bilinear(16, 12, 8)

    def forward(self, x):
        return self.b(x, x[..., :12])


def test_a_bilinear_layer_by_hand():
    # Once a bug: a bilinear layer is one operation that PyTorch's counter does not know, and counted 0 MACs.
    x = torch.zeros(5, 16)
    assert count_macs(OfTwo(), x) == 5 * 8 * 12 * (16 + 1)
    assert {c.name: c.macs for c in layer_costs(OfTwo(), x)}["b"] == 5 * 8 * 12 * (16 + 1)


def test_shared_parameters_count_once():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    assert count_params(net) == 40
    net[1].weight = net[0].weight
    assert count_params(net) == 24


def test_counting_leaves_the_network_as_it_was():
    net = tiny.network("resnet20")
    before = tiny.state_of(net)
    net.train()
    count_macs(net, torch.zeros(1, 1, 12, 12))
    layer_costs(net, torch.zeros(1, 1, 12, 12))
    assert net.training
    assert tiny.same_state(before, tiny.state_of(net))


def test_counting_leaves_a_frozen_batch_norm_in_evaluation_mode():
    # Once a bug: train(True) on the root wakes every batch norm that the user had
    # put in evaluation mode.
    net = tiny.network("resnet20").train()
    net.bn1.eval()
    count_macs(net, torch.zeros(1, 1, 12, 12))
    assert not net.bn1.training


class InParent(nn.Module):
    """A matrix product in a module that has children: attention, functional layers."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 5)
        self.weight = nn.Parameter(torch.ones(6, 5))

    def forward(self, x):
        return torch.nn.functional.linear(self.fc(x), self.weight)


def test_layer_costs_add_up_to_the_network():
    # Once a bug: only leaves are listed, so that what a parent computes itself is in
    # count_macs but not here, nor in CostModel.full: keep_macs would be a share of something smaller.
    net, example = InParent(), torch.zeros(1, 4)
    assert count_macs(net, example) == 20 + 30
    assert sum(c.macs for c in layer_costs(net, example)) == 50


class Aliased(nn.Module):
    """A block and a layer that have a second name each, and a layer called past the block it is in."""

    def __init__(self):
        super().__init__()
        self.f = nn.Sequential(nn.Linear(4, 5), nn.Sequential(nn.Linear(5, 6), nn.ReLU()))
        self.past = nn.Sequential(nn.Linear(6, 7))
        self.again, self.layers = self.f[1], nn.ModuleList([self.f[0]])

    def forward(self, x):
        return self.past[0](self.f(x))


def test_a_module_with_two_names_costs_under_its_first():
    # Once a bug: the counter names a module by its last name, so that a layer that is registered a second
    # time was free, and the block around it had a cost below zero.
    net, example = Aliased(), torch.zeros(1, 4)
    assert {c.name: c.macs for c in layer_costs(net, example)} == {
        "f.0": 20, "f.1.0": 30, "f.1.1": 0, "past.0": 42,
    }  # fmt: skip
    assert count_macs(net, example) == 92


class Fallible(nn.Module):
    def __init__(self):
        super().__init__()
        self.fast, self.slow = nn.Linear(5, 4), nn.Linear(4, 4)
        self.weight = nn.Parameter(torch.ones(3, 4))

    def forward(self, x):
        try:
            x = self.fast(x)
        except RuntimeError:
            x = self.slow(x)
        return torch.nn.functional.linear(x, self.weight)


def test_what_follows_a_module_that_raised_is_not_its_cost():
    costs = layer_costs(Fallible(), torch.zeros(1, 4))
    assert {c.name: c.macs for c in costs} == {"": 12, "fast": 0, "slow": 16}


def test_peak_memory_of_a_chain_by_hand():
    # float32: 18 weights; 36 input pixels; conv makes 2·16 values, the ReLU 2·16 more beside them.
    net = nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.ReLU())
    assert peak_memory(net, torch.zeros(1, 1, 6, 6)) == 4 * (18 + 36 + 32 + 32)
    inplace = nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.ReLU(inplace=True))
    assert peak_memory(inplace, torch.zeros(1, 1, 6, 6)) == 4 * (18 + 36 + 32)


def test_peak_memory_is_the_worst_moment_not_the_sum():
    # 1→8→1→1→1 channels of 6×6: the worst moment is the second convolution, reading 8 maps, writing one.
    net = nn.Sequential(*(nn.Conv2d(a, b, 1, bias=False) for a, b in ((1, 8), (8, 1), (1, 1), (1, 1))))
    assert peak_memory(net, torch.zeros(1, 1, 6, 6)) == 4 * (8 + 8 + 1 + 1 + 36 + 8 * 36 + 36)


def test_memory_in_front_of_a_layer_is_what_is_alive_there():
    # The same chain: in front of the second convolution are the input and 8 maps, of the third input and one.
    net = nn.Sequential(*(nn.Conv2d(a, b, 1, bias=False) for a, b in ((1, 8), (8, 1), (1, 1), (1, 1))))
    image, ever = torch.zeros(1, 1, 6, 6), 4 * (36 + 8 * 36 + 36)
    assert waiting_memory(net, image, ["1"]) == (4 * (36 + 8 * 36), ever)
    assert waiting_memory(net, image, ["0", "2"]) == (4 * (36 + 36), ever)
    assert waiting_memory(net, image, []) == (4 * 36, ever)


def test_peak_memory_of_a_cut_network_is_smaller(traced, example):
    net, units = traced["vgg16_bn"]
    smaller = cut(net, tuple(tiny.decision(g, [0]) for g in units.groups))
    assert peak_memory(smaller, example) < peak_memory(net, example)


def test_peak_memory_counts_a_linear_layers_weights_once():
    # Once a bug: addmm reads weight.t(), a view whose storage is the weight's; every
    # storage that an operator returns is counted as new, and this one never dies.
    assert peak_memory(nn.Linear(100, 50, bias=False), torch.zeros(1, 100)) == 4 * (5000 + 100 + 50)


def test_peak_memory_counts_the_input_once():
    # Once a bug: a view of the input is not a second input.
    assert peak_memory(nn.Sequential(nn.Flatten(), nn.ReLU()), torch.zeros(1, 1, 10, 10)) == 4 * (100 + 100)


@pytest.mark.parametrize("name", ["resnet20", "flattened"])
def test_peak_memory_repeats(traced, name, example):
    net, _ = traced[name]
    assert peak_memory(net, example) == peak_memory(net, example) > 4 * count_params(net)
