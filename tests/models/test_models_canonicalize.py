"""A user's model is copied as it is, and stays so."""

from collections import OrderedDict
from dataclasses import dataclass

import pytest
import torch
from torch import nn

import tiny
from coprune.models.canonicalize import canonical_copy


@dataclass
class Kept:
    features: torch.Tensor


KINDS = {
    "tensor": lambda x: x,
    "list": lambda x: [x, 1.0],
    "tuple": lambda x: (x, (x,)),
    "dict": lambda x: OrderedDict(a={"b": [x]}, c=None),
    "dataclass": Kept,
}


class Net(nn.Module):
    """Keeps an activation, also one that is a view."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU())
        self.fc, self.kind = nn.Linear(8, 3), kind

    def forward(self, x):
        h = self.body(x)
        self.kept, self.body.view = KINDS[self.kind](h), h.view(-1)
        return self.fc(h)


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_model_that_keeps_an_activation_can_be_copied(kind):
    # Once a bug: PyTorch copies no tensor with a graph, and the program ended with its error.
    torch.manual_seed(0)
    model, x = Net(kind).train(), torch.randn(4, 6)
    loss = model(x).sum()
    kept, view = model.kept, model.body.view
    copied = canonical_copy(model)
    assert model.kept is kept
    assert model.body.view is view
    assert view.grad_fn is not None
    assert copied.body.view.grad_fn is None
    assert torch.equal(copied.body.view, view)
    assert type(copied.kept) is type(kept)
    loss.backward()  # the user's graph is whole
    assert torch.equal(copied(x), model(x))


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_model_that_keeps_an_activation_can_be_pruned_and_trained(kind):
    torch.manual_seed(0)
    model = Net(kind)
    batches = [(torch.randn(30, 6), torch.arange(30) % 3) for _ in range(2)]
    model(batches[0][0]).sum().backward()
    outcome = tiny.prune(model, train=batches, eval=batches, keep_macs=0.7, finetune_epochs=1)
    assert outcome.result.stage("pruned").macs <= 0.7 * outcome.result.stage("base").macs
