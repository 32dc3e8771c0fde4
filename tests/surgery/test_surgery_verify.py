"""Every group is tried before it is offered: on samples that the network takes, whatever those are."""

import itertools
from itertools import pairwise

import pytest
import torch
from torch import nn

import tiny
import tiny_coupled
from coprune.groups import find_units
from coprune.surgery import sound


class Net(nn.Module):
    """Convolutions with batch norms behind something that not every input can pass."""

    def __init__(self, first, *, channels: int = 1) -> None:
        super().__init__()
        widths = (channels, 6, 8, 8)
        self.first = first
        self.convs = nn.ModuleList(nn.Conv2d(i, o, 3, padding=1) for i, o in pairwise(widths))
        self.norms = nn.ModuleList(nn.BatchNorm2d(w) for w in widths[1:])
        self.fc = nn.Linear(8, 3)

    def forward(self, x):
        x = self.first(x)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = torch.relu(norm(conv(x)))
        return self.fc(x.mean((2, 3)))


class Strongest(tiny_coupled.Strongest):
    """A sum over channels so far, which cannot be cut, behind something that not every input can pass."""

    def __init__(self, first) -> None:
        super().__init__()
        self.first = first

    def forward(self, x):
        return super().forward(self.first(x))


class Indexed(nn.Module):
    """The first column of a table of floats is a class, of few; the other columns are much larger."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(3, 4)
        self.n = nn.Sequential(
            nn.Linear(7, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 10), nn.BatchNorm1d(10), nn.ReLU()
        )
        self.fc = nn.Linear(10, 3)

    def forward(self, x):
        return self.fc(self.n(torch.cat([self.table(x[:, 0].long()), x[:, 1:]], 1)))


def spectrogram(*, least: float = 0.0, size: int = 12):
    return torch.rand(1, 1, size, size, generator=torch.Generator().manual_seed(0)) + least


DOMAINS = {
    "logarithm": (lambda x: torch.log(x + 1e-3), spectrogram()),
    "root": (torch.sqrt, spectrogram()),
    "logarithm of a constant": (lambda x: torch.log(x + 1e-3), torch.zeros(1, 1, 12, 12)),
    # The values around it have other means: only the example itself is in the domain.
    "sum": (lambda x: torch.sqrt(x.sum((1, 2, 3), keepdim=True) * 0 - (x.mean() - spectrogram().mean()).abs()
                                 .clamp(1e-3) + 1e-3) + x, spectrogram()),
    "index": (lambda x: torch.linspace(-1, 1, 10, dtype=x.dtype)[x.long()], (spectrogram() * 9.9).floor()),
    "any": (lambda x: x, spectrogram()),
    "any constant": (lambda x: x, torch.ones(1, 1, 12, 12)),
}  # fmt: skip


@pytest.mark.parametrize("name", list(DOMAINS))
def test_a_network_that_takes_some_values_only_is_tried_with_those(name):
    # Once a bug: random samples left the data's domain, and no group of such a network was offered.
    first, example = DOMAINS[name]
    net = tiny.randomise(Net(first))
    units = find_units(net, example)
    assert [g.name for g in units.groups] == ["convs.1", "convs.2"]
    assert sound(net, units, example) == units


@pytest.mark.parametrize("name", list(DOMAINS))
def test_a_wrong_cut_shows_with_those_values_too(name):
    first, example = DOMAINS[name]
    net = tiny.randomise(Strongest(first), seed=0)
    units = find_units(net, example, coupled=True)
    kept = sound(net, units, example)
    assert [g.name for g in kept.groups] == ["read"]
    reasons = {s.layer: s.reason for s in kept.skipped}
    assert "mixes or orders channels" in reasons["one"]


def test_columns_of_different_ranges_are_tried_with_the_example_itself():
    # Once a bug: an index beyond the table ended the program.
    net, example = tiny.randomise(Indexed()), torch.tensor([[2.0, 40.0, -300.0, 7.0]])
    units = find_units(net, example)
    assert [g.name for g in units.groups] == ["n.3"]
    assert sound(net, units, example) == units


CONSTANT = torch.randn(12, 12)
CASTS = {
    "cast": lambda x: x.float(),
    "constant": lambda x: x @ CONSTANT,
    "fake quantisation": lambda x: torch.fake_quantize_per_tensor_affine(x.float(), 0.05, 0, -128, 127),
    "complex": lambda x: torch.fft.ifft2(torch.fft.fft2(x).to(torch.cfloat) * (1 + 1j * CONSTANT)).real,
}


@pytest.mark.parametrize("kind", [Net, Strongest])
@pytest.mark.parametrize("name", list(CASTS))
def test_what_does_not_run_in_float64_is_tried_in_its_own_precision(name, kind):
    # Once refused: "the model does not run in float64".
    example = spectrogram()
    net = tiny.randomise(kind(CASTS[name]), seed=0)
    units = find_units(net, example, coupled=kind is Strongest)
    kept = sound(net, units, example)
    if kind is Net:
        assert kept == units
    else:
        assert [g.name for g in kept.groups] == ["read"]
        assert "mixes or orders channels" in {s.layer: s.reason for s in kept.skipped}["one"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_that_cannot_be_left_shows_a_wrong_cut(dtype):
    example = spectrogram().to(dtype)
    for kind, wrong in ((Net, False), (Strongest, True)):
        net = tiny.randomise(kind(lambda x: x.to(dtype)), seed=0).to(dtype)
        units = find_units(net, example, coupled=wrong)
        left = len(units.groups) - len(sound(net, units, example).groups)
        assert left == wrong


def test_what_never_runs_on_random_inputs_is_refused_with_the_reason():
    def only_the_example(x):
        if not torch.equal(x, spectrogram()):
            raise ValueError("another image")
        return x

    net = tiny.randomise(Net(only_the_example))
    units = find_units(net, spectrogram())
    kept = sound(net, units, spectrogram() + 1)
    assert not kept.groups
    reason = {s.layer: s.reason for s in kept.skipped}["convs.1"]
    assert (
        reason == "no cut could be tried: the model does not run on random inputs (ValueError: another image)"
    )


def test_an_output_that_is_never_finite_is_refused_with_the_reason():
    net, example = tiny.randomise(Net(lambda x: x / 0)), spectrogram()
    kept = sound(net, find_units(net, example), example)
    assert not kept.groups
    assert "output is not finite" in {s.layer: s.reason for s in kept.skipped}["convs.1"]


@pytest.mark.parametrize("coupled", [False, True])
def test_a_network_that_draws_numbers_in_evaluation_mode_draws_the_same_ones(coupled):
    # Once a bug: every layer was said to mix or order channels, since no two passes gave the same.
    net, example = tiny.randomise(Net(lambda x: nn.functional.dropout(x, 0.3))), spectrogram()
    units = find_units(net, example, coupled=coupled)
    kept = sound(net, units, example)
    assert units.groups
    assert kept.groups == units.groups


@pytest.mark.parametrize("coupled", [False, True])
def test_a_network_that_differs_from_pass_to_pass_is_refused_for_that(coupled):
    passes = itertools.count()
    net, example = tiny.randomise(Net(lambda x: x + next(passes) * x.tanh())), spectrogram()
    units = find_units(net, example, coupled=coupled)
    kept = sound(net, units, example)
    assert units.groups
    assert not kept.groups
    reasons = {s.layer: s.reason for s in kept.skipped}
    assert reasons["convs.1"].endswith("the model is random in evaluation mode")
