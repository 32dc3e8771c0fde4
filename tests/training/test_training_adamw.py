"""AdamW, warm-up and clipping: by hand, against 🤗 transformers, broken off and continued, on texts."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn

import texts
import tiny
from coprune.data import load_data
from coprune.measure.evaluation import evaluate
from coprune.models.hf import pretrained
from coprune.training import Checkpoint, Recipe, fit
from coprune.training.optimizers import optimizer_for, scheduler


class OneBatch:
    """The same two samples in every step."""

    def __init__(self, steps=1):
        self._steps = steps

    def __len__(self):
        return 2

    def steps(self, batch_size, fraction=1.0):
        return self._steps

    def epoch(self, batch_size, *, seed, epoch, fraction=1.0, skip=0):
        for _ in range(skip, self._steps):
            yield torch.tensor([[1.0, 2.0], [-3.0, 0.5]]), torch.tensor([0, 1])


class Layers(nn.Module):
    """A linear layer and a norm, so that there is something of every kind."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.norm = nn.LayerNorm(2)
        self.fc = nn.Linear(2, 2)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, 0.5, 1.5)

    def forward(self, x):
        return self.fc(self.norm(x))


def gradients(net):
    x, y = next(OneBatch().epoch(2, seed=0, epoch=0))
    names, parameters = zip(*net.named_parameters(), strict=True)
    loss = nn.functional.cross_entropy(net(x), y)
    return dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))


def test_the_first_step_by_hand():
    # Loshchilov & Hutter 2019, algorithm 2: a decay of lr · λ · w, then a first step of lr · g / (|g| + ε).
    net = Layers()
    before = {k: p.detach().clone() for k, p in net.named_parameters()}
    grad = gradients(net)
    recipe = Recipe(epochs=1, optimizer="adamw", lr=0.01, weight_decay=0.1, schedule="constant")
    fit(net, OneBatch(), recipe, seed=0)
    for name, after in net.named_parameters():
        decay = 0.01 * 0.1 if name == "fc.weight" else 0.0  # neither biases nor norms
        wanted = before[name] * (1 - decay) - 0.01 * grad[name] / (grad[name].abs() + 1e-8)
        torch.testing.assert_close(after.detach(), wanted, rtol=1e-5, atol=1e-6)


def test_every_weight_is_in_one_group_and_sgd_is_as_before():
    net = Layers()
    groups = optimizer_for(Recipe(epochs=1, optimizer="adamw"), net).param_groups
    assert [p for group in groups for p in group["params"]] == [
        net.fc.weight,
        *net.norm.parameters(),
        net.fc.bias,
    ]
    assert [group["weight_decay"] for group in groups] == [5e-4, 0.0]
    (group,) = optimizer_for(Recipe(epochs=1), net).param_groups
    assert (group["momentum"], group["weight_decay"], group["nesterov"]) == (0.9, 5e-4, True)
    assert len(group["params"]) == 4


def test_clipping_by_hand():
    net = Layers()
    before = torch.cat([p.detach().flatten().clone() for p in net.parameters()])
    grad = torch.cat([g.flatten() for g in gradients(net).values()])
    wanted = 0.1 * grad.norm()
    recipe = Recipe(epochs=1, lr=0.5, momentum=0, weight_decay=0, schedule="constant", clip=float(wanted))
    fit(net, OneBatch(), recipe, seed=0)
    moved = torch.cat([p.detach().flatten() for p in net.parameters()]) - before
    torch.testing.assert_close(moved, -0.5 * 0.1 * grad, rtol=1e-4, atol=1e-6)


def test_a_gradient_below_the_limit_is_left_alone():
    states = []
    for clip in (None, 1e6):
        net = Layers()
        fit(net, OneBatch(3), Recipe(epochs=2, lr=0.1, clip=clip), seed=0)
        states.append(tiny.state_of(net))
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])


def rates(recipe, steps_per_epoch, rate=1.0):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=rate)
    schedule = scheduler(recipe, optimizer, steps_per_epoch=steps_per_epoch)
    found = []
    for _ in range(recipe.epochs * steps_per_epoch):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


@given(st.integers(1, 4), st.integers(1, 30), st.floats(0, 0.9), st.sampled_from(["linear", "cosine"]))
def test_schedules_are_those_of_transformers(epochs, steps, warmup, kind):
    from transformers import get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup

    twin = {"linear": get_linear_schedule_with_warmup, "cosine": get_cosine_schedule_with_warmup}[kind]
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
    total = epochs * steps
    schedule = twin(optimizer, round(warmup * total), total)
    wanted = []
    for _ in range(total):
        wanted.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    found = rates(Recipe(epochs=epochs, lr=0.3, schedule=kind, warmup=warmup), steps, rate=0.3)
    assert found == pytest.approx(wanted, abs=1e-12)


def test_warm_up_before_the_other_schedules_by_hand():
    recipe = {"epochs": 4, "lr": 1.0, "warmup": 0.25}
    assert rates(Recipe(schedule="constant", **recipe), 2) == [0.0, 0.5, 1, 1, 1, 1, 1, 1]
    assert rates(Recipe(schedule="step", **recipe), 2) == [0.0, 0.5, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125]
    onecycle = rates(Recipe(schedule="onecycle", epochs=10, lr=1.0, warmup=0.1), 10)
    assert onecycle.index(max(onecycle)) == pytest.approx(0.1 * 100, abs=1)
    usual = rates(Recipe(schedule="onecycle", epochs=10, lr=1.0), 10)
    assert usual.index(max(usual)) == pytest.approx(0.3 * 100, abs=1)


@pytest.mark.parametrize(
    "wrong", [{"warmup": 1.0}, {"warmup": -0.1}, {"clip": 0.0}, {"optimizer": "adam"}, {"schedule": "sine"}]
)
def test_what_cannot_be_is_refused(wrong):
    with pytest.raises(ValidationError):
        Recipe(epochs=1, **wrong)


class Stops:
    """A source that raises as if the power went, before its batch number ``at``."""

    def __init__(self, source, at):
        self._source, self._left = source, at

    def __len__(self):
        return len(self._source)

    def steps(self, batch_size, fraction=1.0):
        return self._source.steps(batch_size, fraction)

    def epoch(self, *args, **kwargs):
        for batch in self._source.epoch(*args, **kwargs):
            if self._left == 0:
                raise KeyboardInterrupt
            self._left -= 1
            yield batch


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return texts.tiny_text_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def reviews(folder, tmp_path_factory):
    path = texts.tiny_tsv(tmp_path_factory.mktemp("data") / "t.tsv")
    return load_data(f"tsv:{path}", tokenizer=folder, calibration=30)


TEXT = Recipe(
    epochs=2,
    batch_size=16,
    optimizer="adamw",
    lr=2e-3,
    schedule="linear",
    warmup=0.1,
    weight_decay=0.01,
    clip=1.0,
)


def dropping(folder):
    """The text model with dropout, which has to repeat too."""
    model = pretrained(f"hf:{folder}", num_classes=3)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.1
    return model


@pytest.mark.parametrize("at", [0, 5, 9, 12])
def test_a_broken_off_training_ends_alike_bit_for_bit(folder, reviews, tmp_path, at):
    recipe = TEXT.model_copy(update={"patience_s": 0.0})
    whole = dropping(folder)
    log = fit(whole, reviews.train, recipe, seed=0)
    assert log.steps == 2 * math.ceil(132 / 16)
    checkpoint = Checkpoint(tmp_path / "c.safetensors")
    first = dropping(folder)
    with pytest.raises(KeyboardInterrupt):
        fit(first, Stops(reviews.train, at), recipe, seed=0, checkpoint=checkpoint)
    assert checkpoint.path.is_file() == (at > 0)
    second = dropping(folder)
    again = fit(second, reviews.train, recipe, seed=0, checkpoint=checkpoint)
    assert again.loss == pytest.approx(log.loss, rel=1e-12)
    left, right = tiny.state_of(whole), tiny.state_of(second)
    assert all(torch.equal(left[k], right[k]) for k in left)


def test_a_text_model_learns_and_teaches(folder, reviews):
    model = pretrained(f"hf:{folder}", num_classes=3)
    assert evaluate(model, reviews.heldout).value < 0.6
    fit(model, reviews.train, TEXT.model_copy(update={"epochs": 8}), seed=0)
    assert evaluate(model, reviews.heldout).value > 0.95
    student = pretrained(f"hf:{folder}", num_classes=3)
    distilled = TEXT.model_copy(update={"epochs": 8, "distill": 0.9})
    fit(student, reviews.train, distilled, seed=1, teacher=model)
    assert evaluate(student, reviews.heldout).value > 0.95
