"""Gradients of units in proportion to their weights, and what matching needs them for."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import tiny
from coprune.data import LoaderSource
from coprune.training import Recipe, finetuning, fit
from coprune.training.adaptive_clipping import limit_gradients


def rows(t):
    return t.flatten(1) if t.ndim > 1 else t[None]


def test_by_hand():
    layer = nn.Linear(2, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[3.0, 4.0], [0.6, 0.8], [0.0, 0.0]]))
        layer.bias.copy_(torch.tensor([0.0, 3.0, 4.0]))
    layer.weight.grad = torch.tensor([[0.3, 0.4], [30.0, 40.0], [0.0, 2.0]])
    layer.bias.grad = torch.tensor([0.0, -30.0, -40.0])
    limit_gradients(layer, share=0.1)
    # Norms of the weights are 5, 1 and (taken as) .001; of the whole bias 5.
    wanted = torch.tensor([[0.3, 0.4], [0.06, 0.08], [0.0, 1e-4]])
    torch.testing.assert_close(layer.weight.grad, wanted)
    torch.testing.assert_close(layer.bias.grad, torch.tensor([0.0, -0.3, -0.4]))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 99), share=st.floats(0.01, 10), scale=st.floats(0, 100))
def test_no_unit_moves_by_more_than_its_share_and_none_turns(seed, share, scale):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ConvTranspose2d(4, 2, 3), nn.Linear(3, 2))
    before = []
    for p in net.parameters():
        p.grad = torch.randn_like(p) * scale
        before.append(p.grad.clone())
    limit_gradients(net, share=share)
    for p, was in zip(net.parameters(), before, strict=True):
        limit = share * rows(p.detach()).norm(dim=1).clamp_min(1e-3)
        assert (rows(p.grad).norm(dim=1) <= limit * (1 + 1e-5)).all()
        within = rows(was).norm(dim=1) <= limit
        torch.testing.assert_close(rows(p.grad)[within], rows(was)[within])
        assert ((p.grad * was).sum() >= 0).all()


def test_what_nobody_gives_depends_on_the_rest():
    assert (finetuning(epochs=1, distill=0.9).match, finetuning(epochs=1, distill=0.9).unit_clip) == (10, 0.2)
    assert (finetuning(epochs=1, distill=0).match, finetuning(epochs=1, distill=0).unit_clip) == (0, 0)
    assert finetuning(epochs=1, distill=0, match=1).unit_clip == 0.2
    assert finetuning(epochs=1, distill=0.9, match=0).unit_clip == 0
    assert finetuning(epochs=1, distill=0.9, optimizer="adamw").unit_clip == 0
    assert finetuning(epochs=1, distill=0.9, unit_clip=0).unit_clip == 0
    assert finetuning(epochs=1, distill=0.9, unit_clip=None, optimizer="sgd").unit_clip == 0.2


def test_a_step_is_one_with_limited_gradients():
    recipe = Recipe(epochs=1, batch_size=20, lr=0.5, momentum=0, weight_decay=0, schedule="constant")
    net, source = tiny.network("resnet20", seed=3), tiny.source(20)
    was = {n: p.detach().clone() for n, p in net.named_parameters()}
    fit(net, source, recipe.model_copy(update={"unit_clip": 1e-3}), seed=0)
    for name, p in net.named_parameters():
        moved = rows(p.detach() - was[name]).norm(dim=1)
        assert (moved <= 0.5 * 1e-3 * rows(was[name]).norm(dim=1).clamp_min(1e-3) * 1.01 + 1e-6).all()


@pytest.mark.parametrize("keep", [0.8, 0.5])
@pytest.mark.parametrize("rate", [0.02, 0.2])
def test_a_plain_chain_without_norms_is_trained_at_the_usual_rates(keep, rate, plain):
    net, batches = plain
    outcome = tiny.prune(
        net, train=batches, eval=batches, keep_macs=keep, finetune_epochs=1, finetune_lr=rate
    )
    # Where what went was silent anyway, there is nothing to recover.
    before, after = outcome.result.stages[-2:]
    assert before.value > 0.9
    assert after.name == "finetuned"
    assert after.value > 0.9


@pytest.fixture(scope="module")
def plain():
    """A trained network of three plain layers, and its data."""
    torch.manual_seed(0)
    labels = torch.arange(90) % 3
    images = torch.randn(90, 1, 10, 10) + labels.view(-1, 1, 1, 1) - 1
    pairs = torch.utils.data.TensorDataset(images, labels)
    batches = torch.utils.data.DataLoader(pairs, batch_size=16)
    layers = [nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU()]
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
    fit(net, LoaderSource(batches, 90), Recipe(epochs=40, lr=0.01, optimizer="adamw"), seed=0)
    return net, batches
