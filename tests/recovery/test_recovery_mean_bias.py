"""The mean of what goes stays as a bias: by hand, in every kind of layer, and on disk."""

import copy

import pytest
import torch
from torch import nn

import coprune
import tiny
from coprune.data import LoaderSource
from coprune.errors import UserError
from coprune.groups import find_units
from coprune.recovery import Pair, find_recovery, kept_outputs
from coprune.recovery.mean_bias import add_bias
from coprune.store import save_model
from coprune.surgery import cut
from tiny_transformers import decide, inputs, output, transformer, uneven

pytest.importorskip("transformers")


def recovered(model, decisions, source):
    pruned = cut(model, decisions)
    did = find_recovery("bias").run(Pair(pruned, model, kept_outputs(model, decisions), decisions), source)
    return pruned, did


class Behind(nn.Module):
    """A line whose second layer has no bias."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = nn.Linear(3, 4), nn.Linear(4, 5, bias=False), nn.Linear(5, 3)

    def forward(self, x):
        return self.third(torch.relu(self.second(torch.relu(self.first(x)))))


def test_by_hand():
    torch.manual_seed(0)
    model, x = Behind().double().eval(), torch.randn(20, 3, dtype=torch.float64)
    groups = {g.name: g for g in find_units(model, x[:1]).groups}
    decisions = (decide(groups["second"], (0, 1, 4)),)
    pruned, did = recovered(model, decisions, LoaderSource([(x, torch.arange(20) % 3)], 20))
    read = torch.relu(model.second(torch.relu(model.first(x))))
    shift = model.third.weight[:, [2, 3]] @ read.mean(0)[[2, 3]]
    torch.testing.assert_close(pruned.third.bias.detach(), (model.third.bias + shift).detach())
    assert torch.equal(pruned.third.weight, model.third.weight[:, [0, 1, 4]])
    assert (did.ran, did.changed) == (True, True)
    # Averaged over the samples, nothing is lost in front of the next rectifier.
    torch.testing.assert_close(pruned(x).mean(0), model(x).mean(0))


class Twice(Behind):
    """Its first layer may not be pruned alone by the graph's first-layer rule, so two in front of it are."""

    def __init__(self):
        super().__init__()
        self.zeroth = nn.Linear(3, 3)

    def forward(self, x):
        return super().forward(torch.relu(self.zeroth(x)))


def test_a_layer_without_a_bias_is_given_one_for_the_outputs_it_has_left():
    torch.manual_seed(0)
    model, x = Twice().double().eval(), torch.randn(20, 3, dtype=torch.float64)
    groups = {g.name: g for g in find_units(model, x[:1]).groups}
    decisions = (decide(groups["first"], (0, 3)), decide(groups["second"], (1, 4)))
    pruned, _ = recovered(model, decisions, LoaderSource([(x, torch.arange(20) % 3)], 20))
    read = torch.relu(model.first(torch.relu(model.zeroth(x)))).mean(0)
    shift = model.second.weight[[1, 4]][:, [1, 2]] @ read[[1, 2]]
    torch.testing.assert_close(pruned.second.bias.detach(), shift.detach())
    assert pruned.second.bias.requires_grad
    assert model.second.bias is None


def test_of_a_convolution_all_positions_of_its_kernel_count():
    net = tiny.network("resnet20").double()
    source = tiny.source(24, classes=3, kind=tiny.DoubleSource)
    x, _ = next(source.batches(24))
    group = find_units(net, x[:1]).groups[0]
    pruned, _ = recovered(net, (decide(group, (0, 2, 3)),), source)
    (reader,) = group.of_role("consumer")
    read = []
    net.get_submodule(reader.layer).register_forward_pre_hook(lambda _, i: read.append(i[0].clone()))
    net(x)
    shift = net.get_submodule(reader.layer).weight[:, 1].sum((1, 2)) * read[0][:, 1].mean()
    torch.testing.assert_close(pruned.get_submodule(reader.layer).bias.detach(), shift.detach())


class Up(nn.Module):
    """A transposed convolution behind two others."""

    def __init__(self):
        super().__init__()
        self.zeroth, self.first = nn.Conv1d(1, 3, 1), nn.Conv1d(3, 4, 1)
        self.up, self.last = nn.ConvTranspose1d(4, 3, 4, stride=2), nn.Linear(3, 3)

    def read(self, x):
        return torch.relu(self.first(torch.relu(self.zeroth(x))))

    def forward(self, x):
        return self.last(self.up(self.read(x)).mean(2))


def test_of_a_transposed_convolution_the_mean_of_its_output_stays():
    torch.manual_seed(0)
    model, x = Up().double().eval(), torch.randn(20, 1, 64, dtype=torch.float64)
    group = next(g for g in find_units(model, x[:1]).groups if g.name == "first")
    pruned, _ = recovered(model, (decide(group, (0, 3)),), LoaderSource([(x, torch.arange(20) % 3)], 20))
    mean = model.read(x).mean((0, 2))[[1, 2]]
    shift = mean @ model.up.weight[[1, 2]].sum(2) / 2
    torch.testing.assert_close(pruned.up.bias.detach(), (model.up.bias + shift).detach())
    # All but the border meets half of the kernel's positions.
    inner = [m.up(m.read(x))[:, :, 4:-4].mean((0, 2)) for m in (model, pruned)]
    torch.testing.assert_close(*inner, rtol=0.1, atol=0.03)


def test_of_a_recurrent_layer_the_gates_of_both_directions_are_shifted():
    layer = nn.LSTM(4, 3, bidirectional=True)
    before = copy.deepcopy(layer)
    shift = torch.arange(24.0)
    with torch.no_grad():
        add_bias(layer, shift)
    torch.testing.assert_close(layer.bias_ih_l0, before.bias_ih_l0 + shift[:12])
    torch.testing.assert_close(layer.bias_ih_l0_reverse, before.bias_ih_l0_reverse + shift[12:])
    assert torch.equal(layer.bias_hh_l0, before.bias_hh_l0)


@pytest.mark.parametrize("name", ["llama_grouped", "gpt2", "falcon", "phi3"])
def test_a_pruned_language_model_comes_nearer(name):
    model, x = transformer(name), inputs(name, samples=6)
    source = LoaderSource([(x, torch.arange(6) % 3)], 6)
    decisions = uneven(find_units(model, x).groups)
    plain = cut(model, decisions)
    pruned, _ = recovered(model, decisions, source)
    wanted = output(model, x)
    assert (output(pruned, x) - wanted).square().mean() < (output(plain, x) - wanted).square().mean()


@pytest.mark.parametrize("name", ["llama_grouped", "gpt2", "t5_gated", "phi3"])
def test_new_biases_are_stored(name, tmp_path):
    model, x = transformer(name, dtype=torch.float32), inputs(name, samples=6)
    decisions = uneven(find_units(model, x).groups)
    pruned, _ = recovered(model, decisions, LoaderSource([(x, torch.arange(6) % 3)], 6))
    save_model(tmp_path, pruned)
    loaded = coprune.load(tmp_path)
    assert torch.equal(output(loaded, x), output(pruned, x))
    assert loaded.state_dict().keys() == pruned.state_dict().keys()


def test_it_must_be_known_what_was_cut():
    net = tiny.network("resnet20")
    with pytest.raises(UserError, match="give the plan that cut it"):
        find_recovery("bias").run(Pair(net, net, {"a": torch.arange(2)}), tiny.source(8))


def test_nothing_removed_changes_nothing():
    net = tiny.network("resnet20")
    group = find_units(net, torch.zeros(1, 1, 12, 12)).groups[0]
    pruned, did = recovered(net, (decide(group, tuple(range(group.size))),), tiny.source(8))
    assert not did.changed
    assert tiny.same_state(pruned.state_dict(), net.state_dict())
