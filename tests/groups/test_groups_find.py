"""Which channels can go together: the project's networks and small pathological ones."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import tiny
from coprune.errors import UserError
from coprune.groups import ChannelGroup, channel_indices, find_units
from coprune.plan import Member
from coprune.surgery import sound

IMAGE = torch.zeros(1, 1, 12, 12)


def names(units):
    return [g.name for g in units.groups]


def reasons(units):
    return {s.layer: s.reason for s in units.skipped}


@pytest.mark.parametrize(("name", "blocks"), [("resnet20", 3), ("resnet56", 9)])
def test_resnet_groups_are_the_inner_channels_of_its_blocks(traced, name, blocks):
    _, units = traced[name]
    assert names(units) == [f"layer{s}.{b}.conv1" for s in (1, 2, 3) for b in range(blocks)]
    for group in units.groups:
        block = group.name.removesuffix(".conv1")
        assert set(group.members) == {
            Member(layer=f"{block}.conv1", role="producer"),
            Member(layer=f"{block}.bn1", role="carrier"),
            Member(layer=f"{block}.conv2", role="consumer"),
        }
        assert group.kind == "inner"
    width = 4 if name == "resnet20" else 3
    assert [g.size for g in units.groups] == [width * f for f in (1, 2, 4) for _ in range(blocks)]


@pytest.mark.parametrize(("name", "blocks"), [("resnet20", 3), ("resnet56", 9)])
def test_resnet_skips_sums_and_output_with_reasons(traced, name, blocks):
    net, units = traced[name]
    found = reasons(units)
    assert found["fc"] == "makes the model's output"
    second = {f"layer{s}.{b}.conv2" for s in (1, 2, 3) for b in range(blocks)}
    summed = {"conv1", "layer2.0.downsample.0", "layer3.0.downsample.0"} | second
    assert found.keys() == summed | {"fc"}
    assert all("added together" in found[layer] for layer in summed)
    # Every dense layer is accounted for once: a group or a reason.
    dense = [n for n, m in net.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert sorted([*names(units), *(s.layer for s in units.skipped)]) == sorted(dense)


def test_vgg_groups_are_all_convolutions_but_the_first(traced):
    # 13 convolutions; the first is left alone, the last is read by the classifier behind the pooling.
    net, units = traced["vgg16_bn"]
    convolutions = [n for n, m in net.named_modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 13
    assert names(units) == convolutions[1:]
    assert len(units.groups) == 12
    assert reasons(units) == {
        "features.0": "first layer, left alone",
        "classifier": "makes the model's output",
    }
    assert units.groups[-1].of_role("consumer") == (Member(layer="classifier", role="consumer"),)


def test_a_unit_of_a_flattened_map_spans_its_pixels(traced):
    _, units = traced["flattened"]
    assert names(units) == ["conv2", "fc1"]
    conv, fc = units.groups
    assert conv.size == 6
    assert set(conv.members) == {
        Member(layer="conv2", role="producer"),
        Member(layer="bn", role="carrier"),
        Member(layer="fc1", role="consumer", span=4),
    }
    assert fc.of_role("consumer") == (Member(layer="fc2", role="consumer"),)


def test_a_perceptron_has_its_middle_layer(traced):
    _, units = traced["perceptron"]
    assert names(units) == ["fc2"]
    assert reasons(units) == {"fc1": "first layer, left alone", "fc3": "makes the model's output"}


def test_the_first_layer_is_offered_where_it_is_named_itself():
    net = nn.Sequential(nn.Sequential(nn.Linear(4, 6)), nn.ReLU(), nn.Linear(6, 5), nn.Linear(5, 2))
    example = torch.randn(1, 4)
    assert names(find_units(net, example, only=("0.0", "2"))) == ["0.0", "2"]
    inside = find_units(net, example, only=("0", "2"))  # a container stands for what may go, no more
    assert names(inside) == ["2"]
    assert reasons(inside)["0.0"] == "first layer, left alone"


def test_channels_of_a_unit():
    member = Member(layer="fc", role="consumer", offset=6, span=3)
    assert channel_indices(member, torch.tensor([0, 2])).tolist() == [6, 7, 8, 12, 13, 14]
    assert channel_indices(Member(layer="a", role="producer"), torch.tensor([1, 4])).tolist() == [1, 4]


def test_a_depthwise_layer_carries_its_channels(traced):
    _, units = traced["depthwise"]
    assert names(units) == ["expand", "project", "mix"]
    assert units.groups[0].kind == "inner"
    assert set(units.groups[0].members) == {
        Member(layer="expand", role="producer"),
        Member(layer="spatial", role="carrier"),
        Member(layer="project", role="consumer"),
    }
    assert reasons(units) == {"stem": "first layer, left alone", "fc": "makes the model's output"}


@pytest.mark.parametrize(("groups", "out"), [(4, 8), (8, 16)])
def test_a_grouped_layer_that_mixes_or_multiplies_channels_is_not_offered(groups, out):
    net = tiny.Depthwise()
    net.spatial = nn.Conv2d(8, out, 3, groups=groups)
    net.project = nn.Conv2d(out, 5, 1)
    units = find_units(net, IMAGE)
    assert "expand" not in names(units)
    assert "grouped layer" in reasons(units)["expand"]


def test_a_skipped_layer_keeps_its_place_and_reason(traced):
    net, units = traced["resnet20"]
    fewer = find_units(net, IMAGE, skip=("layer2.1.conv1",))
    assert names(fewer) == [n for n in names(units) if n != "layer2.1.conv1"]
    assert reasons(fewer)["layer2.1.conv1"] == "left alone as asked (--skip)"


def test_an_unknown_name_to_skip_is_refused(traced):
    with pytest.raises(UserError, match=r"layer9\.0\.conv1"):
        find_units(traced["resnet20"][0], IMAGE, skip=("layer9.0.conv1",))


def test_skipping_a_whole_stage_leaves_all_of_it_alone(traced):
    # Once a bug: only the name of a group's first producer is compared. A container's name
    # (or a batch norm's) is accepted and does nothing. It may be refused, or leave its layers alone.
    net, _ = traced["resnet20"]
    try:
        units = find_units(net, IMAGE, skip=("layer1",))
    except UserError:
        return
    assert not [n for n in names(units) if n.startswith("layer1.")]


def test_the_network_is_not_changed():
    net = tiny.network("resnet20")
    for parameter in net.layer1.parameters():
        parameter.requires_grad_(False)
    before = tiny.state_of(net)
    frozen = {n for n, p in net.named_parameters() if not p.requires_grad}
    units = find_units(net, IMAGE)
    assert len(units.groups) == 9  # frozen layers are found all the same
    assert tiny.same_state(before, tiny.state_of(net))
    assert {n for n, p in net.named_parameters() if not p.requires_grad} == frozen
    assert all(not m._forward_hooks for m in net.modules())


def test_a_network_that_does_not_fit_the_image_is_one_line():
    with pytest.raises(UserError, match="cannot be traced"):
        find_units(nn.Linear(2, 2), torch.zeros(1, 3))


class Asserting(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 2)

    def forward(self, x):
        assert x.shape[1] == 2, "two features, please"
        return self.fc(x)


def test_a_network_that_asserts_its_input_is_one_line_too():
    # Once a bug: AssertionError (timm, Swin and ViT assert image sizes) and IndexError get out.
    with pytest.raises(UserError, match="two features"):
        find_units(Asserting(), torch.zeros(1, 3))


class Middle(nn.Module):
    """stem → made → something → read → fc."""

    def __init__(self, between, *, width=8):
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3)
        self.made = nn.Conv2d(4, width, 3)
        self.between = between
        self.read = nn.Conv2d(width, 4, 3)
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        x = torch.relu(self.between(self.made(self.stem(x))))
        return self.fc(self.read(x).mean((2, 3)))


@pytest.mark.parametrize(
    "between", [nn.BatchNorm2d(8), nn.PReLU(8), nn.InstanceNorm2d(8, affine=True), nn.PReLU()]
)
def test_layers_that_treat_each_channel_alone_are_carried_along(between):
    units = find_units(Middle(between), IMAGE)
    assert "made" in names(units)


@pytest.mark.parametrize("between", [nn.GroupNorm(4, 8), nn.LayerNorm([8, 8, 8])])
def test_layers_that_mix_channels_make_a_group_coupled(between):
    # Once a bug: a group or layer norm divides by the spread over *several* units, so cutting
    # is not silencing; and GroupNorm(4, 8) with 3 channels left cannot even run.
    units = find_units(Middle(between), IMAGE)
    assert "made" not in names(units)
    assert "made" in reasons(units)


class Scaled(nn.Module):
    """A bare parameter along the channels, such as ConvNeXt's layer scale or a ViT's position."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1, 8, 1, 1))

    def forward(self, x):
        return x * self.scale


def test_a_bare_parameter_along_the_channels_is_no_crash():
    # Once a bug: Torch-Pruning lists it as a member of the group; _role asks it for
    # .parameters() and dies with AttributeError.
    units = find_units(Middle(Scaled()), IMAGE)
    assert "made" in {*names(units), *reasons(units)}


class Upsampling(nn.Module):
    """conv → transposed conv: something else than a dense layer reads the channels."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3)
        self.made = nn.Conv2d(4, 8, 3)
        self.read = nn.Conv2d(8, 4, 3)
        self.up = nn.ConvTranspose2d(8, 4, 3)
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        h = torch.relu(self.made(self.stem(x)))
        return self.fc(self.read(h).mean((2, 3)) + self.up(h).mean((2, 3)))


def test_a_transposed_convolution_reads_channels_as_any_other():
    # Once a bug: a layer with weights that is no Conv2d or Linear counts as a carrier. Here it
    # *reads* the units.
    net = Upsampling()
    units = find_units(net, IMAGE)
    (made,) = [g for g in units.groups if g.name == "made"]
    assert {m.layer for m in made.of_role("consumer")} == {"read", "up"}
    assert sound(net, units, IMAGE) == units


class Shared(nn.Module):
    """Two convolutions that run twice."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3)
        self.up = nn.Conv2d(4, 8, 3, padding=1)
        self.down = nn.Conv2d(8, 4, 3, padding=1)
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        x = self.stem(x)
        for _ in range(2):
            x = F.relu(self.down(F.relu(self.up(x))))
        return self.fc(x.mean((2, 3)))


def test_a_layer_that_runs_twice_couples_what_it_writes_and_reads():
    units = find_units(Shared(), IMAGE)
    assert names(units) == ["up"]
    assert "coupled" in reasons(units)["stem"]


def test_roles_are_looked_up():
    group = ChannelGroup(
        "a", 2, (Member(layer="a", role="producer"), Member(layer="b", role="consumer")), "inner"
    )
    assert [m.layer for m in group.of_role("consumer")] == ["b"]
    assert group.of_role("carrier") == ()


def gate():
    """Layers of 12, 1 and 12 channels: a gain that is learned."""
    return nn.Sequential(
        nn.Linear(6, 12),
        nn.ReLU(),
        nn.Linear(12, 12),
        nn.ReLU(),
        nn.Linear(12, 1),
        nn.ReLU(),
        nn.Linear(1, 3),
    )


@pytest.mark.parametrize("coupled", [False, True])
def test_a_single_channel_is_left_alone_with_the_reason(coupled):
    # Once a bug: it was offered, and the trial asked for a random number of units from 1 to below 1.
    torch.manual_seed(0)
    net, example = gate(), torch.randn(1, 6)
    units = find_units(net, example, coupled=coupled)
    assert names(units) == ["2"]
    assert reasons(units)["4"] == "makes a single channel"
    assert sound(net, units, example) == units
