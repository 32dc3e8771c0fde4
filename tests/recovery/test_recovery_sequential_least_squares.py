"""The walk: nothing got worse, what was said twice comes back exactly, and no label is read."""

import copy

import pytest
import torch
from torch import nn

import tiny
from coprune.data import ArraySource, LoaderSource
from coprune.errors import UserError
from coprune.groups import find_units
from coprune.recovery import Pair, kept_outputs, least_squares
from coprune.recovery.ridge import EXACT
from coprune.surgery import cut
from coprune.training.distill import matched_blocks

IMAGE = torch.zeros(1, 1, 12, 12)
NETS = ["resnet20", "vgg16_bn", "flattened", "perceptron"]


def noise(n=60, seed=0, shape=(1, 12, 12)):
    """Samples of float noise; their labels are nonsense."""
    generator = torch.Generator().manual_seed(seed)
    return ArraySource(torch.randn(n, *shape, generator=generator), torch.arange(n) % 3)


@torch.no_grad()
def outputs(model, source):
    return model.eval()(source.images)


def of_group(net, name, example=IMAGE):
    return next(g for g in find_units(net, example).groups if g.name == name)


def gap(a, b):
    """Largest difference of two outputs, over the spread of the first."""
    return float((a - b).abs().max() / a.std())


@torch.no_grad()
def duplicate(net, group, unit, of):
    """Let a unit of a group say what another one says, with its own weights on the reading side."""
    for member in group.members:
        if member.role != "consumer":
            layer = net.get_submodule(member.layer)
            for tensor in [*layer.parameters(recurse=False), *layer.buffers(recurse=False)]:
                if tensor.ndim:
                    tensor[unit] = tensor[of]


def cut_units(net, group, gone, example=IMAGE):
    """The network without some units of a group, and what it kept."""
    decisions = (tiny.decision(group, [u for u in range(group.size) if u not in gone]),)
    return cut(net, decisions), kept_outputs(net, decisions)


def conv_bn(channels_in, channels_out, *, bias, norm):
    layers = [nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=bias)]
    if norm:
        layers.append(nn.BatchNorm2d(channels_out))
    return [*layers, nn.ReLU(inplace=True)]


def chain(*, bias=False, norm=True):
    """conv → conv → conv, global average, linear."""
    return nn.Sequential(
        *conv_bn(1, 5, bias=bias, norm=norm),
        *conv_bn(5, 6, bias=bias, norm=norm),
        *conv_bn(6, 5, bias=bias, norm=norm),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(20, 3),
    )


class Residual(nn.Module):
    """A stem, a block with identity or with a projected skip path that runs before or after, a head."""

    def __init__(self, *, skip="identity", bias=False):
        super().__init__()
        self.stem = nn.Sequential(*conv_bn(1, 5, bias=bias, norm=True))
        self.conv1, self.bn1 = nn.Conv2d(5, 6, 3, padding=1, bias=bias), nn.BatchNorm2d(6)
        self.conv2, self.bn2 = nn.Conv2d(6, 5, 3, padding=1, bias=bias), nn.BatchNorm2d(5)
        self.down = None if skip == "identity" else nn.Sequential(nn.Conv2d(5, 5, 1), nn.BatchNorm2d(5))
        self.fc = nn.Linear(5, 3)
        self.relu, self.skip = nn.ReLU(inplace=True), skip

    def forward(self, x):
        x = self.stem(x)
        skip = self.down(x) if self.skip == "before" else x
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        if self.skip == "after":
            skip = self.down(x)
        out += skip
        return self.fc(self.relu(out).mean((2, 3)))


class TokenNet(nn.Module):
    """Images stand for 12 tokens of 12 features; a residual sum of linear layers."""

    def __init__(self):
        super().__init__()
        self.embed, self.up, self.down, self.fc = (nn.Linear(*s) for s in [(12, 8), (8, 10), (10, 8), (8, 3)])

    def forward(self, x):
        x = self.embed(x.squeeze(1))
        return self.fc((x + self.down(torch.relu(self.up(x)))).mean(1))


# Network, group that has a unit twice.
TWINS = {
    "chain": (chain, "3"),
    "bias, no norm": (lambda: chain(bias=True, norm=False), "2"),
    "bias and norm": (lambda: chain(bias=True, norm=True), "3"),
    "neither": (lambda: chain(bias=False, norm=False), "2"),
    "identity": (Residual, "conv1"),
    "skip before": (lambda: Residual(skip="before"), "conv1"),
    "skip after": (lambda: Residual(skip="after", bias=True), "conv1"),
    "depthwise": (tiny.Depthwise, "expand"),
    "flattened": (tiny.Flattened, "conv2"),
    "perceptron": (tiny.Perceptron, "fc2"),
    "tokens": (TokenNet, "up"),
}


@pytest.mark.parametrize("which", TWINS)
def test_what_was_said_twice_is_recovered_when_one_of_the_twins_goes(which):
    build, name = TWINS[which]
    teacher = tiny.randomise(build())
    group = of_group(teacher, name)
    duplicate(teacher, group, 3, of=1)
    pruned, kept = cut_units(teacher, group, [3])
    source, unseen = noise(), noise(seed=1)
    before = gap(outputs(teacher, unseen), outputs(pruned, unseen))
    done = least_squares(Pair(pruned, teacher, kept), source)
    assert gap(outputs(teacher, unseen), outputs(pruned, unseen)) < min(1e-3, 0.03 * before)
    consumer = group.of_role("consumer")[0].layer
    changed = {layer.layer: layer for layer in done}[consumer]
    assert changed.changed
    assert changed.after < 1e-5 < changed.before
    assert changed.ridge < float("inf")


@pytest.mark.parametrize("which", TWINS)
def test_without_a_twin_much_of_what_was_lost_comes_back(which):
    build, name = TWINS[which]
    teacher = tiny.randomise(build())
    group = of_group(teacher, name)
    pruned, kept = cut_units(teacher, group, [0, 3])
    source, unseen = noise(), noise(seed=1)

    def error():
        return float((outputs(teacher, unseen) - outputs(pruned, unseen)).square().mean())

    before = error()
    done = least_squares(Pair(pruned, teacher, kept), source)
    assert error() < before
    for layer in done:
        assert layer.changed == (layer.after < layer.before and layer.before > EXACT)


@pytest.mark.parametrize("name", NETS)
def test_a_copy_that_lost_nothing_stays_as_it_is(traced, name):
    teacher = traced[name][0]
    model = copy.deepcopy(teacher)
    source = noise(24)
    done = least_squares(Pair(model, teacher, {}), source)
    wanted = outputs(teacher, source)
    assert gap(wanted, outputs(model, source)) < 1e-5
    assert all(layer.before < 1e-9 and layer.after < 1e-9 for layer in done if layer.changed)
    dense = [n for n, m in teacher.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert sorted(layer.layer for layer in done) == sorted(dense)
    assert done[-1].layer == dense[-1]


@pytest.mark.parametrize("name", NETS)
def test_the_unpruned_model_and_the_samples_are_left_as_they_were(traced, name):
    net, units = traced[name]
    teacher = copy.deepcopy(net)
    decisions = tiny.random_decisions(units.groups, 2)
    pruned, source = cut(teacher, decisions), noise(24)
    images = source.images.clone()
    least_squares(Pair(pruned, teacher, kept_outputs(teacher, decisions)), source)
    assert tiny.same_state(tiny.state_of(net), tiny.state_of(teacher))
    assert torch.equal(source.images, images)
    for model in (pruned, teacher):
        assert not model.training
        assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())
        assert all(p.requires_grad and p.grad is None for p in model.parameters())


def halved(teacher):
    """Half of every group is cut."""
    decisions = tuple(tiny.decision(g, list(range(0, g.size, 2))) for g in find_units(teacher, IMAGE).groups)
    return cut(teacher, decisions), kept_outputs(teacher, decisions)


def test_same_seed_same_weights_and_no_label_is_read(traced):
    teacher = traced["resnet20"][0]
    once, kept = halved(teacher)
    again, other, unlabelled = (copy.deepcopy(once) for _ in range(3))
    source = noise(24)
    shuffled = ArraySource(source.images, source.labels.flip(0) + 100)
    found = least_squares(Pair(once, teacher, kept), source, rows=200)
    assert found == least_squares(Pair(again, teacher, kept), source, rows=200)
    least_squares(Pair(unlabelled, teacher, kept), shuffled, rows=200)
    least_squares(Pair(other, teacher, kept), source, rows=200, seed=1)
    assert tiny.same_state(tiny.state_of(once), tiny.state_of(again))
    assert tiny.same_state(tiny.state_of(once), tiny.state_of(unlabelled))
    assert not tiny.same_state(tiny.state_of(once), tiny.state_of(other))


def test_the_users_own_batches_give_what_the_arrays_give(traced):
    teacher = traced["flattened"][0]
    once, kept = halved(teacher)
    again, source = copy.deepcopy(once), noise(30)
    least_squares(Pair(once, teacher, kept), source)
    batches = [(source.images[i : i + 7], source.labels[i : i + 7]) for i in range(0, 30, 7)]
    least_squares(Pair(again, teacher, kept), LoaderSource(batches, 30))
    assert tiny.same_state(tiny.state_of(once), tiny.state_of(again))


@pytest.mark.parametrize("samples", [1, 2, 5])
def test_a_few_samples_are_no_error(samples):
    teacher = tiny.randomise(chain())
    pruned, kept = halved(teacher)
    least_squares(Pair(pruned, teacher, kept), noise(samples))
    assert all(torch.isfinite(p).all() for p in pruned.parameters())


def test_little_memory_takes_fewer_samples_evenly_and_more_places_of_each(monkeypatch):
    teacher = tiny.randomise(chain())
    pruned, kept = halved(teacher)
    source, unseen = noise(400), noise(seed=1)
    seen = []
    forward = pruned.forward
    monkeypatch.setattr(pruned, "forward", lambda x: (seen.append(x.clone()), forward(x))[1])

    def error():
        return float((outputs(teacher, unseen) - outputs(pruned, unseen)).square().mean())

    before = error()
    least_squares(Pair(pruned, teacher, kept), source, rows=800, memory=1)
    walked = torch.cat([x for x in seen if len(x) == 1])  # one at a time, and each waits for the others
    assert torch.equal(walked[-16:], source.images[::25])
    assert error() < before


def test_rows_are_as_many_as_asked_for(monkeypatch):
    from coprune.recovery import sequential_least_squares as sequential

    rows = {}
    solve = sequential.solve

    def counted(read, target, *args, held_back, **kwargs):
        rows[len(rows)] = (len(read), held_back)
        return solve(read, target, *args, held_back=held_back, **kwargs)

    monkeypatch.setattr(sequential, "solve", counted)
    teacher = tiny.randomise(chain())
    pruned, kept = halved(teacher)
    least_squares(Pair(pruned, teacher, kept), noise(40), rows=400)
    assert [rows[i] for i in range(3)] == [(400, 50)] * 3  # 10 places of 40 samples, those of 5 held back
    assert rows[3] == (40, 5)  # the head has one place a sample


@pytest.mark.parametrize("zeros", ["one", "all"])
@pytest.mark.parametrize("bias", [False, True])
def test_a_batch_norm_that_scales_by_zero_gives_no_nan(zeros, bias):
    teacher = tiny.randomise(Residual(bias=bias))
    with torch.no_grad():
        # As a block starts whose last norm is initialised with zeros.
        teacher.bn2.weight[... if zeros == "all" else 2] = 0.0
        teacher.bn1.weight[1] = 0.0
    pruned, kept = halved(teacher)
    still = pruned.conv2.weight.clone()
    done = least_squares(Pair(pruned, teacher, kept), noise())
    assert all(torch.isfinite(t).all() for t in tiny.state_of(pruned).values())
    assert all(layer.after >= 0 for layer in done)
    dead = slice(None) if zeros == "all" else 2
    assert torch.equal(pruned.conv2.weight[dead], still[dead])


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm2d(6, affine=False),
        nn.BatchNorm2d(6, track_running_stats=False),  # once a bug: a TypeError
        nn.GroupNorm(1, 6),
        nn.Identity(),
    ],
)
def test_other_norms(norm):
    teacher = tiny.randomise(chain(bias=True))
    teacher[4] = norm
    pruned, source = copy.deepcopy(teacher), noise(100)
    with torch.no_grad():
        pruned[0].weight.mul_(0.8)
        before = gap(outputs(teacher, source), outputs(pruned, source))
    least_squares(Pair(pruned, teacher, {}), source)
    assert gap(outputs(teacher, source), outputs(pruned, source)) < 0.1 * before


def test_what_is_added_is_folded_into_the_running_mean_where_there_is_no_bias():
    # The skip path's constant error can only be made up for by an offset.
    teacher = tiny.randomise(Residual())
    pruned = copy.deepcopy(teacher)
    with torch.no_grad():
        pruned.bn2.running_mean += 0.7
    before = pruned.bn2.running_mean.clone()
    least_squares(Pair(pruned, teacher, {}), noise())
    assert not torch.equal(pruned.bn2.running_mean, before)
    torch.testing.assert_close(pruned.bn2.running_mean, teacher.bn2.running_mean, rtol=0, atol=1e-3)
    assert pruned.conv2.bias is None
    assert gap(outputs(teacher, noise(seed=1)), outputs(pruned, noise(seed=1))) < 1e-3


def test_the_layer_before_a_sum_makes_up_for_the_skip_path():
    # The skip path is half as strong again and has no weights to solve.
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))
            self.conv, self.fc = nn.Conv2d(1, 1, 3, padding=1), nn.Linear(1, 3)

        def forward(self, x):
            return self.fc((x * self.scale + self.conv(x)).mean((2, 3)))

    teacher = tiny.randomise(Net())
    pruned, source = copy.deepcopy(teacher), noise()
    with torch.no_grad():
        pruned.scale += 0.5
        centre = teacher.conv.weight[0, 0, 1, 1] - 0.5
    done = least_squares(Pair(pruned, teacher, {}), source)
    assert [layer.changed for layer in done][:1] == [True]
    assert float(pruned.conv.weight[0, 0, 1, 1].detach()) == pytest.approx(float(centre), abs=1e-3)
    assert gap(outputs(teacher, source), outputs(pruned, source)) < 1e-3


def test_a_model_whose_first_layer_works_in_place():
    # Once a bug: the unpruned model's pass rectified the samples that the pruned one then read.
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = chain()

        def forward(self, x):
            return self.body(x.sub_(0.5))

    teacher = tiny.randomise(Net())
    group = of_group(teacher, "body.3")
    duplicate(teacher, group, 3, of=1)
    pruned, kept = cut_units(teacher, group, [3])
    source = noise()
    done = least_squares(Pair(pruned, teacher, kept), LoaderSource([(source.images, source.labels)], 60))
    assert done[0].before < 1e-9  # nothing is wrong before the cut
    assert torch.equal(source.images, noise().images)
    wanted, found = (m.eval()(noise(seed=1).images).detach() for m in (teacher, pruned))
    assert gap(wanted, found) < 1e-3


def test_a_depthwise_layer_that_is_left_with_one_channel():
    # Once a bug: with one group it looked dense, and the models seemed to be different networks.
    teacher = tiny.randomise(tiny.Depthwise())
    group = of_group(teacher, "expand")
    pruned, kept = cut_units(teacher, group, range(1, 8))
    assert pruned.spatial.groups == 1
    done = least_squares(Pair(pruned, teacher, kept), noise())
    assert [r.layer for r in done] == ["stem", "expand", "project", "mix", "fc"]
    assert tuple(matched_blocks(pruned, teacher, kept)) == ("project",)


def test_different_networks_are_refused(traced):
    with pytest.raises(UserError, match="not the same network"):
        least_squares(Pair(tiny.network("vgg16_bn", width=3), traced["resnet20"][0], {}), noise(8))


def test_missing_or_wrong_kept_channels_are_refused_and_named(traced):
    teacher = traced["flattened"][0]
    pruned, kept = halved(teacher)
    before = tiny.state_of(pruned)
    lacking = {name: index for name, index in kept.items() if name != "fc1"}
    with pytest.raises(UserError, match="layer 'fc1' has 5 of 10 channels"):
        least_squares(Pair(pruned, teacher, lacking), noise(8))
    with pytest.raises(UserError, match="layer 'conv2' has 3 of 6 channels"):
        least_squares(Pair(pruned, teacher, {**kept, "conv2": torch.arange(4)}), noise(8))
    assert tiny.same_state(before, tiny.state_of(pruned))


def test_progress_ends_with_an_error_too(monkeypatch):
    from coprune import progress
    from coprune.recovery import sequential_least_squares as sequential

    def fail(*args, **kwargs):
        raise RuntimeError("in the middle")

    monkeypatch.setattr(sequential, "solve", fail)
    teacher = tiny.randomise(chain())
    pruned, kept = halved(teacher)
    with pytest.raises(RuntimeError, match="in the middle"):
        least_squares(Pair(pruned, teacher, kept), noise(8))
    assert progress._active is None
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in pruned.modules())
