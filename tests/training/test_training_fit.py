"""Training repeats bit for bit, also when it was broken off; losses and schedules by hand."""

import math

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

import processes
import tiny
from coprune.data import ArraySource, LoaderSource
from coprune.data.arrays import Augmentation
from coprune.errors import UserError
from coprune.training import Checkpoint, DivergedError, Recipe, fit
from coprune.training.optimizers import scheduler
from teaching import taught_loss


class Small(nn.Module):
    """conv, batch norm, dropout (0 unless asked for), linear."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        return self.fc(self.dropout(torch.relu(self.bn(self.conv(x))).mean((2, 3))))


def small(seed=0, dropout=0.0):
    return tiny.randomise(Small(dropout), seed)


def samples(kind=ArraySource):
    """40 samples, in batches of 8 five steps an epoch; moving pictures, so that augmentation counts."""
    plain = tiny.source(40)
    return kind(plain.images, plain.labels, None, Augmentation(flip=True, shift=1))


class Stops(ArraySource):
    """Raises as if the power went, before its batch number ``at`` (over all epochs of one life)."""

    at = 10**9
    seen = 0

    def epoch(self, *args, **kwargs):
        for batch in super().epoch(*args, **kwargs):
            if Stops.seen == Stops.at:
                raise KeyboardInterrupt
            Stops.seen += 1
            yield batch


RECIPE = Recipe(epochs=3, batch_size=8, lr=0.1)


def trained(recipe=RECIPE, seed=0, net=None, **kwargs):
    net = net or small()
    log = fit(net, samples(), recipe, seed=seed, **kwargs)
    return tiny.state_of(net), log


def test_the_same_seed_gives_the_same_weights_bit_for_bit():
    torch.manual_seed(1)
    first, log = trained()
    torch.manual_seed(2)
    again, other = trained()
    assert tiny.same_state(first, again)
    assert log == other
    assert not tiny.same_state(first, trained(seed=1)[0])
    assert not tiny.same_state(first, tiny.state_of(small()))


def test_a_log_has_an_entry_an_epoch_and_training_learns():
    _, log = trained(Recipe(epochs=8, batch_size=8, lr=0.1))
    assert len(log.loss) == len(log.accuracy) == 8
    assert log.steps == 40
    assert log.loss[-1] < log.loss[0]
    assert all(0 <= a <= 1 for a in log.accuracy)


def test_no_epochs_are_no_change():
    state, log = trained(Recipe(epochs=0))
    assert tiny.same_state(state, tiny.state_of(small()))
    assert (log.loss, log.steps) == ((), 0)


def test_the_first_step_is_plain_sgd_by_hand():
    # Momentum's first step with Nesterov is lr·(1 + m)·g; weight decay adds wd·w to g.
    recipe = Recipe(epochs=1, batch_size=40, lr=0.1, schedule="constant", momentum=0.5, weight_decay=0.01)
    net, twin = small(), small().train()
    log = fit(net, samples(), recipe, seed=4)
    x, y = next(samples().epoch(40, seed=4, epoch=0))
    loss = F.cross_entropy(twin(x), y)
    loss.backward()
    assert log.loss == pytest.approx((float(loss.detach()),), rel=1e-5)
    for found, before in zip(net.parameters(), twin.parameters(), strict=True):
        wanted = before - 0.1 * 1.5 * (before.grad + 0.01 * before)
        assert torch.allclose(found, wanted, atol=1e-6)


def test_the_network_is_left_ready_to_use():
    net = small()
    fit(net, samples(), RECIPE, seed=0)
    assert not net.training
    assert net.conv.weight.is_contiguous()
    assert next(net.parameters()).device.type == "cpu"


RECIPES = {
    "cosine": RECIPE,
    "onecycle": RECIPE.model_copy(update={"schedule": "onecycle"}),
    "step": RECIPE.model_copy(update={"schedule": "step"}),
    "no momentum": RECIPE.model_copy(update={"momentum": 0.0, "schedule": "constant"}),
    "fraction": RECIPE.model_copy(update={"fraction": 0.5}),
    "distilled": RECIPE.model_copy(update={"distill": 0.7}),
}


def interrupted(tmp_path, recipe, at, make=small, **kwargs):
    """Weights after a training that stopped before its batch ``at`` and was started again."""
    checkpoint = Checkpoint(tmp_path / "state.safetensors")
    Stops.seen, Stops.at = 0, at
    with pytest.raises(KeyboardInterrupt):
        fit(make(), samples(kind=Stops), recipe, seed=0, checkpoint=checkpoint, **kwargs)
    Stops.at = 10**9
    assert checkpoint.path.is_file()
    # Another life: other weights at the start, another state of the global generator.
    torch.manual_seed(99)
    net = make(seed=5)
    log = fit(net, samples(kind=Stops), recipe, seed=0, checkpoint=checkpoint, **kwargs)
    return tiny.state_of(net), log


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("at", [1, 4, 5])
def test_a_training_broken_off_in_the_middle_ends_with_the_same_weights(tmp_path, name, at):
    # patience_s=0 saves after every step, so it goes on from the middle of an epoch (half of the
    # samples are three steps an epoch, all of them five).
    recipe = RECIPES[name].model_copy(update={"patience_s": 0.0})
    kwargs = {"teacher": small(7)} if recipe.distill else {}
    undisturbed, whole = trained(recipe, **kwargs)
    resumed, log = interrupted(tmp_path, recipe, at, **kwargs)
    assert tiny.same_state(undisturbed, resumed)
    assert log.steps == whole.steps


def test_between_two_checkpoints_the_steps_are_done_again(tmp_path):
    # Saved at the end of epoch 0 (step 5), stopped after step 8: steps 6 to 8 are repeated.
    resumed, _ = interrupted(tmp_path, RECIPE, 8)
    assert tiny.same_state(trained()[0], resumed)
    assert Stops.seen == 8 + 10


def test_a_finished_training_is_not_done_again(tmp_path):
    checkpoint = Checkpoint(tmp_path / "state.safetensors")
    state, _ = trained(checkpoint=checkpoint)
    again = small(3)
    assert fit(again, samples(), RECIPE, seed=0, checkpoint=checkpoint).steps == 15
    assert tiny.same_state(tiny.state_of(again), state)


def test_with_dropout_a_training_repeats_too():
    # Once a bug: dropout draws from torch's global generator, which fit neither seeds…
    torch.manual_seed(1)
    first, _ = trained(net=small(dropout=0.5))
    torch.manual_seed(2)
    assert tiny.same_state(first, trained(net=small(dropout=0.5))[0])


def test_with_dropout_a_training_that_was_broken_off_ends_with_the_same_weights(tmp_path):
    # … nor keeps in the checkpoint: "ends with the same weights as an undisturbed one" fails even when
    # the user seeds (training/checkpoint.py:4, "nothing else is needed").
    def make(seed=0):
        torch.manual_seed(1)
        return small(seed, dropout=0.5)

    recipe = RECIPE.model_copy(update={"patience_s": 0.0})
    undisturbed, _ = trained(recipe, net=make())
    resumed, _ = interrupted(tmp_path, recipe, 4, make)
    assert tiny.same_state(undisturbed, resumed)


def test_a_resumed_training_has_its_whole_log(tmp_path):
    # Once a bug: "an entry an epoch", but epochs before the interruption are lost, and
    # the one it happened in is averaged over its rest only.
    _, whole = trained(RECIPE.model_copy(update={"patience_s": 0.0}))
    _, log = interrupted(tmp_path, RECIPE.model_copy(update={"patience_s": 0.0}), 7)
    assert len(log.loss) == len(whole.loss)


def test_a_last_batch_of_one_sample_can_be_trained_on():
    # Once a bug: 41 samples in batches of 8 leave one; a batch norm without pixels
    # refuses it in training ("Expected more than 1 value per channel"), after the whole epoch.
    net = nn.Sequential(nn.Flatten(), nn.Linear(144, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    assert fit(net, tiny.source(41), Recipe(epochs=1, batch_size=8), seed=0).steps > 0


@pytest.mark.parametrize("epochs", [1, 3])
def test_batches_of_one_sample_are_refused_where_a_batch_norm_reads_them(epochs):
    net, alone = small(), [(x[None], y[None]) for x, y in zip(*next(samples().batches(6)), strict=True)]
    before = tiny.state_of(net)
    with pytest.raises(UserError, match=r"a batch of 1 leaves batch norm one sample; give batch_size 2 or"):
        fit(net, samples(), Recipe(epochs=epochs, batch_size=1), seed=0)
    # A user's own loader has its own batch size; it is known when an epoch has gone by.
    with pytest.raises(UserError, match=r"a whole epoch in batches of 1 leaves batch norm one sample"):
        fit(net, LoaderSource(alone, 6), Recipe(epochs=epochs, batch_size=128), seed=0)
    assert all(torch.equal(before[name], value) for name, value in tiny.state_of(net).items())
    assert not net.training
    plain = nn.Sequential(nn.Flatten(), nn.Linear(144, 3))
    assert fit(plain, LoaderSource(alone, 6), Recipe(epochs=epochs), seed=0).steps == 6 * epochs


def test_a_training_taken_up_before_its_passed_over_last_batch_goes_on(tmp_path):
    """33 samples in batches of 8: the fifth batch, one sample, is passed over."""

    class Few(Stops):
        pass

    net, few = small(), Few(samples().images[:33], samples().labels[:33])
    Stops.at, Stops.seen = 4, 0
    recipe = Recipe(epochs=2, batch_size=8, patience_s=0)
    checkpoint = Checkpoint(tmp_path / "state.safetensors")
    with pytest.raises(KeyboardInterrupt):
        fit(net, few, recipe, seed=0, checkpoint=checkpoint)
    Stops.at = 10**9
    assert fit(small(), few, recipe, seed=0, checkpoint=checkpoint).steps == 10


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_truncated_checkpoint_is_one_line(tmp_path, share):
    checkpoint = Checkpoint(tmp_path / "state.safetensors")
    trained(checkpoint=checkpoint)
    content = checkpoint.path.read_bytes()
    checkpoint.path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UserError, match="truncated or not safetensors"):
        trained(checkpoint=checkpoint)


def test_a_foreign_checkpoint_is_one_line(tmp_path):
    # Once a bug: file.metadata() is None for tensors that others wrote: TypeError.
    save_file(small().state_dict(), tmp_path / "state.safetensors")
    with pytest.raises(UserError):
        trained(checkpoint=Checkpoint(tmp_path / "state.safetensors"))


def test_a_checkpoint_of_another_network_is_one_line(tmp_path):
    # Once a bug: load_state_dict's RuntimeError, many lines, gets out.
    checkpoint = Checkpoint(tmp_path / "state.safetensors")
    trained(checkpoint=checkpoint)
    with pytest.raises(UserError):
        trained(net=tiny.randomise(tiny.Perceptron()), checkpoint=checkpoint)


def test_the_scale_of_gradients_is_kept(tmp_path):
    # Once a bug: fp16 began again at its first scale, and whole steps were passed over until it had fallen.
    checkpoint, net = Checkpoint(tmp_path / "state.safetensors"), small()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=3)
    for gradient in (1.0, float("inf"), 1.0, 1.0):
        scaler.scale(torch.zeros(())).item()
        for parameter in net.parameters():
            parameter.grad = torch.full_like(parameter, gradient)
        scaler.step(optimizer)
        scaler.update()
    assert scaler.get_scale() == 512.0
    checkpoint.save(net, optimizer, step=4, sums={}, scaler=scaler)
    again = torch.amp.GradScaler("cpu")
    assert checkpoint.restore(net, optimizer, scaler=again) == (4, {})
    assert again.state_dict() == scaler.state_dict()
    # A training that needs none reads the same file.
    assert checkpoint.restore(net, optimizer) == (4, {})


def test_no_checkpoint_yet_starts_at_the_beginning(tmp_path):
    state, _ = trained(checkpoint=Checkpoint(tmp_path / "state.safetensors"))
    assert tiny.same_state(state, trained()[0])


def test_distillation_loss_by_the_formula():
    logits, teacher = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0)).double()
    total = 0.0
    for student_row, teacher_row in zip((logits / 2).tolist(), (teacher / 2).tolist(), strict=True):
        p = [math.exp(v) / sum(map(math.exp, teacher_row)) for v in teacher_row]
        q = [math.exp(v) / sum(map(math.exp, student_row)) for v in student_row]
        total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    assert float(taught_loss(logits, teacher, temperature=2.0)) == pytest.approx(4 * total / 4, abs=1e-12)
    assert float(taught_loss(logits, logits, temperature=3.0)) == pytest.approx(0, abs=1e-15)


def test_distillation_mixes_both_losses_and_leaves_the_teacher_alone():
    recipe = Recipe(epochs=1, batch_size=40, distill=0.3, temperature=2.0)
    teacher, twin = small(7), small().train()
    before = tiny.state_of(teacher)
    log = fit(small(), samples(), recipe, seed=4, teacher=teacher)
    x, y = next(samples().epoch(40, seed=4, epoch=0))
    with torch.no_grad():
        logits, soft = twin(x), teacher(x)
        wanted = 0.7 * F.cross_entropy(logits, y) + 0.3 * taught_loss(logits, soft, temperature=2.0)
    assert log.loss[0] == pytest.approx(float(wanted), rel=1e-4)
    assert tiny.same_state(before, tiny.state_of(teacher))
    assert all(p.grad is None for p in teacher.parameters())


def test_distillation_needs_a_teacher():
    with pytest.raises(UserError, match="unpruned model"):
        trained(Recipe(epochs=1, distill=0.5))


@pytest.mark.parametrize("lr", [1e6, 1e30])
def test_divergence_is_one_line_with_the_learning_rate(lr):
    with pytest.raises(UserError, match="lower the learning rate"):
        trained(Recipe(epochs=20, batch_size=8, lr=lr, schedule="constant"))


def test_weights_that_blow_up_in_the_last_step_have_diverged():
    # Once a bug: the last loss was finite, what the weights say after it was not, and compare ended there.
    model = tiny.network("vgg16_bn")
    recipe = Recipe(epochs=1, batch_size=200, lr=1e30, schedule="constant")
    with pytest.raises(DivergedError, match="ended with NaN or Inf; lower the learning rate"):
        fit(model, tiny.source(200), recipe, seed=0)
    assert not model.training


def test_a_buffer_that_holds_infinity_is_no_divergence():
    # Limits that nothing is clipped at, or a causal mask, are infinite and right.
    model = tiny.network("resnet20")
    model.register_buffer("limit", torch.tensor([-torch.inf, torch.inf]))
    log = fit(model, tiny.source(20), Recipe(epochs=1, batch_size=10, lr=0.01), seed=0)
    assert log.steps == 2


def rates(recipe, steps):
    """The learning rate of every step and the one after the last."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=recipe.lr)
    schedule = scheduler(recipe, optimizer, steps_per_epoch=steps)
    found = [optimizer.param_groups[0]["lr"]]
    for _ in range(recipe.epochs * steps):
        optimizer.step()
        schedule.step()
        found.append(optimizer.param_groups[0]["lr"])
    return found


def test_schedules_end_where_they_should():
    recipe = Recipe(epochs=4, lr=0.2)

    def of(**changes):
        return rates(recipe.model_copy(update=changes), 5)

    cosine = of()
    assert cosine == pytest.approx([0.1 * (1 + math.cos(math.pi * i / 20)) for i in range(21)], abs=1e-9)
    assert cosine[-1] == pytest.approx(0, abs=1e-9)
    cycle = of(schedule="onecycle")
    assert 0.98 * 0.2 <= max(cycle) <= 0.2  # the top may lie between two steps
    assert 5 <= cycle.index(max(cycle)) <= 7  # 30 % of 20
    assert cycle[-1] < 1e-5
    # Halved after every epoch: the fourth trains at an eighth.
    assert of(schedule="step") == pytest.approx([0.2] * 5 + [0.1] * 5 + [0.05] * 5 + [0.025] * 5 + [0.0125])
    assert of(schedule="step", step_epochs=2, step_factor=0.1)[9:12] == pytest.approx([0.2, 0.02, 0.02])
    assert of(schedule="constant") == [0.2] * 21


@pytest.mark.parametrize("schedule", ["cosine", "onecycle", "step", "constant"])
def test_schedules_of_nothing(schedule):
    assert len(rates(Recipe(epochs=0, schedule=schedule), 5)) == 1


def test_recipes_refuse_what_cannot_be():
    for bad in (
        {"epochs": -1},
        {"lr": 0},
        {"fraction": 0},
        {"momentum": 1},
        {"distill": 2},
        {"schedule": "magic"},
    ):
        with pytest.raises(ValueError, match=next(iter(bad))):
            Recipe(**{"epochs": 1, **bad})


def narrow(threads: int, width: int) -> None:
    torch.set_num_threads(threads)
    net = tiny.network("resnet20", width=width)
    fit(net, tiny.source(64), Recipe(epochs=3, batch_size=16, lr=0.01), seed=0)
    print("whole")


@pytest.mark.parametrize(("threads", "width"), [(1, 4), (2, 4), (1, 5)])
def test_narrow_skip_connections_are_trained_without_harm(threads, width):
    # Once a bug: oneDNN's gradient of a strided 1×1 convolution with fewer than 16 input channels
    # (8 with AVX2) writes behind its buffer when images lie channels last: the process dies, hangs or
    # learns from wrong gradients (github.com/uxlfoundation/oneDNN/issues/6035).
    training = processes.Started(narrow, threads, width)
    try:
        out, err = training.communicate(timeout=120)
    finally:
        training.kill()
    assert training.returncode == 0, err[:300]
    assert out == "whole\n"


@pytest.mark.parametrize(("steps", "warmup"), [(9, 0.1), (3, 0.25), (1, 0.5), (12, 0.3)])
def test_a_cycle_whose_first_phase_is_one_step(steps, warmup):
    found = rates(Recipe(epochs=1, lr=0.2, schedule="onecycle", warmup=warmup), steps)
    assert len(found) == steps + 1
    assert all(0 <= rate <= 0.2 + 1e-9 for rate in found)
