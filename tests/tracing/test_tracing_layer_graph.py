"""Where layers' outputs go, in networks written in all the ways people write them."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import texts
import tiny
from coprune.tracing.call_trace import Record, Taps
from coprune.tracing.layer_graph import Site, find_sites

MAPS = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))


def sites(model, example=MAPS):
    return {s.layer: s for s in find_sites(model.eval(), example)}


@torch.no_grad()
def value_at(model, place, x):
    """What is made at a place in one pass."""
    seen, x = [], x.clone()
    with Taps({place: [lambda t: seen.append(t.clone())]}).of(model):
        model(x)
    assert len(seen) == 1
    return seen[0]


class Block(nn.Module):
    """A residual block; when the skip path runs, how the sum is written and rectified, is given."""

    def __init__(self, *, skip="before", how="out + skip", relu=None, out=4):
        super().__init__()
        self.conv1 = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.down = nn.Sequential(nn.Conv2d(4, out, 1), nn.BatchNorm2d(out)) if skip != "identity" else None
        self.relu = relu or nn.ReLU(inplace=True)
        self.skip, self.how = skip, how

    def forward(self, x):
        x = x * 1.0
        skip = self.down(x) if self.skip == "before" else x
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        if self.skip == "after":
            skip = self.down(x)
        if self.how == "out += skip":
            out += skip
        else:
            out = {
                "out + skip": lambda: out + skip,
                "skip + out": lambda: skip + out,
                "torch.add": lambda: torch.add(out, skip),
                "out.add": lambda: out.add(skip),
                "out.add_": lambda: out.add_(skip),
            }[self.how]()
        return self.relu(out)


HOWS = ["out + skip", "skip + out", "out += skip", "torch.add", "out.add", "out.add_"]


@pytest.mark.parametrize("how", HOWS)
def test_an_identity_is_the_other_operand_of_the_second_convolution(how):
    net = tiny.randomise(Block(skip="identity", how=how))
    found = sites(net)
    assert list(found) == ["conv1", "conv2"]
    assert found["conv1"] == Site("conv1", norm="bn1", rectified=True, places=36)
    last = found["conv2"]
    assert (last.norm, last.addition, last.rectified, last.places) == ("bn2", True, True, 36)
    torch.testing.assert_close(value_at(net, last.other, MAPS), MAPS)


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("skip", ["before", "after"])
def test_of_two_summed_layers_the_one_that_runs_later_makes_up_for_the_other(skip, how):
    net = tiny.randomise(Block(skip=skip, how=how, out=8))
    found = sites(net)
    first, last = ("down.0", "conv2") if skip == "before" else ("conv2", "down.0")
    norms = {"down.0": "down.1", "conv2": "bn2"}
    # What the rectifier does to the sum depends on a summand that is not there yet.
    assert found[first] == Site(first, norm=norms[first], addition=True, places=36)
    assert (found[last].norm, found[last].addition, found[last].rectified) == (norms[last], True, True)
    with torch.no_grad():
        branch = (
            net.down(MAPS) if first == "down.0" else net.bn2(net.conv2(torch.relu(net.bn1(net.conv1(MAPS)))))
        )
    torch.testing.assert_close(value_at(net, found[last].other, MAPS), branch)


def test_the_projects_own_networks(traced):
    example = torch.zeros(2, 1, 12, 12)
    found = sites(traced["resnet20"][0], example)
    assert len(found) == 22
    assert found["conv1"] == Site("conv1", norm="bn1", rectified=True, places=144)
    assert found["layer1.0.conv2"].addition
    assert found["layer1.0.conv2"].other
    assert found["layer2.0.downsample.0"].addition
    assert found["layer2.0.downsample.0"].other is None  # runs before conv2
    assert found["fc"] == Site("fc")
    found = sites(traced["vgg16_bn"][0], example)
    assert all(s.norm and s.rectified and not s.addition for n, s in found.items() if "features" in n)
    assert sites(traced["flattened"][0], example)["conv2"] == Site(
        "conv2", norm="bn", rectified=True, places=16
    )


class Chain(nn.Module):
    """conv → what is given → conv → global average."""

    def __init__(self, between, *, channels=4, conv=None):
        super().__init__()
        self.conv1 = conv or nn.Conv2d(4, channels, 3, padding=1)
        self.between = between
        self.conv2 = nn.Conv2d(channels, 3, 1)

    def forward(self, x):
        return self.conv2(self.between(self.conv1(x))).mean((2, 3))


class Do(nn.Module):
    """A function as a module."""

    def __init__(self, what):
        super().__init__()
        self.what = what

    def forward(self, x):
        return self.what(x)


@pytest.mark.parametrize(
    ("between", "rectified"),
    [
        (nn.ReLU(), True),
        (nn.ReLU(inplace=True), True),
        (nn.ReLU6(inplace=True), True),
        (Do(F.relu), True),
        (Do(lambda x: F.relu(x, inplace=True)), True),
        (Do(torch.relu), True),
        (Do(torch.relu_), True),
        (Do(lambda x: x.relu()), True),
        (Do(lambda x: x.relu_()), True),
        (nn.Sequential(nn.Dropout(), nn.Identity(), nn.ReLU()), True),  # in evaluation they do nothing
        (nn.Identity(), False),
        (nn.GELU(), False),
        (nn.SiLU(inplace=True), False),
        (Do(lambda x: F.leaky_relu(x, 0.1)), False),
        (Do(lambda x: F.relu(x) + 0.1 * x), False),  # x is read besides
        (Do(lambda x: torch.cat([F.relu(x[:, :2]), x[:, 2:]], 1)), False),
        (nn.MaxPool2d(2), False),
        (nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.ReLU()), False),  # the depthwise one reads it
    ],
)
def test_rectified_means_that_nobody_reads_what_is_below_0(between, rectified):
    found = sites(Chain(between))
    assert list(found) == ["conv1", "conv2"]  # no depthwise layer
    assert found["conv1"] == Site("conv1", rectified=rectified, places=36)


@pytest.mark.parametrize(("low", "rectified"), [(0.0, True), (-1.0, False), (0.5, True)])
def test_hardtanh_is_a_rectifier_only_when_it_cuts_what_is_below_0(low, rectified):
    # Once a bug: below 0 are the same to a Hardtanh(-1, 1) only those below -1.
    assert sites(Chain(nn.Hardtanh(low, 2.0)))["conv1"].rectified is rectified


@pytest.mark.parametrize("scalar", [Do(lambda x: x + 1.0), Do(lambda x: x + torch.tensor(1.0))])
def test_a_sum_with_a_scalar_is_no_residual_sum(scalar):
    assert sites(Chain(scalar))["conv1"] == Site("conv1", places=36)


@pytest.mark.parametrize(
    "what",
    [
        lambda x: x + x.mean((2, 3), keepdim=True),  # not of one shape
        lambda x: torch.add(x, torch.ones_like(x), alpha=2),  # not the plain sum
        lambda x: x - torch.ones_like(x),
        lambda x: torch.ones_like(x) + x * 2,
    ],
)
def test_other_sums_are_no_residual_sums(what):
    found = sites(Chain(Do(what)))["conv1"]
    assert (found.addition, found.other) == (False, None)


def test_a_sum_with_itself_waits_for_nobody():
    found = sites(Chain(Do(lambda x: x + x)))["conv1"]
    assert found.other is None
    assert not found.rectified


def test_pre_activation_blocks():
    class PreActivation(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(4, 4, 3, padding=1)
            self.bn1, self.bn2 = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
            self.conv1, self.conv2 = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(2))
            self.relu = nn.ReLU(inplace=True)

        def forward(self, x):
            x = self.stem(x)
            out = self.conv1(self.relu(self.bn1(x)))
            out = self.conv2(self.relu(self.bn2(out)))
            return (out + x).mean((2, 3))

    net = tiny.randomise(PreActivation())
    found = sites(net)
    assert found["stem"] == Site("stem", places=36)  # the norm is not the only one that reads it
    assert found["conv1"] == Site("conv1", norm="bn2", rectified=True, places=36)
    assert found["conv2"].addition
    assert not found["conv2"].rectified
    with torch.no_grad():
        torch.testing.assert_close(value_at(net, found["conv2"].other, MAPS), net.stem(MAPS))


def test_a_skip_path_that_is_rectified_in_place_is_read_rectified():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.conv = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x):
            x = self.stem(x)
            out = F.relu(x, inplace=True)
            return (self.conv(out) + x).mean((2, 3))

    net = tiny.randomise(Net())
    found = sites(net)
    assert found["stem"].rectified
    with torch.no_grad():
        torch.testing.assert_close(value_at(net, found["conv"].other, MAPS), net.stem(MAPS).relu())


class Twice(nn.Module):
    """Layers that run twice."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2, self.conv3 = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(3))
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x):
        x = torch.relu(self.norm(self.conv1(x)))
        x = torch.relu(self.norm(self.conv2(x)))
        return self.conv3(self.conv3(x)).mean((2, 3))


def test_a_layer_that_runs_twice_is_said_to():
    assert {name: site.runs for name, site in sites(Twice()).items()} == {"conv1": 1, "conv2": 1, "conv3": 2}


def test_a_layer_that_runs_on_maps_of_two_sizes_is_left_out():
    class Pyramid(Twice):
        def forward(self, x):
            return self.conv3(F.avg_pool2d(self.conv3(self.conv1(x)), 2)).mean((2, 3))

    assert list(sites(Pyramid())) == ["conv1"]


def test_a_norm_that_runs_twice_belongs_to_no_layer():
    # Once a bug: what one layer would add to its running mean, the other would lose.
    assert [s.norm for s in sites(Twice()).values()] == [None, None, None]


def test_a_norm_without_running_statistics_is_none():
    # Once a bug: there is no mean and variance to read; a TypeError.
    net = Chain(nn.Sequential(nn.BatchNorm2d(4, track_running_stats=False), nn.ReLU()))
    assert sites(net)["conv1"] == Site("conv1", places=36)


@pytest.mark.parametrize("mode", ["zeros", "reflect", "circular"])
def test_how_a_convolution_pads_does_not_matter(mode):
    # Once a bug: padding that is a call of its own was taken for a second run of the layer.
    conv = nn.Conv2d(4, 4, 3, padding=1, padding_mode=mode)
    found = sites(Chain(nn.Sequential(nn.BatchNorm2d(4), nn.ReLU()), conv=conv))
    assert found["conv1"] == Site("conv1", norm="between.0", rectified=True, places=36)


def test_a_grouped_convolution_is_no_dense_layer():
    assert list(sites(Chain(nn.ReLU(), conv=nn.Conv2d(4, 4, 3, groups=2)))) == ["conv2"]


def test_tokens_are_places_and_a_layer_norm_is_no_batch_norm():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.down, self.norm = nn.Linear(6, 8), nn.Linear(8, 6), nn.LayerNorm(6)
            self.fc = nn.Linear(6, 3)

        def forward(self, x):
            x = x[:, 0]
            return self.fc(self.norm(x + self.down(torch.relu(self.up(x)))).mean(1))

    found = sites(Tokens())
    assert found["up"] == Site("up", rectified=True, places=6)
    assert (found["down"].norm, found["down"].addition, found["down"].places) == (None, True, 6)
    assert found["down"].other
    assert found["fc"] == Site("fc")


def test_a_linear_layer_with_batch_norm():
    net = nn.Sequential(nn.Flatten(), nn.Linear(144, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3))
    assert sites(net)["1"] == Site("1", norm="2", rectified=True)


def test_a_batch_norm_over_tokens_is_not_the_layers():
    # Once a bug: its scale was taken for one of the layer's outputs, a crash or, with as many tokens as
    # outputs, a wrong target.
    for tokens in (6, 4):
        net = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(tokens), nn.ReLU(), nn.Linear(6, 3))
        first, _ = find_sites(net.eval(), torch.randn(2, tokens, 5))
        assert (first.layer, first.norm, first.rectified) == ("0", None, False)


def test_nothing_is_left_behind():
    net = tiny.randomise(Block())
    before = tiny.state_of(net)
    x = MAPS.clone()
    find_sites(net, x)
    assert tiny.same_state(before, tiny.state_of(net))
    assert torch.equal(x, MAPS)
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in net.modules())


def test_an_example_that_the_model_changes_in_place_stays_the_callers():
    # Once a bug: the first samples of the calibration set were rectified by looking at the network.
    net = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(4, 3, 1))
    x = MAPS.clone()
    find_sites(net, x)
    assert torch.equal(x, MAPS)


def test_a_pass_has_the_same_calls_again_and_in_a_smaller_copy():
    def calls(model):
        record = Record()
        with torch.no_grad(), record.of(model):
            model(torch.zeros(2, 1, 12, 12))
        return [(c.number, c.name, c.addition) for c in record.calls]

    full = tiny.network("resnet20")
    assert calls(full) == calls(full) == calls(tiny.network("resnet20", width=3))


class Two(nn.Module):
    """Two convolutions of one shape and a third of another."""

    def __init__(self):
        super().__init__()
        self.first, self.second = (nn.Conv2d(4, 4, 3, padding=1, bias=False) for _ in range(2))
        self.third = nn.Conv2d(4, 4, 1)

    def forward(self, x):
        return self.third(F.relu(self.second(F.relu(self.first(x)))))


def test_weights_that_two_layers_share_are_left_alone():
    net = Two()
    net.second.weight = net.first.weight
    assert list(sites(net)) == ["third"]


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("normalise", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm])
def test_weights_that_are_made_anew_at_every_call_are_left_alone(normalise):
    net = Two()
    normalise(net.second)
    assert list(sites(net)) == ["first", "third"]


def test_a_batch_without_padding_has_its_values_in_the_same_places(tmp_path):
    # Once a bug: without padding no mask is made, and later calls had other numbers than with it.
    from transformers import AutoModelForSequenceClassification

    folder = texts.tiny_text_model(tmp_path / "model", classes=3)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    ids = torch.randint(4, 10, (3, 7), generator=torch.Generator().manual_seed(0))
    full, padded = (
        {"input_ids": ids, "attention_mask": (torch.arange(7) < torch.tensor(n).unsqueeze(1)).long()}
        for n in ([7, 7, 7], [7, 3, 5])
    )
    found = find_sites(model, full)
    assert found == find_sites(model, padded)
    assert sum(site.other is not None for site in found) == 4  # two sums a layer
