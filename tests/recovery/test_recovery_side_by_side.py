"""Parts of the samples that wait for one another at every layer say what all samples at once say."""

import copy
from functools import partial

import pytest
import torch
from torch import nn

import tiny
from coprune.data import in_memory
from coprune.errors import UserError
from coprune.groups import find_units
from coprune.measure.memory import waiting_memory
from coprune.recovery import Pair, kept_outputs, least_squares, sampling
from coprune.recovery import sequential_least_squares as sequential
from coprune.recovery.layer_walk import walk_layers
from coprune.surgery import cut
from coprune.tracing.forward import samples_in
from coprune.tracing.layer_graph import find_sites


def given(name):
    """An unpruned network, one sample, and samples to learn on."""
    if name in ("bert", "llama_grouped"):
        pytest.importorskip("transformers")
        from tiny_transformers import inputs, transformer

        samples = inputs(name, samples=24, dtype=torch.float32)
        source = in_memory([(samples, torch.zeros(24, dtype=torch.int64))])
        return transformer(name, dtype=torch.float32), inputs(name, dtype=torch.float32), source
    return tiny.randomise(tiny.network(name)), torch.zeros(1, 1, 12, 12), tiny.source(40)


def all_of(source, at_once):
    """In the place of :func:`samples_that_fit`."""
    inputs, count = sampling.spread(source, len(source)), len(source)
    return inputs, at_once or count


@pytest.mark.parametrize("name", ["resnet20", "vgg16_bn", "bert", "llama_grouped"])
def test_parts_come_to_what_all_samples_at_once_come_to(monkeypatch, name):
    teacher, example, source = given(name)
    decisions = [tiny.decision(g, range(0, g.size, 2)) for g in find_units(teacher, example).groups]
    pruned, kept = cut(teacher, decisions), kept_outputs(teacher, decisions)
    found = []
    for at_once in (None, 7):
        monkeypatch.setattr(
            sequential, "samples_that_fit", lambda s, _, *, memory, size=at_once: all_of(s, size)
        )
        model = copy.deepcopy(pruned)
        done = least_squares(Pair(model, teacher, kept), source, rows=400)
        found.append((done, model.state_dict()))
    (whole, weights), (parts, others) = found
    assert any(layer.changed for layer in whole)
    assert [(a.layer, a.changed, a.ridge) for a in parts] == [(b.layer, b.changed, b.ridge) for b in whole]
    for key, value in weights.items():
        torch.testing.assert_close(others[key], value, rtol=1e-3, atol=1e-4)


class Turning(nn.Module):
    """Samples of which the first is dark take the layers in another order, or none of them."""

    def __init__(self, other):
        super().__init__()
        self.first, self.second, self.other = nn.Linear(4, 4), nn.Linear(4, 4), other

    def forward(self, x):
        if float(x[0, 0]) > 0:
            return self.second(self.first(x))
        return self.first(self.second(x)) if self.other == "order" else x


@pytest.mark.parametrize("other", ["order", "none"])
def test_parts_that_take_another_way_are_refused(other):
    net = Turning(other)
    bright = torch.ones(3, 4)
    sites = [site for site in find_sites(net, bright) if site.layer in ("first", "second")]
    seen = []

    def note(site, layer, read, operand, part):
        seen.append((site.layer, part, samples_in(read)))

    walk_layers(net, sites, [bright, bright[:2]], note, met=lambda site: seen.append(site.layer))
    assert seen == [("first", 0, 3), ("first", 1, 2), "first", ("second", 0, 3), ("second", 1, 2), "second"]
    with pytest.raises(UserError, match="another way through the model than others"):
        walk_layers(net, sites, [bright, -bright], note, met=lambda site: None)
    assert not net.first._forward_pre_hooks
    assert not torch.overrides._get_current_function_mode_stack()


def test_a_layer_that_is_changed_runs_with_its_new_weights_in_every_part():
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False))
    sites, read = find_sites(net, torch.ones(2, 2)), {}

    def double(site):
        with torch.no_grad():
            net.get_submodule(site.layer).weight.mul_(2)

    before = net[0].weight.detach().clone()
    parts = [torch.ones(1, 2), -torch.ones(2, 2), 3 * torch.ones(1, 2)]
    walk_layers(
        net, sites, parts, lambda s, _, x, o, part: read.setdefault((s.layer, part), x.clone()), met=double
    )
    for number, part in enumerate(parts):
        torch.testing.assert_close(read["1", number], part @ (2 * before).T)


def test_an_error_in_one_part_is_the_walks_error():
    def broken(site):
        raise UserError("solved badly")

    net, sites = nn.Sequential(nn.Linear(2, 2)), find_sites(nn.Sequential(nn.Linear(2, 2)), torch.ones(2, 2))
    with pytest.raises(UserError, match="solved badly"):
        walk_layers(net, sites, [torch.ones(1, 2)] * 3, lambda *_: None, met=broken)
    assert not net[0]._forward_pre_hooks


def test_what_does_not_fit_at_once_waits():
    # Of the channels behind the first layer nothing is left where the second is waited for.
    net = tiny.randomise(
        nn.Sequential(nn.Conv2d(1, 8, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
    )
    waiting, each = waiting_memory(net, next(iter(tiny.source(1).batches(1)))[0], ["0", "3"])
    assert each > 5 * waiting
    fit = partial(sampling.samples_that_fit, tiny.source(40), net)
    assert fit(memory=40 * each)[1] == 40
    inputs, at_once = fit(memory=20 * each)
    assert (len(inputs), at_once) == (40, 5)
    inputs, at_once = fit(memory=4 * each)
    assert (len(inputs), at_once) == (min(40, 3 * each // waiting), 1)
