"""Dropout that is off although modules are in training mode."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import tiny
from coprune.training import Recipe, fit
from coprune.training.no_dropout import functions_without_dropout, modules_without_dropout

X = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "call",
    [
        lambda: F.dropout(X, 0.9),
        lambda: F.dropout(input=X, p=0.9),
        lambda: F.dropout2d(X, 0.9),
        lambda: F.alpha_dropout(X, 0.9, training=True),
        lambda: torch.dropout(X, 0.9, True),
        lambda: nn.Dropout(0.9)(X),
        lambda: nn.Dropout1d(0.9)(X[0]),
    ],
)
def test_functions_hand_on_what_they_are_given(call):
    with functions_without_dropout():
        found = call()
    assert torch.equal(found, X[0] if found.ndim == 3 else X)
    assert not torch.equal(call(), found)


@pytest.mark.parametrize("positional", [True, False])
def test_attention_kernels(positional):
    wanted = F.scaled_dot_product_attention(X, X, X)
    with functions_without_dropout():
        if positional:
            found = F.scaled_dot_product_attention(X, X, X, None, 0.9, False)
        else:
            found = F.scaled_dot_product_attention(X, X, X, dropout_p=0.9)
        plain = F.scaled_dot_product_attention(X, X, X, is_causal=True)
    assert torch.equal(found, wanted)
    assert torch.equal(plain, F.scaled_dot_product_attention(X, X, X, is_causal=True))


@pytest.mark.parametrize("weights", [True, False])
def test_pytorchs_attention(weights):
    layer, x = nn.MultiheadAttention(4, 2, dropout=0.9), X[0]
    with functions_without_dropout():
        found, _ = layer(x, x, x, need_weights=weights)
    torch.testing.assert_close(found, layer.eval()(x, x, x)[0])


class Stored(nn.Module):
    """As timm's LeViT: what is computed from a weight is kept in evaluation mode."""

    def __init__(self):
        super().__init__()
        self.bias, self.kept = nn.Parameter(torch.zeros(3)), None
        self.drop = nn.Sequential(nn.Linear(144, 3), nn.Dropout(0.9))

    def train(self, mode=True):
        super().train(mode)
        self.kept = None
        return self

    def forward(self, x):
        bias = self.bias * 2
        if not self.training:
            self.kept = bias = bias if self.kept is None else self.kept
        return self.drop(x.flatten(1)) + bias


class DropResidual(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Stored()

    def forward(self, x):
        return self.inner(x) * (0 if self.training else 1)


def test_modules_that_drop_are_silenced_and_what_is_inside_them_is_not():
    net = DropResidual().train()
    modules_without_dropout(net)
    assert not net.training
    assert net.inner.training
    assert not net.inner.drop[1].training


def test_a_module_that_keeps_what_it_computed_is_trained():
    # Once a bug: training in evaluation mode went backward twice through what LeViT had kept.
    net = tiny.randomise(DropResidual())
    before = net.inner.bias.detach().clone()
    recipe = Recipe(epochs=2, batch_size=20, distill=0.5)
    fit(net, tiny.source(40), recipe, seed=0, teacher=tiny.randomise(DropResidual(), 1))
    assert not torch.equal(net.inner.bias, before)


def test_timms_levit_learns():
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    net, teacher = (timm.create_model("levit_128s", num_classes=3, img_size=32, in_chans=1) for _ in range(2))
    tiny.randomise(net)  # as it is made, its attention adds 0
    source = tiny.source(16, size=32)
    before = {n: p.detach().clone() for n, p in net.named_parameters() if "attention_biases" in n}
    fit(net, source, Recipe(epochs=1, batch_size=8, distill=0.9), seed=0, teacher=teacher)
    assert before
    assert any(not torch.equal(net.get_parameter(n), was) for n, was in before.items())
