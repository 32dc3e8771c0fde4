"""Choice and recovery where transposed convolutions, splits and recurrent layers make and read channels."""

import copy

import pytest
import torch
from torch import nn

import tiny
import tiny_structures
from coprune.data import ArraySource
from coprune.groups import find_units
from coprune.recovery import Pair, kept_outputs, least_squares
from coprune.recovery.channel_least_squares import channel_least_squares
from coprune.store import load, save_model
from coprune.surgery import cut, sound
from coprune.tracing.forward import tensors_of

RECOVERED = [
    "u-net",
    "autoencoder",
    "autoencoder of signals",
    "super-resolution, espcn",
    "c2f, split",
    "glu of signals",
    "crnn",
    "convolutions, gru",
    "wavenet",
]


def network(name):
    torch.manual_seed(0)
    net, example = tiny_structures.networks()[name]
    return tiny.randomise(net), example


def samples(example, count=100):
    images = torch.randn(count, *example.shape[1:], generator=torch.Generator().manual_seed(1))
    return ArraySource(images, torch.arange(count) % 3)


@torch.no_grad()
def error(model, net, source):
    found, due = (tensors_of(m(source.images))[0] for m in (model, net))
    return float((found - due).square().mean() / due.var())


def cut_in(net, example, share=0.75):
    units = sound(net, find_units(net, example, coupled=True), example)
    return tuple(g.decision(range(max(1, int(share * g.size))), "the first") for g in units.groups)


@pytest.mark.parametrize("recovery", [least_squares, channel_least_squares])
@pytest.mark.parametrize("name", RECOVERED)
def test_layers_of_any_structure_are_solved_again(name, recovery):
    net, example = network(name)
    source, decisions = samples(example), cut_in(net, example)
    model = cut(net, decisions)
    before = error(model, net, source)
    recovery(Pair(model, net, kept_outputs(net, decisions), decisions), source)
    assert error(model, net, source) < 0.93 * before


@pytest.mark.parametrize("kind", ["transposed", "LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("recovery", [least_squares, channel_least_squares])
def test_what_a_kept_channel_says_too_comes_back_exactly(kind, recovery):
    """The reader of two channels that are the same needs one of them: its weights on both, added."""
    made = nn.Conv1d(3, 6, 3)
    if kind == "transposed":
        read = nn.ConvTranspose1d(6, 4, 4, 2, 1)
    else:
        read = tiny_structures.Net(
            lambda net, x: net.rnn(x.transpose(1, 2))[0].transpose(1, 2),
            rnn=getattr(nn, kind)(6, 4, bidirectional=True, batch_first=True),
        )
    net = tiny.randomise(nn.Sequential(nn.Conv1d(2, 3, 1), nn.ReLU(), made, nn.Tanh(), read))
    with torch.no_grad():
        made.weight[5], made.bias[5] = made.weight[2], made.bias[2]
    example = torch.randn(1, 2, 12)
    (group,) = [g for g in find_units(net, example).groups if g.name == "2"]
    decisions = (group.decision(range(5), "one of two"),)
    source = samples(example)
    model = cut(net, decisions)
    assert error(model, net, source) > 1e-3
    recovery(Pair(model, net, kept_outputs(net, decisions), decisions), source)
    assert error(model, net, source) < 1e-6


class Classified(nn.Module):
    """A network whose output, averaged over places, is read as logits."""

    def __init__(self, net, last):
        super().__init__()
        self.net, self.last = net, last

    def forward(self, x):
        out = tensors_of(self.net(x))[0]
        return out.mean(1) if self.last else out.flatten(2).mean(2)


@pytest.mark.parametrize("name", ["u-net", "c2f, split", "crnn", "wavenet", "autoencoder"])
def test_choice_and_recovery_of_the_whole_method(name):
    net, example = network(name)
    net = Classified(net, name == "crnn")
    source = samples(example, 120)
    with torch.no_grad():
        logits = net(source.images)
        labels = (logits - logits.mean(0)).argmax(1)
    batches = list(zip(source.images.split(40), labels.split(40), strict=True))
    found = tiny.prune(
        copy.deepcopy(net),
        train=batches,
        eval=batches,
        keep_macs=0.6,
        units=("inner", "coupled"),
        device="cpu",
    )
    macs = [stage.macs for stage in found.result.stages]
    assert macs[-1] / macs[0] == pytest.approx(0.6, abs=0.05)
    assert error(found.model, net, source) < 1.0


@pytest.mark.parametrize(
    "name", ["c2f, split", "slices by an attribute", "crnn", "tagger", "view by an attribute"]
)
def test_counted_attributes_and_recurrent_layers_are_stored(name, tmp_path):
    net, example = network(name)
    model = cut(net, cut_in(net, example))
    save_model(tmp_path, model)
    again = load(tmp_path, model=network(name)[0])
    with torch.no_grad():
        assert torch.equal(again(example), model(example))
    save_model(tmp_path / "again", again)
    assert (tmp_path / "again" / "model.json").read_text() == (tmp_path / "model.json").read_text()
