"""All layers together: nearer to the unpruned network on samples it did not see, or nothing has changed."""

import copy
import functools
import itertools

import pytest
import torch
from torch import nn

import coprune
import tiny
import tiny_heads
import tiny_transformers
from coprune import progress
from coprune.data import ArraySource, LoaderSource, TextSource
from coprune.errors import UserError
from coprune.groups import find_units
from coprune.recovery import Pair, find_recovery, kept_outputs, least_squares, reconstruct
from coprune.recovery import reconstruction as how
from coprune.recovery.reconstruction import RECIPE
from coprune.surgery import cut
from coprune.task import TASKS
from coprune.tracing import forward
from coprune.tracing.hooks import recorded
from coprune.training import Recipe, fit
from coprune.training.distill import Teacher
from coprune.training.known_outputs import known_outputs

IMAGE = torch.zeros(1, 1, 12, 12)
CLASSES = TASKS["classification"].outputs


def squares(n, *, seed=0, labels=None):
    """Images whose class is the quarter with a bright square."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 4
    x = torch.randn(n, 1, 12, 12, generator=generator)
    for i, c in enumerate(y.tolist()):
        top, left = divmod(c, 2)
        x[i, 0, top * 6 : top * 6 + 6, left * 6 : left * 6 + 6] += 1.0
    return ArraySource(x, y if labels is None else labels)


class Net(nn.Module):
    """A stem, a residual block and a plain layer with dropout before the classifier."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.block = Block(8, 12)
        self.head = nn.Sequential(
            nn.Flatten(), nn.Dropout(0.3), nn.Linear(8 * 9, 12), nn.ReLU(), nn.Linear(12, 4)
        )
        self.pool = nn.AdaptiveAvgPool2d(3)

    def forward(self, x):
        return self.head(self.pool(self.block(self.stem(x))))


class Block(nn.Module):
    def __init__(self, width, inner):
        super().__init__()
        self.first = nn.Conv2d(width, inner, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(inner)
        self.second = nn.Conv2d(inner, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)

    def forward(self, x):
        return torch.relu(x + self.norm2(self.second(torch.relu(self.norm(self.first(x))))))


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    net = Net()
    fit(net, squares(480), Recipe(epochs=4, batch_size=32, lr=0.05), seed=0)
    return net


@pytest.fixture(scope="module")
def halved(trained):
    """The trained network with a third of its inner units, solved again by least squares."""
    groups = find_units(trained, IMAGE).groups
    decisions = tuple(tiny.decision(g, range(0, g.size, 3)) for g in groups)
    model, kept = cut(trained, decisions), kept_outputs(trained, decisions)
    least_squares(Pair(model, trained, kept), squares(160, seed=1))
    return model, kept


@pytest.fixture
def shortly(monkeypatch):
    """A tenth of the samples that pass otherwise, where nobody says how many."""
    monkeypatch.setattr(how, "reconstruct", functools.partial(reconstruct, visits=how.VISITS // 10))


@torch.no_grad()
def divergence(model, teacher, source):
    ours, theirs = (m.eval()(source.images).double().log_softmax(1) for m in (model, teacher))
    return float((theirs.exp() * (theirs - ours)).sum(1).mean())


def same_weights(a, b):
    return all(
        torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


def test_it_comes_nearer_on_samples_that_nobody_has_seen(trained, halved):
    model, kept = copy.deepcopy(halved[0]), halved[1]
    unseen = squares(400, seed=2)
    before = divergence(model, trained, unseen)
    did = reconstruct(Pair(model, trained, kept), squares(160, seed=1), visits=4000)
    assert did.changed
    assert did.after < did.before
    assert divergence(model, trained, unseen) < 0.8 * before
    assert (did.samples, did.passes) == (140, 29)
    assert not model.training
    assert not any(m.training for m in model.modules())


def test_labels_are_not_read(trained, halved):
    found = []
    for labels in (None, torch.zeros(160, dtype=torch.int64), torch.arange(160) % 3):
        model = copy.deepcopy(halved[0])
        reconstruct(Pair(model, trained, halved[1]), squares(160, seed=1, labels=labels), visits=600)
        found.append(model)
    assert same_weights(found[0], found[1])
    assert same_weights(found[0], found[2])


def test_the_unpruned_network_is_left_as_it_was(trained, halved):
    teacher = copy.deepcopy(trained)
    reconstruct(Pair(copy.deepcopy(halved[0]), teacher, halved[1]), squares(160, seed=1), visits=600)
    assert same_weights(teacher, trained)


def test_what_does_not_help_is_taken_back(trained):
    # The unpruned network says already what it should.
    model = copy.deepcopy(trained)
    did = reconstruct(Pair(model, trained, {}), squares(80, seed=1), visits=300)
    assert not did.changed
    assert did.before == 0.0
    assert same_weights(model, trained)


def test_a_descent_that_comes_to_nan_is_taken_back(trained, halved, monkeypatch):
    monkeypatch.setattr(
        "coprune.recovery.reconstruction.RECIPE", RECIPE.model_copy(update={"lr": 1e30, "unit_clip": 0.0})
    )
    model = copy.deepcopy(halved[0])
    for parameter in model.stem.parameters():
        parameter.requires_grad_(False)
    did = reconstruct(Pair(model, trained, halved[1]), squares(160, seed=1), visits=600)
    assert (did.changed, did.after) == (False, None)
    assert same_weights(model, halved[0])
    assert not any(m.training for m in model.modules())
    assert not any(p.requires_grad for p in model.stem.parameters())
    assert all(p.requires_grad for p in model.head.parameters())


def test_frozen_weights_move_and_are_frozen_again(trained, halved):
    # Least squares changes them too: what is frozen for the user's training is as wrong after surgery.
    model = copy.deepcopy(halved[0])
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    did = reconstruct(Pair(model, trained, halved[1]), squares(160, seed=1), visits=2000)
    assert did.changed
    assert not same_weights(model, halved[0])
    assert not any(p.requires_grad for p in model.parameters())


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("samples", [1, 2, 9])
def test_with_hardly_any_samples_it_does_no_harm(trained, halved, samples):
    model = copy.deepcopy(halved[0])
    before = divergence(model, trained, squares(400, seed=2))
    did = reconstruct(Pair(model, trained, halved[1]), squares(samples, seed=3), visits=40)
    if not did.changed:
        assert same_weights(model, halved[0])
    assert divergence(model, trained, squares(400, seed=2)) < 3 * before


def test_a_users_own_loader(trained, halved):
    source = squares(96, seed=1)
    batches = list(source.batches(40))
    found = []
    for given in (source, LoaderSource(batches, 96)):
        model = copy.deepcopy(halved[0])
        reconstruct(Pair(model, trained, halved[1]), given, visits=400)
        found.append(model)
    assert same_weights(*found)


def test_answers_known_beforehand_are_those_of_every_pass(trained, halved, monkeypatch):
    found = []
    for memory in (3 << 30, 1000):
        monkeypatch.setattr("coprune.recovery.reconstruction.MEMORY", memory)
        model = copy.deepcopy(halved[0])
        reconstruct(Pair(model, trained, halved[1]), squares(160, seed=1), visits=600)
        found.append(model)
    pairs = zip(*(m.state_dict().values() for m in found), strict=True)
    assert all(torch.allclose(a.double(), b.double(), atol=1e-3) for a, b in pairs)


def test_answers_hold_what_a_pass_says(trained):
    source = squares(30, seed=1)
    blocks = ("block", "head.4")
    batches = [x for x, _ in source.batches(8)]
    answers = known_outputs(trained.eval(), CLASSES, blocks, batches, memory=1 << 20)
    number = torch.tensor([29, 3, 3, 17])
    with torch.no_grad(), recorded(trained, blocks) as hidden:
        logits = trained(source.images[number])
    said, outputs = answers.of(number, source.images[number])
    assert torch.allclose(said.tensors[0], logits, atol=1e-5)
    for block in blocks:
        assert torch.allclose(outputs[block][0], hidden[block][0], atol=1e-5)
    every = [*answers.outputs, *(run for runs in answers.hidden.values() for run in runs)]
    size = sum(row.nbytes for rows in every for row in rows.each)
    assert known_outputs(trained, CLASSES, blocks, batches, memory=size) is not None
    assert known_outputs(trained, CLASSES, blocks, batches, memory=size - 30) is None


def test_many_samples_are_seen_often_enough(trained, halved, monkeypatch):
    monkeypatch.setattr(how, "VISITS", 100)
    monkeypatch.setattr(how, "SAMPLES", 60)
    found = reconstruct(Pair(copy.deepcopy(halved[0]), trained, halved[1]), squares(160, seed=1))
    assert (found.samples, found.passes) == (52, how.PASSES)
    asked = reconstruct(Pair(copy.deepcopy(halved[0]), trained, halved[1]), squares(160, seed=1), visits=100)
    assert asked.passes == 2
    monkeypatch.setattr(how, "MOST", 3)
    pair = Pair(copy.deepcopy(halved[0]), trained, halved[1], effort=2.4)
    more = reconstruct(pair, squares(160, seed=1))
    assert (more.samples, more.passes) == (57, 12)


def test_answers_of_texts_are_as_wide_as_their_batch():
    teacher = tiny_transformers.transformer("llama", dtype=torch.float32)
    lengths = torch.tensor([9, 7, 7, 4, 2])
    ids = torch.randint(1, 20, (5, 9), generator=torch.Generator().manual_seed(0))
    source = TextSource.of(ids, lengths, torch.zeros(5, dtype=torch.int64)).numbered()
    outputs, blocks = TASKS["text-generation"].outputs, ("model.layers.0",)
    batches = [x for x, _ in source.batches(2)]
    answers = known_outputs(teacher, outputs, blocks, batches, memory=1 << 20)
    for inputs, numbers in source.epoch(3, seed=0, epoch=0):
        with torch.no_grad(), recorded(teacher, blocks) as hidden:
            wanted = outputs(teacher, inputs)
        found, theirs = answers.of(numbers, inputs)
        real = inputs["attention_mask"].bool()
        for ours, due in (
            (found.tensors[0], wanted.tensors[0]),
            (theirs[blocks[0]][0], hidden[blocks[0]][0]),
        ):
            assert ours.shape == due.shape
            assert torch.allclose(ours[real], due[real], atol=1e-5)
        assert torch.equal(found.mask, real)


def test_numbers_of_samples_are_never_learned_as_labels(trained, halved):
    source = squares(30, seed=1)
    answers = known_outputs(trained.eval(), CLASSES, (), [source.images], memory=1 << 20)
    with pytest.raises(ValueError, match="distill must be 1"):
        fit(
            copy.deepcopy(halved[0]),
            source,
            Recipe(epochs=1, distill=0.9),
            seed=0,
            teacher=Teacher(trained, known=answers),
        )


def test_without_batch_norms_it_comes_nearer_too():
    torch.manual_seed(0)
    layers = (nn.Linear(144, 24), nn.GELU(), nn.Linear(24, 16), nn.GELU(), nn.Linear(16, 4))
    teacher = nn.Sequential(nn.Flatten(), *layers)
    fit(teacher, squares(480), Recipe(epochs=6, batch_size=32, optimizer="adamw", lr=3e-3), seed=0)
    decisions = tuple(tiny.decision(g, range(0, g.size, 4)) for g in find_units(teacher, IMAGE).groups)
    model, kept = cut(teacher, decisions), kept_outputs(teacher, decisions)
    least_squares(Pair(model, teacher, kept), squares(160, seed=1))
    before = divergence(model, teacher, squares(400, seed=2))
    did = reconstruct(Pair(model, teacher, kept), squares(800, seed=1), visits=8000)
    assert did.changed
    assert divergence(model, teacher, squares(400, seed=2)) < before


def test_texts_of_any_length():
    teacher = tiny_heads.bert()
    source = TextSource.from_batches(
        [x for x, _ in tiny_heads.sentences(90).batches(30)], torch.zeros(90, dtype=torch.int64)
    )
    example, _ = next(iter(source.batches(1)))
    groups = [g for g in find_units(teacher, example).groups if g.kind in ("heads", "neurons")]
    decisions = tuple(tiny.decision(g, range(0, g.size, 2)) for g in groups)
    model, kept = cut(teacher, decisions), kept_outputs(teacher, decisions)
    least_squares(Pair(model, teacher, kept), source)
    solved = copy.deepcopy(model)
    did = reconstruct(Pair(model, teacher, kept), source, visits=800)
    assert (did.samples, did.passes) == (79, 10)
    assert did.changed == (did.after < did.before)
    assert same_weights(model, solved) != did.changed


@pytest.mark.parametrize(("passes", "share"), [(how.OFTEN - 1, 0.0), (how.OFTEN, 0.5)])
def test_texts_that_are_seen_often_are_recombined(monkeypatch, passes, share):
    teacher = tiny_heads.bert()
    source = TextSource.from_batches([x for x, _ in tiny_heads.sentences(90).batches(30)], None)
    asked = []

    def fitted(model, source, recipe, *, teacher, **_):
        asked.append((source.recombined, recipe.epochs, teacher.known is None))

    monkeypatch.setattr(how, "fit", fitted)
    reconstruct(Pair(copy.deepcopy(teacher), teacher, {}), source, visits=79 * passes)
    # What the unpruned model says of a new text is not known beforehand.
    assert asked == [(share, passes, share > 0)]


def test_of_language_models_tokens_are_counted(monkeypatch):
    # Whatever the descent leads to is kept, so that it shows what moved.
    worth = itertools.count(0, -1)
    monkeypatch.setattr(how, "mean_divergence", lambda *_: float(next(worth)))
    torch.manual_seed(0)
    teacher, task = tiny_transformers.transformer("llama", dtype=torch.float32), TASKS["text-generation"]
    ids = torch.randint(3, 50, (40, 7), generator=torch.Generator().manual_seed(1))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    source = TextSource.from_batches([batch], torch.zeros(40, dtype=torch.int64))
    example, _ = next(iter(source.batches(1)))
    groups = [g for g in find_units(teacher, example).groups if g.kind == "neurons"]
    decisions = tuple(tiny.decision(g, range(0, g.size, 2)) for g in groups)
    model, kept = cut(teacher, decisions), kept_outputs(teacher, decisions)
    pair = Pair(model, teacher, kept, decisions, task=task)
    least_squares(pair, source)
    words, norms = (
        m.get_parameter(n).clone()
        for m in (model,)
        for n in ("model.embed_tokens.weight", "model.norm.weight")
    )
    did = [reconstruct(pair, source, visits=visits) for visits in (35 * 7 * 4, 35 * 7 * 2)]
    assert [one.passes for one in did] == [4, 2]
    # What few samples have words of is left alone; all else has moved.
    assert all(one.changed for one in did)
    assert torch.equal(model.get_parameter("model.embed_tokens.weight"), words)
    assert torch.equal(model.get_parameter("model.norm.weight"), norms) != any(one.changed for one in did)
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.usefixtures("shortly")
def test_by_name(trained, halved):
    source = squares(160, seed=1)
    model = copy.deepcopy(halved[0])
    did = find_recovery("reconstruction").run(Pair(model, trained, halved[1]), source)
    assert did.ran
    assert did.changed
    assert did.layers
    assert did.together is not None
    assert did.together.changed
    assert did.notes == ()
    # The unpruned network says already what it should.
    same = find_recovery("reconstruction").run(Pair(copy.deepcopy(trained), trained, {}), source)
    assert ["stayed" in note for note in same.notes] == [True]
    with pytest.raises(
        UserError,
        match="known are least-squares, reconstruction, channel-least-squares, bias, bn, none",
    ):
        find_recovery("magic").run(Pair(model, trained, halved[1]), source)


@pytest.mark.usefixtures("shortly")
def test_who_judges_was_not_solved_on_either(trained, halved, monkeypatch):
    seen = {}
    least, together = how.least_squares, how.reconstruct

    def solved(pair, source, **rest):
        seen.setdefault("solved", []).append(
            {tuple(x.flatten().tolist()) for b, _ in source.batches(200) for x in b}
        )
        return least(pair, source, **rest)

    def moved(pair, source, *, judging, **rest):
        seen["learned"], seen["judging"] = (
            {tuple(x.flatten().tolist()) for b, _ in part.batches(200) for x in b}
            for part in (source, judging)
        )
        return together(pair, source, judging=judging, **rest)

    monkeypatch.setattr(how, "least_squares", solved)
    monkeypatch.setattr(how, "reconstruct", moved)
    find_recovery("reconstruction").run(
        Pair(copy.deepcopy(halved[0]), trained, halved[1]), squares(160, seed=1)
    )
    assert seen["solved"] == [seen["learned"]]
    assert (len(seen["learned"]), len(seen["judging"])) == (140, 20)
    assert not seen["learned"] & seen["judging"]


def test_taken_back_it_is_what_least_squares_gives(trained, halved, monkeypatch):
    spoilt = RECIPE.model_copy(update={"lr": 1e30, "unit_clip": 0.0})
    monkeypatch.setattr("coprune.recovery.reconstruction.RECIPE", spoilt)
    found = []
    for by in ("least-squares", "reconstruction"):
        model = copy.deepcopy(halved[0])
        find_recovery(by).run(Pair(model, trained, halved[1]), squares(160, seed=1))
        found.append(model)
    assert same_weights(*found)


@pytest.mark.usefixtures("shortly")
def test_from_python(trained, halved):
    loader = list(squares(160, seed=1).batches(40))
    unseen = squares(400, seed=2)
    solved, adjusted = (
        coprune.recover_model(halved[0], teacher=trained, calibration=loader, recovery=how)
        for how in ("least-squares", "reconstruction")
    )
    assert divergence(adjusted, trained, unseen) < divergence(solved, trained, unseen)


def test_photographs_leave_statistics_of_batch_norms_alone(trained, halved, monkeypatch):
    monkeypatch.setattr(forward, "_SMALL", 12 * 12 - 1)  # what counts as a small image
    model, kept = copy.deepcopy(halved[0]), halved[1]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = reconstruct(Pair(model, trained, kept), squares(160, seed=1), visits=300)
    assert found.changed
    assert found.after < found.before
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]) == ("running" in name or "tracked" in name), name


def test_small_images_do_not(trained, halved):
    model, kept = copy.deepcopy(halved[0]), halved[1]
    before = model.block.norm.running_mean.clone()
    assert reconstruct(Pair(model, trained, kept), squares(160, seed=1), visits=3000).changed
    assert not torch.equal(model.block.norm.running_mean, before)


def test_what_takes_minutes_is_said_before(trained, halved, monkeypatch, capsys):
    monkeypatch.setattr(progress, "_remarked", set())
    clock = iter(range(0, 10_000, 20))  # the pass over those that judge takes 20 s
    monkeypatch.setattr(how.time, "perf_counter", lambda: next(clock))
    pair = Pair(copy.deepcopy(halved[0]), trained, halved[1])
    reconstruct(pair, squares(160, seed=1), visits=140)  # 20 of 160 judge: a second each
    assert "reconstruction takes about 5 min" in capsys.readouterr().err
