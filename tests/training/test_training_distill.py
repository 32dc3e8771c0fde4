"""Hidden outputs as targets: where they are compared, the error by hand, and what training makes of it."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import tiny
from coprune.errors import UserError
from coprune.groups import find_units
from coprune.plan import GroupDecision
from coprune.recovery import kept_outputs
from coprune.surgery import cut
from coprune.training import Recipe, fit
from coprune.training.distill import Block, matched_blocks, matching_loss, recorded
from teaching import taught_loss
from tiny_signals import Signals

IMAGE = torch.zeros(1, 1, 12, 12)


def halves(model, image):
    return tuple(
        GroupDecision(
            name=g.name, members=g.members, size=g.size, kept=tuple(range(g.size // 2)), reason="test"
        )
        for g in find_units(model, image).groups
    )


def halved(model, image=IMAGE):
    return cut(model, halves(model, image))


def test_residual_blocks_are_compared_as_a_whole():
    teacher = tiny.network("resnet20")
    blocks = [f"layer{stage}.{block}" for stage in (1, 2, 3) for block in range(3)]
    assert tuple(matched_blocks(halved(teacher), teacher)) == tuple(blocks)
    assert matched_blocks(teacher, teacher) == {}


def test_containers_within_a_block_are_not_the_block():
    teacher = tiny.network("mobilenet_v2")
    found = tuple(matched_blocks(halved(teacher, torch.zeros(1, 1, 28, 28)), teacher))
    assert {type(teacher.get_submodule(name)).__name__ for name in found[:-1]} == {"InvertedResidual"}
    assert found[-1] == "classifier"


def test_layers_of_a_plain_chain_are_compared_by_the_outputs_that_are_left():
    teacher, image = tiny.network("vgg16_bn"), torch.zeros(1, 1, 28, 28)
    decisions = halves(teacher, image)
    student, kept = cut(teacher, decisions), kept_outputs(teacher, decisions)
    convolutions = [n for n, m in student.named_modules() if isinstance(m, nn.Conv2d)]
    # The first layer keeps its channels, so that the second one reads as many as before.
    blocks = matched_blocks(student, teacher, kept)
    assert tuple(blocks) == (*convolutions[2:], "classifier")
    # Without being told which outputs are left, only layers that have all of them.
    few = matched_blocks(student, teacher)
    assert set(few) < set(convolutions[2:]) | {"classifier"}
    assert all(name not in kept for name in few)
    name = next(n for n in convolutions[2:] if n in kept)
    wanted = torch.randn(2, teacher.get_submodule(name).out_channels, 3, 3)
    ours = wanted[:, kept[name]]
    assert float(matching_loss({name: [ours]}, {name: [wanted]}, image, kept, blocks=blocks)) == 0
    assert float(matching_loss({name: [ours + 1]}, {name: [wanted]}, image, kept, blocks=blocks)) > 0


def test_a_transformer_is_compared_behind_attention_and_feed_forward_blocks():
    pytest.importorskip("transformers")
    from tiny_transformers import inputs, transformer, uneven

    teacher, example = transformer("bert"), inputs("bert")
    student = cut(teacher, uneven(find_units(teacher, example).groups))
    assert tuple(matched_blocks(student, teacher)) == tuple(
        f"bert.encoder.layer.{i}.{part}" for i in (0, 1) for part in ("attention.output", "output")
    )


def test_the_error_by_hand_and_without_hidden_tokens():
    ours, theirs = torch.tensor([[[1.0, 2.0], [9.0, 9.0]]]), torch.tensor([[[1.0, 4.0], [0.0, 0.0]]])
    blocks = dict.fromkeys("abc", Block(2, convolves=False))
    # All tokens: squared error 4 + 162; the teacher's spread about its means (.5, 2): .5 + 8.
    assert float(
        matching_loss({"a": [ours]}, {"a": [theirs]}, torch.zeros(1), blocks=blocks)
    ) == pytest.approx(166 / 8.5)
    more = {"a": [torch.cat([ours, ours + 1])]}, {"a": [torch.cat([theirs, theirs + 1])]}
    mask = {"attention_mask": torch.tensor([[1, 0], [1, 0]])}
    # Tokens (1, 4) and (2, 5): errors 4 and 4, spread 4 · .25.
    assert float(matching_loss(*more, mask, blocks=blocks)) == pytest.approx(8 / 1)
    # The mean over blocks; another shape does not count, and no block at all is no loss.
    two = {"a": [ours], "b": [ours], "c": [ours]}, {"a": [theirs], "b": [ours], "c": [ours[:, :1]]}
    assert float(matching_loss(*two, torch.zeros(1), blocks=blocks)) == pytest.approx(166 / 8.5 / 2)
    assert float(matching_loss({}, {}, torch.zeros(1), blocks={})) == 0


def test_maps_are_compared_over_all_places():
    generator = torch.Generator().manual_seed(0)
    ours, theirs = (torch.randn(3, 4, 5, 6, generator=generator) for _ in range(2))
    apart = sum(((theirs[:, c] - theirs[:, c].mean()) ** 2).sum() for c in range(4))
    found = matching_loss({"a": [ours]}, {"a": [theirs]}, ours, blocks={"a": Block(4, convolves=True)})
    assert float(found) == pytest.approx(float(((ours - theirs) ** 2).sum() / apart), rel=1e-5)


@pytest.mark.parametrize(
    ("shape", "axis", "block"),
    [
        ((3, 4, 5, 6), 1, Block(4, convolves=True)),
        ((3, 4, 30), 1, Block(4, convolves=True)),
        ((3, 5, 6, 4), 3, Block(4, convolves=False)),  # Swin's
        ((3, 4, 5, 6), 1, Block(4, convolves=False)),
        ((3, 5, 6, 4), 3, Block(4, convolves=True)),
        ((3, 4, 4), 1, Block(4, convolves=True)),  # as long as it has channels
        ((3, 4, 4), 2, Block(4, convolves=False)),
        ((3, 9, 5, 5), 1, Block(4, convolves=True)),  # joined to other channels
        ((3, 2, 4, 5, 6), 1, Block(2, convolves=True)),
    ],
)
def test_channels_far_apart_from_one_another_do_not_hide_the_error(shape, axis, block):
    # Once a bug: the channels of signals, and of maps that have them last, were looked for on the wrong axis,
    # where the distance between channels made any error look small.
    generator = torch.Generator().manual_seed(0)
    level = 10.0 * torch.arange(shape[axis]).view([-1 if a == axis else 1 for a in range(len(shape))])
    ours, theirs = (torch.randn(shape, generator=generator) for _ in range(2))
    found, higher = (
        float(matching_loss({"a": [ours + up]}, {"a": [theirs + up]}, ours, blocks={"a": block}))
        for up in (0.0, level)
    )
    assert higher == pytest.approx(found, rel=1e-4)
    assert found > 1


def test_where_the_channels_of_signals_are_is_told_by_the_layers():
    teacher, image = Signals(), torch.zeros(2, 4, 40)
    decisions = halves(teacher, image)
    blocks = matched_blocks(cut(teacher, decisions), teacher, kept_outputs(teacher, decisions))
    with torch.no_grad(), recorded(teacher, blocks) as found:
        teacher(image)
    signals = {name: outputs[0].shape for name, outputs in found.items() if outputs[0].ndim == 3}
    assert signals
    assert all(blocks[name].axis(shape) == 1 for name, shape in signals.items())


def test_a_step_adds_the_error_to_the_loss_and_leaves_no_hooks():
    teacher = tiny.network("resnet20", seed=3)
    student = tiny.randomise(halved(teacher), 1)
    recipe = Recipe(epochs=1, batch_size=40, distill=0.3, match=2.0)
    twin = tiny.network("resnet20", seed=3)
    other = tiny.randomise(halved(twin), 1).train()
    source = tiny.source(40)
    log = fit(student, source, recipe, seed=4, teacher=teacher)
    x, y = next(source.epoch(40, seed=4, epoch=0))
    blocks = matched_blocks(other, twin)
    with torch.no_grad(), recorded(other, blocks) as ours, recorded(twin, blocks) as theirs:
        logits, soft = other(x), twin(x)
        kl = taught_loss(logits, soft, temperature=2.0)
        wanted = (
            0.7 * F.cross_entropy(logits, y) + 0.3 * kl + 2 * matching_loss(ours, theirs, x, blocks=blocks)
        )
    assert log.loss[0] == pytest.approx(float(wanted), rel=1e-4)
    assert not any(m._forward_hooks for net in (student, teacher) for m in net.modules())


def test_matching_brings_hidden_outputs_together():
    teacher = tiny.network("resnet20", width=8)
    source = tiny.source(40)
    x, _ = next(source.batches(40))

    def apart(student):
        blocks = matched_blocks(student, teacher)
        with torch.no_grad(), recorded(student, blocks) as ours, recorded(teacher, blocks) as theirs:
            student.eval()(x), teacher.eval()(x)
        return float(matching_loss(ours, theirs, x, blocks=blocks))

    found = {}
    for match in (0.0, 10.0):
        student = halved(teacher)
        fit(
            student,
            source,
            Recipe(epochs=20, batch_size=20, lr=0.01, distill=0.9, match=match),
            seed=0,
            teacher=teacher,
        )
        found[match] = apart(student)
    assert found[10.0] < found[0.0]


class Noisy(nn.Module):
    """Dropout of most of what a batch norm hands on."""

    def __init__(self):
        super().__init__()
        self.norm, self.dropout, self.fc = nn.BatchNorm1d(144), nn.Dropout(0.9), nn.Linear(144, 3)

    def forward(self, x):
        return self.fc(self.dropout(self.norm(x.flatten(1))))


@pytest.mark.parametrize("taught", [True, False])
def test_dropout_is_off_while_there_is_a_teacher_and_batch_norm_is_not(taught):
    net, twin = tiny.randomise(Noisy()), tiny.randomise(Noisy()).eval()
    twin.norm.train()
    source = tiny.source(40)
    recipe = Recipe(epochs=1, batch_size=40, lr=1e-9, distill=0.5 if taught else 0.0)
    log = fit(net, source, recipe, seed=4, teacher=tiny.randomise(Noisy()) if taught else None)
    x, y = next(source.epoch(40, seed=4, epoch=0))
    with torch.no_grad():
        logits, soft = twin(x), tiny.randomise(Noisy()).eval()(x)
        wanted = F.cross_entropy(logits, y)
        if taught:
            wanted = 0.5 * wanted + 0.5 * taught_loss(logits, soft, temperature=2.0)
    assert (abs(log.loss[0] - float(wanted)) < 1e-4) == taught
    assert torch.allclose(net.norm.running_mean, twin.norm.running_mean)
    assert not net.training


def test_matching_needs_a_teacher():
    with pytest.raises(UserError, match="unpruned model"):
        fit(nn.Linear(4, 3), tiny.source(8), Recipe(epochs=1, match=1.0), seed=0)


def test_a_last_batch_of_one_sample_does_no_harm():
    # Once a bug: one row is not apart from anything, its error was divided by nothing, weights became NaN.
    one = torch.ones(1, 4)
    assert (
        float(matching_loss({"fc": [one + 1]}, {"fc": [one]}, inputs=one, blocks={"fc": Block(4, False)}))
        == 0.0
    )
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(144, 4), nn.ReLU(), nn.Linear(4, 3))
    net = copy.deepcopy(teacher)
    with torch.no_grad():
        net[1].weight += 0.1
    recipe = Recipe(epochs=1, batch_size=8, lr=0.01, distill=0.9, match=10.0)
    fit(net, tiny.source(17), recipe, seed=0, teacher=teacher)
    assert all(bool(p.isfinite().all()) for p in net.parameters())
