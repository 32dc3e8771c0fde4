"""One pass gathers what plain loops over activations, gates and weights give, and leaves no trace."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import tiny
from coprune.data import LoaderSource
from coprune.errors import UserError
from coprune.profile import ClassMoments, GateGradient, Profile, WeightScore, gather
from coprune.units import find_units

ALL = (
    ClassMoments(grid=0),
    ClassMoments(grid=1, at="producer"),
    GateGradient(),
    WeightScore("l1_norm"),
    WeightScore("geometric_median"),
    WeightScore("bn_scale"),
)


@pytest.fixture(scope="module")
def resnet():
    net = tiny.network("resnet20").double()
    return net, find_units(net, torch.zeros(1, 1, 12, 12, dtype=torch.float64)).groups


@pytest.fixture(scope="module")
def flattened():
    net = tiny.randomise(tiny.Flattened()).double()
    return net, find_units(net, torch.zeros(1, 1, 12, 12, dtype=torch.float64)).groups


def samples(n=24, classes=3):
    return tiny.source(n, classes=classes, kind=tiny.DoubleSource)


def hooks_on(model):
    return sum(
        len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in model.modules()
    )


@torch.no_grad()
def activations(net, group, at, source):
    """What the consumer reads or the producer puts out, of all samples, as NumPy."""
    seen = []
    if at == "producer":
        handle = net.get_submodule(group.name).register_forward_hook(
            lambda _, i, o: seen.append(o.clone().numpy())
        )
    else:
        consumer = net.get_submodule(group.of_role("consumer")[0].layer)
        handle = consumer.register_forward_pre_hook(lambda _, i: seen.append(i[0].clone().numpy()))
    for x, _ in source.batches(len(source)):
        net(x)
    handle.remove()
    return seen[0]


def cells_loop(activation, units, grid):
    """[N, U, G]: averages over a grid of pixels, whose cell i covers rows ⌊iH/g⌋ … ⌈(i+1)H/g⌉."""
    if activation.ndim == 2:
        span = activation.shape[1] // units
        rows = activation.reshape(len(activation), units, span)
        return rows if grid == 0 or span <= grid * grid else rows.mean(2, keepdims=True)
    n, _, height, width = activation.shape
    if grid == 0 or (height <= grid and width <= grid):
        return activation.reshape(n, units, height * width)
    out = []
    for i in range(min(grid, height)):
        for j in range(min(grid, width)):
            top, bottom = i * height // grid, math.ceil((i + 1) * height / grid)
            left, right = j * width // grid, math.ceil((j + 1) * width / grid)
            out.append(activation[:, :, top:bottom, left:right].mean((2, 3)))
    return np.stack(out, 2)


@pytest.mark.parametrize("at", ["consumer", "producer"])
@pytest.mark.parametrize("grid", [0, 1, 2])
def test_moments_equal_a_direct_computation(resnet, at, grid):
    net, groups = resnet
    source, wanted = samples(), ClassMoments(grid=grid, at=at)
    found = gather(net, groups, source, [wanted], classes=3, batch_size=7)[wanted.key]
    labels = source.labels.numpy()
    for group in groups:
        values = cells_loop(activations(net, group, at, source), group.size, grid)
        for c in range(3):
            members = values[labels == c]
            mean = members.mean(0)
            assert found[f"{group.name}/count"][c] == len(members)
            np.testing.assert_allclose(found[f"{group.name}/mean"][c], mean, atol=1e-9)
            np.testing.assert_allclose(
                found[f"{group.name}/m2"][c], ((members - mean) ** 2).sum(0), atol=1e-9
            )


@pytest.mark.parametrize("grid", [0, 1])
def test_moments_of_a_flattened_map_are_those_of_the_map(flattened, grid):
    net, groups = flattened
    conv = next(g for g in groups if g.name == "conv2")
    source, wanted = samples(), ClassMoments(grid=grid)
    found = gather(net, groups, source, [wanted], classes=3)[wanted.key]
    # fc1 reads the pooled 2×2 maps of conv2's six units in one row.
    maps = activations(net, conv, "consumer", source).reshape(24, 6, 2, 2)
    values = cells_loop(maps, 6, grid)
    for c in range(3):
        members = values[source.labels.numpy() == c]
        np.testing.assert_allclose(found["conv2/mean"][c], members.mean(0), atol=1e-9)


def test_the_size_of_a_batch_does_not_matter(resnet):
    net, groups = resnet
    once = gather(net, groups, samples(), ALL, classes=3, batch_size=24)
    for batch_size in (1, 5, 23):
        again = gather(net, groups, samples(), ALL, classes=3, batch_size=batch_size)
        assert once.keys() == again.keys()
        for key, tensors in once.items():
            assert tensors.keys() == again[key].keys()
            for name, tensor in tensors.items():
                np.testing.assert_allclose(
                    again[key][name], tensor, rtol=1e-9, atol=1e-9, err_msg=f"{key} {name}"
                )


def test_what_is_gathered_beside_it_does_not_matter(resnet):
    net, groups = resnet
    together = gather(net, groups, samples(), ALL, classes=3)
    for wanted in ALL:
        alone = gather(net, groups, samples(), [wanted], classes=3)
        assert list(alone) == [wanted.key]
        assert tiny.same_state(alone[wanted.key], together[wanted.key])


def gate_loop(net, group, source):
    """Mean of (∂loss/∂gate)² with a real gate of 1 before the consumer, one sample at a time."""
    member = group.of_role("consumer")[0]
    total = torch.zeros(group.size, dtype=torch.float64)
    for x, y in source.batches(1):
        gate = torch.ones(group.size, dtype=torch.float64, requires_grad=True)

        def close(_, inputs, gate=gate):
            wide = gate.repeat_interleave(member.span)
            return (inputs[0] * wide.view(1, -1, *[1] * (inputs[0].ndim - 2)),)

        handle = net.get_submodule(member.layer).register_forward_pre_hook(close)
        loss = F.cross_entropy(net(x), y)
        handle.remove()
        total += torch.autograd.grad(loss, gate)[0].square()
    return total / len(source)


@pytest.mark.parametrize("which", ["resnet", "flattened"])
def test_gate_gradient_equals_an_explicit_gate_sample_by_sample(which, request):
    net, groups = request.getfixturevalue(which)
    source = samples(10)
    found = Profile(
        groups, tiny.NoCost(), gather(net, groups, source, [GateGradient()], classes=3, batch_size=4)
    )
    for group in groups:
        wanted = gate_loop(net, group, source)
        assert wanted.max() > 0
        np.testing.assert_allclose(found.gate_gradient(group), wanted, rtol=1e-9, atol=1e-15)


def test_gate_gradient_of_a_frozen_model_is_the_same():
    net = tiny.randomise(tiny.Flattened()).double()
    groups = find_units(net, torch.zeros(1, 1, 12, 12, dtype=torch.float64)).groups
    free = gather(net, groups, samples(), [GateGradient()], classes=3)
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    frozen = gather(net, groups, samples(), [GateGradient()], classes=3)
    assert tiny.same_state(free["gate_gradient"], frozen["gate_gradient"])


class Branches(nn.Module):
    """One producer, read twice: as it is, and behind an activation."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 3, 3)
        self.made = nn.Conv2d(3, 5, 3)
        self.plain = nn.Conv2d(5, 4, 3)
        self.behind = nn.Conv2d(5, 4, 3)
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        h = self.made(self.stem(x))
        return self.fc((self.plain(h) + self.behind(torch.tanh(h))).mean((2, 3)))


def test_gate_gradient_counts_every_consumer():
    # Once a bug: "all consumers of a group read the same tensor" is wrong where
    # one reads in front of an activation and one behind it. Closing a unit silences it for both.
    net = tiny.randomise(Branches()).double()
    groups = find_units(net, torch.zeros(1, 1, 12, 12, dtype=torch.float64)).groups
    group = next(g for g in groups if g.name == "made")
    assert len(group.of_role("consumer")) == 2
    found = gather(net, groups, samples(6), [GateGradient()], classes=3)["gate_gradient"]
    total = torch.zeros(5, dtype=torch.float64)
    for x, y in samples(6).batches(1):
        gate = torch.ones(5, dtype=torch.float64, requires_grad=True)
        handles = [
            net.get_submodule(m.layer).register_forward_pre_hook(
                lambda _, i, gate=gate: (i[0] * gate.view(1, -1, 1, 1),)
            )
            for m in group.of_role("consumer")
        ]
        total += torch.autograd.grad(F.cross_entropy(net(x), y), gate)[0].square()
        for handle in handles:
            handle.remove()
    np.testing.assert_allclose(found["made/sum"], total, rtol=1e-9)


def weight_loop(net, group, kind):
    weight = net.get_submodule(group.name).weight.detach().double()
    rows = [w.flatten().tolist() for w in weight]
    if kind == "l1_norm":
        return [sum(abs(v) for v in row) for row in rows]
    if kind == "geometric_median":
        return [sum(math.dist(a, b) for b in rows) for a in rows]
    norm = next((m.layer for m in group.of_role("carrier")), None)
    return [abs(float(v)) for v in net.get_submodule(norm).weight.detach()] if norm else []


@pytest.mark.parametrize("kind", ["l1_norm", "geometric_median", "bn_scale"])
@pytest.mark.parametrize("which", ["resnet20", "flattened", "perceptron"])
def test_weight_scores_equal_loops(traced, which, kind):
    net, units = traced[which]
    found = gather(net, units.groups, samples(), [WeightScore(kind)], classes=3)
    for group in units.groups:
        np.testing.assert_allclose(
            found[f"weights-{kind}"][group.name], weight_loop(net, group, kind), rtol=1e-9
        )
        assert found[f"weights-{kind}"][group.name].dtype == torch.float64


def test_bn_scale_ignores_the_sign_and_is_empty_without_a_batch_norm(traced):
    net, units = traced["perceptron"]
    found = gather(net, units.groups, samples(), [WeightScore("bn_scale")], classes=3)
    assert all(not len(score) for score in found["weights-bn_scale"].values())
    other = tiny.network("resnet20")
    with torch.no_grad():
        other.layer1[0].bn1.weight.copy_(torch.tensor([-2.0, 1.0, 0.5, -0.25]))
    groups = traced["resnet20"][1].groups
    found = gather(other, groups, samples(), [WeightScore("bn_scale")], classes=3)
    assert found["weights-bn_scale"]["layer1.0.conv1"].tolist() == [2.0, 1.0, 0.5, 0.25]


class Unread:
    """A source that must not be read."""

    def __len__(self):
        return 1

    def batches(self, batch_size):
        raise AssertionError("the samples were read")


def test_weight_scores_do_not_read_the_samples(traced):
    net, units = traced["perceptron"]
    assert gather(net, units.groups, Unread(), [WeightScore("l1_norm")], classes=3)


def test_nothing_is_left_behind():
    net = tiny.network("resnet20").double()
    groups = find_units(net, torch.zeros(1, 1, 12, 12, dtype=torch.float64)).groups
    before, hooks = tiny.state_of(net), hooks_on(net)
    gather(net, groups, samples(), ALL, classes=3)
    assert hooks_on(net) == hooks == 0
    assert all(p.grad is None for p in net.parameters())
    assert tiny.same_state(before, tiny.state_of(net))  # running statistics too


@pytest.mark.parametrize("cause", [RuntimeError, KeyboardInterrupt])
def test_hooks_go_away_when_a_pass_is_broken_off(cause):
    net = tiny.randomise(tiny.Flattened()).double()
    groups = find_units(net, torch.zeros(1, 1, 12, 12, dtype=torch.float64)).groups

    class Broken(tiny.DoubleSource):
        def batches(self, batch_size):
            yield from list(super().batches(batch_size))[:1]
            raise cause("in the middle")

    with pytest.raises(cause, match="in the middle"):
        gather(net, groups, tiny.source(24, kind=Broken), ALL, classes=3, batch_size=8)
    assert hooks_on(net) == 0


def test_the_users_own_tensors_are_left_as_they_were():
    # Once a bug: x is the loader's own tensor when nothing has to be moved or
    # converted; requires_grad_ marks it for good and backward leaves a gradient of its size on it.
    net = tiny.randomise(tiny.Flattened()).double()
    groups = find_units(net, torch.zeros(1, 1, 12, 12, dtype=torch.float64)).groups
    batches = list(samples().batches(8))
    gather(net, groups, LoaderSource(batches, 24), [GateGradient()], classes=3)
    assert [x.requires_grad for x, _ in batches] == [False] * 3
    assert [x.grad for x, _ in batches] == [None] * 3


def test_labels_outside_the_models_classes_are_refused(resnet):
    net, groups = resnet
    with pytest.raises(UserError, match="outside the model's 3 classes"):
        gather(net, groups, samples(24, classes=4), [ClassMoments()], classes=4)


@pytest.mark.parametrize("wanted", [ClassMoments(), GateGradient()])
@pytest.mark.parametrize("label", [-1, 3])
def test_labels_outside_the_datas_classes_are_refused(resnet, wanted, label):
    # Once a bug: the moments' hook counts labels before check_logits has seen them, and
    # check_logits (measure/accuracy.py:71) knows no negative label: RuntimeError or IndexError, not the
    # UserError that is promised.
    net, groups = resnet
    x, y = next(samples(6).batches(6))
    y = y.clone()
    y[2] = label
    with pytest.raises(UserError, match="label"):
        gather(net, groups, LoaderSource([(x, y)], 6), [wanted], classes=3)


def test_nan_is_refused_and_named():
    net = tiny.randomise(tiny.Flattened()).double()
    groups = find_units(net, torch.zeros(1, 1, 12, 12, dtype=torch.float64)).groups
    with torch.no_grad():
        net.fc2.bias[0] = float("nan")
    with pytest.raises(UserError, match="NaN"):
        gather(net, groups, samples(), [GateGradient()], classes=3)
    assert hooks_on(net) == 0
