"""Targets of least squares that are asked for in several passes are those of one."""

import copy
from functools import partial

import pytest
import torch
from torch import nn

import tiny
from coprune.data import in_memory
from coprune.errors import UserError
from coprune.groups import find_units
from coprune.recovery import Pair, kept_outputs, layer_walk, least_squares
from coprune.recovery import sequential_least_squares as sequential
from coprune.recovery.layer_walk import Targets
from coprune.surgery import cut


@pytest.mark.parametrize("name", ["resnet20", "albert"])
def test_targets_that_do_not_fit_at_once_are_the_same(monkeypatch, name):
    if name == "albert":
        pytest.importorskip("transformers")
        from tiny_transformers import inputs, transformer, uneven

        teacher, example = transformer(name), inputs(name)
        decisions = uneven(find_units(teacher, example).groups)
        source = in_memory([(inputs(name, samples=24), torch.zeros(24, dtype=torch.int64))])
    else:
        teacher, example = tiny.randomise(tiny.network(name)), torch.zeros(1, 1, 12, 12)
        decisions = [tiny.decision(g, range(0, g.size, 2)) for g in find_units(teacher, example).groups]
        source = tiny.source(40)
    pruned, kept = cut(teacher, decisions), kept_outputs(teacher, decisions)
    real, found = layer_walk.rows_of, []
    asked: list[int] = []

    def counted(net, sites, *given, **options):
        asked.append(len(sites))
        return real(net, sites, *given, **options)

    monkeypatch.setattr(layer_walk, "rows_of", counted)
    for memory in (1 << 30, 10_000, 1):
        monkeypatch.setattr(sequential, "Targets", partial(Tight, tight=memory))
        model = copy.deepcopy(pruned)
        asked.clear()
        least_squares(Pair(model, teacher, kept), source, rows=200)
        found.append((tiny.state_of(model), list(asked)))
    (whole, once), (some, often), (one, always) = found
    assert len(once) == 1
    assert len(often) > 1
    assert set(always) == {1}
    assert tiny.same_state(some, whole)
    assert tiny.same_state(one, whole)


class Tight(Targets):
    """Targets that have less memory than the samples."""

    def __init__(self, *given, memory, tight):
        super().__init__(*given, memory=min(memory, tight))


class Looping(nn.Module):
    """Samples one by one, so that with more of them later calls have other numbers."""

    def __init__(self):
        super().__init__()
        self.first, self.back, self.last = nn.Linear(4, 6), nn.Linear(6, 4), nn.Linear(4, 3)

    def forward(self, x):
        x = torch.stack([2 * sample for sample in x])
        return self.last((x + self.back(self.first(x).relu())).relu())


def test_a_sum_is_met_though_its_calls_have_other_numbers():
    torch.manual_seed(0)
    teacher = Looping()
    source = in_memory([(torch.randn(24, 4), torch.zeros(24, dtype=torch.int64))])
    with pytest.raises(UserError, match="'back': what is added to its output was not met"):
        least_squares(Pair(copy.deepcopy(teacher), teacher, {}), source, rows=200)
