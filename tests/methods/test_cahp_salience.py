"""Gradients by the heads' gates against finite differences."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from coprune.errors import UserError
from coprune.groups import ChannelGroup
from coprune.methods.cahp.salience import BATCH, HeadSalience, gate_gradients, salience_of, sensitivity_of
from coprune.plan import Member
from coprune.statistics import Calibration, Profile, collect
from tiny_heads import CLASSES, bert, bert_groups, sentences


@pytest.fixture(scope="module")
def model():
    return bert().double()


def losses(model, group, head, gate, inputs, labels):
    """Cross-entropy of every sample when one head's output is multiplied by ``gate``."""
    (consumer,) = group.of_role("consumer")

    def scale(_, given):
        x = given[0].clone()
        x[..., head * consumer.span : (head + 1) * consumer.span] *= gate
        return (x,)

    hook = model.get_submodule(consumer.layer).register_forward_pre_hook(scale)
    try:
        with torch.no_grad():
            return F.cross_entropy(model(**inputs).logits, labels, reduction="none")
    finally:
        hook.remove()


def differences(model, groups, inputs, labels, step=1e-5):
    """Central differences of every sample's loss, ``[N, H]`` a group."""
    found = []
    for group in groups:
        columns = [
            (
                losses(model, group, h, 1 + step, inputs, labels)
                - losses(model, group, h, 1 - step, inputs, labels)
            )
            / (2 * step)
            for h in range(group.size)
        ]
        found.append(torch.stack(columns, 1))
    return found


def of(model):
    return Calibration(model, (), None, 3)


def heads(model):
    return tuple(g for g in bert_groups(model) if g.kind == "heads")


def test_gate_gradients_equal_finite_differences(model):
    inputs, labels = next(sentences(6).batches(6))
    found = gate_gradients(of(model), heads(model), inputs, labels)
    for gradient, twin in zip(found, differences(model, heads(model), inputs, labels), strict=True):
        assert gradient.shape == (6, 4)
        torch.testing.assert_close(gradient, twin, rtol=1e-5, atol=1e-8)


def test_layers_that_lose_the_same_heads_share_their_gates(model):
    first, second = heads(model)
    both = ChannelGroup(first.name, first.size, (*first.members, *second.members), "heads")
    inputs, labels = next(sentences(6).batches(6))
    (found,) = gate_gradients(of(model), (both,), inputs, labels)
    torch.testing.assert_close(found, sum(gate_gradients(of(model), (first, second), inputs, labels)))


class Windows(nn.Module):
    """Four windows an image, each a row of the output projection's input, as in Swin."""

    def __init__(self):
        super().__init__()
        self.made, self.out, self.last = nn.Linear(9, 6), nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, x):
        windows = x.view(len(x) * 4, 4, 9)
        return self.last(self.out(self.made(windows).tanh()).tanh().view(len(x), 16, 5).mean(1))


def test_windows_of_an_image_share_their_gates():
    model = Windows().double()
    group = ChannelGroup("made", 3, (Member(layer="out", role="consumer", span=2),), "heads")
    x, labels = torch.rand(5, 144, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1])
    (found,) = gate_gradients(of(model), (group,), x, labels)
    for i in range(5):
        (alone,) = gate_gradients(of(model), (group,), x[i : i + 1], labels[i : i + 1])
        torch.testing.assert_close(found[i : i + 1], alone)


def test_salience_is_the_mean_over_batches_and_sensitivity_the_mean_over_samples(model):
    source = sentences(70)  # three batches, the last a small one
    wanted = HeadSalience(1.0)
    tensors = collect(Calibration(model, bert_groups(model), source, CLASSES), [wanted])
    profile, groups = Profile(bert_groups(model), tensors), heads(model)
    batches = [differences(model, groups, x, y) for x, y in source.batches(BATCH)]
    assert len(batches) == 3
    raw = torch.cat([torch.stack([b[i].mean(0).abs() for b in batches]).mean(0) for i in range(2)])
    expected = (raw - raw.min()) / (raw.max() - raw.min())
    torch.testing.assert_close(
        torch.cat(salience_of(profile, wanted, groups)), expected, rtol=1e-4, atol=1e-6
    )
    for i, layer in enumerate(sensitivity_of(profile, wanted, groups)):
        mean = torch.cat([b[i] for b in batches]).abs().mean(0)
        torch.testing.assert_close(layer, mean / mean.norm(), rtol=1e-4, atol=1e-6)
        assert float(layer.norm()) == pytest.approx(1)


@pytest.mark.parametrize(("share", "seen"), [(0.25, 2), (0.01, 1), (0.5, 4), (1.0, 7)])
def test_a_share_of_the_batches_is_read(model, share, seen):
    source = sentences(7 * BATCH - 5, longest=5)
    tensors = collect(Calibration(model, bert_groups(model), source, CLASSES), [HeadSalience(share)])
    assert int(tensors[HeadSalience(share).key]["seen"][0]) == seen


def test_a_head_that_nobody_reads_is_the_least_salient():
    model = bert()
    with torch.no_grad():
        model.bert.encoder.layer[1].attention.output.dense.weight[:, 16:24] = 0
    wanted = HeadSalience(1.0)
    tensors = collect(Calibration(model, bert_groups(model), sentences(20), CLASSES), [wanted])
    profile = Profile(bert_groups(model), tensors)
    assert salience_of(profile, wanted, heads(model))[1][2] == 0
    assert sensitivity_of(profile, wanted, heads(model))[1][2] == 0


def test_nothing_is_left_behind_and_frozen_models_are_served():
    model = bert()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    wanted = HeadSalience()
    first = collect(Calibration(model, bert_groups(model), sentences(20), CLASSES), [wanted])[wanted.key]
    again = collect(Calibration(model, bert_groups(model), sentences(20), CLASSES), [wanted])[wanted.key]
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert float(first["bert.encoder.layer.0.attention.self/batch"].min()) > 0
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(p.grad is None for p in model.parameters())


def test_labels_outside_the_model_are_refused(model):
    with pytest.raises(UserError, match="outside the model's 3 classes"):
        collect(Calibration(model, bert_groups(model), sentences(20, classes=5), 5), [HeadSalience()])
