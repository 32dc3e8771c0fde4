"""Channel least squares: a twin comes back, weights are those of the formula, and what cannot be is said."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from test_recovery_least_squares import (
    NETS,
    SAMPLES,
    X,
    decision,
    halved,
    made,
    outputs,
    with_twin,
    without_twin,
)
from torch import Tensor, nn

import tiny_transformers as zoo
from coprune.data import ArraySource
from coprune.data.dataset import in_memory
from coprune.errors import UserError
from coprune.groups import find_units
from coprune.recovery import Pair, find_recovery, kept_outputs
from coprune.recovery import channel_least_squares as channels
from coprune.recovery.channel_least_squares import channel_least_squares, readings
from coprune.surgery import cut
from coprune.tracing.forward import logits_of
from tiny import network, randomise


def solved(model: nn.Module, decisions, samples=SAMPLES, **options):
    pruned = cut(model, decisions)
    kept = kept_outputs(model, decisions)
    return pruned, channel_least_squares(Pair(pruned, model, kept, decisions), samples, **options)


@pytest.mark.parametrize("name", NETS)
def test_a_twin_that_goes_is_made_up_for(name):
    model, group, decisions, _, worse = without_twin(name)
    pruned, done = solved(model, decisions)
    assert worse > 0
    assert (outputs(pruned) - outputs(model)).abs().max() < 0.02 * worse
    assert [layer.layer for layer in done] == [m.layer for m in group.of_role("consumer")]
    assert all(layer.changed for layer in done)


class Plain(nn.Module):
    """Three convolutions, the last with or without a bias and nothing behind it."""

    def __init__(self, *, bias: bool) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 3, 1)
        self.first = nn.Conv2d(3, 6, 3)
        self.second = nn.Conv2d(6, 5, (3, 2), bias=bias)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.second(torch.relu(self.first(self.stem(x))))).mean((2, 3)))


@pytest.mark.parametrize("bias", [True, False])
def test_weights_are_those_of_the_formula(bias):
    model = randomise(Plain(bias=bias))
    group = next(g for g in find_units(model, X[:1]).groups if g.name == "first")
    kept, gone = [0, 2, 3, 5], [1, 4]
    decisions = (decision(group, kept),)
    pruned, (done,) = solved(model, decisions, rows=10**6)  # every place is looked at
    images, _ = next(iter(SAMPLES.batches(len(SAMPLES))))
    read = torch.relu(model.first(model.stem(images))).detach().double()
    patches = F.unfold(read, (3, 2)).view(len(read), 6, 6, -1)  # [N, C, position, place]
    rows = patches.permute(0, 2, 3, 1)[: -(len(read) // 8)].flatten(0, 2)
    x, y = rows[:, kept], rows[:, gone]
    mean_x, mean_y = (x.mean(0), y.mean(0)) if bias else (torch.zeros(4), torch.zeros(2))
    gram = (x - mean_x).T @ (x - mean_x)
    gram.diagonal().add_(done.ridge * gram.trace() / 4)
    a = torch.linalg.solve(gram, (x - mean_x).T @ (y - mean_y)).T  # [R, K]
    old = model.second.weight.detach().double()
    wanted = old[:, kept] + torch.einsum("orhw,rk->okhw", old[:, gone], a)
    torch.testing.assert_close(pruned.second.weight.detach().double(), wanted, atol=2e-4, rtol=2e-4)
    if bias:
        shift = old[:, gone].sum((2, 3)) @ (mean_y - a @ mean_x)
        torch.testing.assert_close(
            pruned.second.bias.detach().double(), model.second.bias.detach() + shift, atol=2e-4, rtol=2e-4
        )
    assert torch.equal(pruned.first.weight, model.first.weight[kept])


@pytest.mark.parametrize("name", NETS)
def test_half_a_network_comes_nearer_and_no_label_is_read(name):
    model = made(name)
    decisions = halved(model)
    bare = cut(model, decisions)
    before = (outputs(bare) - outputs(model)).square().mean()
    pruned, done = solved(model, decisions, rows=4000)
    assert (outputs(pruned) - outputs(model)).square().mean() < before
    assert all(layer.after < layer.before for layer in done if layer.changed)
    other = ArraySource(SAMPLES.images, SAMPLES.labels.flip(0), SAMPLES.normalisation)
    again, _ = solved(model, decisions, other, rows=4000, memory=1)
    # Layer by layer or all in one pass: the same bits.
    assert torch.equal(outputs(pruned), outputs(again))


def test_pixels_of_a_wide_map_are_taken_together(monkeypatch):
    model = made("flattened")
    group = next(g for g in find_units(model, X[:1]).groups if g.name == "conv2")
    with_twin(model, group)
    decisions = (decision(group, [0, 2, 3, 4, 5]),)
    assert readings(model, decisions)["fc1"].inputs.shape == (24, 1)
    monkeypatch.setattr(channels, "WIDEST", 8)
    assert readings(model, decisions)["fc1"].inputs.tolist() == [
        [4 * u + i for i in range(4)] for u in range(6)
    ]
    worse = (outputs(cut(model, decisions)) - outputs(model)).abs().max()
    pruned, _ = solved(model, decisions)
    assert (outputs(pruned) - outputs(model)).abs().max() < 0.02 * worse


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama_grouped", "swin", "albert"])
@torch.no_grad()
def test_heads_and_neurons_come_nearer(name):
    pytest.importorskip("transformers")
    teacher = zoo.transformer(name, dtype=torch.float32)
    inputs = zoo.inputs(name, samples=64, dtype=torch.float32)
    if isinstance(inputs, dict) and inputs.keys() == {"pixel_values"}:
        inputs = inputs["pixel_values"]
    source = in_memory([(inputs, torch.arange(64) % zoo.CLASSES)])
    example = next(iter(source.batches(1)))[0]
    groups = [g for g in find_units(teacher, example).groups if g.kind in ("heads", "neurons")]
    decisions = tuple(zoo.decide(g, tuple(range((g.size + 1) // 2))) for g in groups)
    pruned = cut(teacher, decisions)
    wanted = logits_of(teacher, inputs)
    before = (logits_of(pruned, inputs) - wanted).square().mean()
    kept = kept_outputs(teacher, decisions)
    done = channel_least_squares(Pair(pruned, teacher, kept, decisions), source)
    assert any(layer.changed for layer in done)
    assert (logits_of(pruned, inputs) - wanted).square().mean() < before


def test_batch_norms_are_measured_again_after_it():
    model = made("resnet20")
    decisions = halved(model)
    pruned, _ = solved(model, decisions)
    whole = cut(model, decisions)
    kept = kept_outputs(model, decisions)
    did = find_recovery("channel-least-squares").run(Pair(whole, model, kept, decisions), SAMPLES)
    assert did.changed
    assert len(did.layers) == len(decisions)
    assert torch.equal(whole.layer1[0].conv2.weight, pruned.layer1[0].conv2.weight)
    assert not torch.equal(whole.layer1[0].bn2.running_mean, pruned.layer1[0].bn2.running_mean)


def test_another_plan_and_another_order_are_one_line():
    model = network("resnet20")
    group = find_units(model, X[:1]).groups[0]
    decisions = (decision(group, [0, 2]),)
    pruned = cut(model, decisions)
    other = (decision(group, [0, 1, 2]),)
    with pytest.raises(UserError, match="give the plan that cut it"):
        channel_least_squares(Pair(pruned, model, kept_outputs(model, other), other), SAMPLES)
    reader = find_units(model, X[:1]).groups[1]
    both = (*decisions, decision(reader, [0, 1]))
    twice = cut(model, both)
    turned = {**kept_outputs(model, both), "layer1.0.conv2": torch.tensor([3, 2, 1, 0])}
    with pytest.raises(UserError, match="told what was cut"):
        find_recovery("channel-least-squares").run(
            Pair(pruned, model, kept_outputs(model, decisions)), SAMPLES
        )
    with pytest.raises(UserError, match="another order"):
        channel_least_squares(Pair(twice, model, turned, both), SAMPLES)
