"""Who judges, how sure it must be, and what is said when held-out samples show more."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import coprune as package
import tiny
from coprune.budget.counts import Budget
from coprune.budget.search import search_drop
from coprune.data import TreeSource, load_data
from coprune.data.source import MemorySource
from coprune.errors import UserError
from coprune.measure.evaluation import Score
from coprune.measure.intervals import SURE, paired_drop, wilson
from coprune.measure.latency import median_interval
from coprune.pipeline.checks import check_base, check_calibration
from coprune.pipeline.judging import SEEN, Judging, judging_of, more_lost, notes_on, parts_for
from coprune.pipeline.settings import PruneSettings
from coprune.report import sentences
from coprune.result import Code, Judged, Latency, Result
from coprune.task import TASKS
from coprune.training import Recipe, fit
from digits import write_digits
from search_curves import World, share_of, true_loss

LIMIT = PruneSettings(budget=Budget(max_drop=1.0))


@pytest.fixture
def archive(tmp_path):
    """Writes an archive, perhaps with more arrays, and says its name."""

    def write(name="d.npz", **more):
        return f"npz:{write_digits(tmp_path / name, **more)}"

    return write


def context_of(data):
    """Just what judges need."""
    task = TASKS["classification"]
    return SimpleNamespace(data=data, device="cpu", task=task, reference=None, pass_size=250, seed=LIMIT.seed)


def drawn(n, seed=1):
    rng = np.random.default_rng(seed)
    return {"x_val": rng.integers(0, 255, (n, 1, 12, 12), dtype=np.uint8), "y_val": np.arange(n) % 4}


def test_the_data_s_own_validation_part_judges_and_statistics_use_all_calibration_samples(archive):
    plain, data = load_data(archive("p.npz")), load_data(archive(**drawn(50)))
    # The other parts are what they are without it.
    assert (data.fingerprint, len(data.train)) == (plain.fingerprint, len(plain.train))
    statistics, judging = parts_for(context_of(data), searched=True)
    assert statistics is data.calibration
    assert (judging.source, judging.on) == (data.validation, "validation")
    assert judging.z == pytest.approx(SEEN * math.sqrt(1 + 50 / 120))
    statistics, judging = parts_for(context_of(plain), searched=True)
    assert (len(statistics), len(judging.source), judging.z) == (30, 30, SURE)
    assert judging.on == "training samples set aside"
    assert load_data(archive(**drawn(50)), validation="none").validation is None


def test_a_number_is_taken_out_of_the_held_out_part(archive):
    name = archive()
    whole, data = load_data(name), load_data(name, validation="40")
    again = load_data(name, validation="40", seed=7)
    assert (len(data.heldout), len(data.validation)) == (80, 40)
    assert data.validation.labels.bincount().tolist() == [10] * 4
    assert again.validation.fingerprint() == data.validation.fingerprint()
    both = torch.cat([data.heldout.images, data.validation.images])
    assert sorted(map(float, both.double().sum((1, 2, 3)))) == sorted(
        map(float, whole.heldout.images.double().sum((1, 2, 3)))
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("120", "has 120 held-out samples; give a number between 0 and that"),
        ("0", "give a number between 0 and that"),
        ("sst5:x", "the data are images, and so must these be"),
        ("fashion-mnist-sample", "normalised in two ways"),
        ("npz:nowhere.npz", "no such file"),
    ],
)
def test_validation_that_cannot_judge_is_refused(archive, given, said):
    with pytest.raises(UserError, match=said):
        load_data(archive(), validation=given)


def test_validation_samples_that_are_others_too_are_refused(archive):
    name = archive()
    with pytest.raises(UserError, match="its samples are the held-out ones"):
        load_data(name, validation=name)
    with pytest.raises(UserError, match="y_val missing"):
        load_data(archive(x_val=drawn(9)["x_val"]))
    with pytest.raises(UserError, match="label 9 is outside its 4 classes"):
        load_data(archive(**{**drawn(20), "y_val": np.full(20, 9)}))


@pytest.mark.parametrize(("judging", "heldout"), [(600, 600), (1000, 500)])
@pytest.mark.parametrize("churn", [0.0, 0.01, 0.02])
def test_held_out_samples_rarely_show_more_than_validation_samples_allowed(judging, heldout, churn):
    """Simulated as in the test of the search, and the held-out samples drawn too, as a user will see them."""
    runs, shown, kept = 100, 0, 0
    for run in range(runs):
        draw = torch.Generator().manual_seed(run)
        base = torch.rand(judging + heldout, generator=draw) < 0.94
        rank = torch.rand(judging + heldout, generator=draw)
        made: dict[float, torch.Tensor] = {}

        def right(share, made=made, base=base, rank=rank, draw=draw):
            if share not in made:
                chance = torch.rand(len(base), generator=draw)
                gone = base & ((rank < true_loss(share) / 0.94) | (chance < churn / 0.94))
                made[share] = (base & ~gone) | (~base & (chance < churn / 0.06))
            return made[share]

        found = search_drop(
            0.05,
            0.94,
            2.0,
            decide=World(lambda share: share).decide,
            judge=lambda decisions, right=right, base=base: (
                0.9,
                paired_drop(
                    base[:judging],
                    right(share_of(decisions))[:judging],
                    z=SEEN * math.sqrt(1 + judging / heldout),
                ),
            ),
        )
        share = share_of(found.decisions)
        after = base if share == 1 else right(share)
        lost = (base[judging:].double() - after[judging:].double()).mean()
        shown += float(lost) > 0.02
        kept += share == 1
    assert shown <= 0.1 * runs
    assert kept < 0.5 * runs


def judged(**changes):
    given = {"decision": "max_drop", "on": "validation", "samples": 400, "allowed": 2.0, "found": 1.23}
    return Judged(**{**given, "interval": (0.79, 1.92), **changes})


def test_what_held_out_samples_show_beyond_the_limit_is_said():
    (note,) = more_lost(judged(), 2.62)
    assert note.code is Code.MORE_LOST
    assert note == (
        "held-out samples show a loss of 2.62 points, more than the 2 allowed; on the 400 that judged it was "
        "1.23 (0.79 to 1.92)"
    )
    assert more_lost(judged(), 2.0) == more_lost(judged(allowed=None), 9.0) == more_lost(None, 9.0) == []


def test_training_samples_that_decide_a_size_are_said():
    (note,) = notes_on(judged(on="training samples set aside"))
    assert note.code is Code.JUDGED_ON_TRAINING
    assert note.startswith("judged on 400 training samples set aside: the unpruned model may have learned")
    for other in (judged(), judged(on="calibration samples"), judged(decision="fine-tuning"), None):
        assert notes_on(other) == []


def test_who_judged_in_words():
    text = sentences.judged(judged())
    assert text == "at most 2 points lost, on 400 validation samples: 1.23 (0.79 to 1.92) points lost"
    other = judged(decision="knee", allowed=None, on="training samples set aside", interval=None)
    assert sentences.judged(other) == "the size, on 400 training samples set aside: 1.23 points lost"


@pytest.fixture(scope="module")
def learned():
    """A perceptron that tells bright from dark images."""
    torch.manual_seed(0)
    layers = [nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)]
    net = nn.Sequential(*layers)
    ((images, labels),) = batches(seed=9)
    source = TreeSource.of([(images, labels)], labelled=True)
    fit(net, source, Recipe(epochs=60, lr=0.01, optimizer="adamw", batch_size=16), seed=0)
    return net


def batches(n=64, seed=0, change=lambda y: y):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 2
    images = 0.4 * torch.rand(n, 1, 4, 4, generator=generator) + 0.6 * labels.view(-1, 1, 1, 1)
    return [(images, change(labels))]


def test_from_python_a_loader_judges_and_the_first_note_says_what_held_out_samples_show(learned):
    given = {"train": batches(), "calibration": batches(seed=1), "max_drop": 5.0}
    outcome = package.prune(learned, eval=batches(200, seed=2), validation=batches(120, seed=3), **given)
    result = outcome.result
    assert (result.judged.on, result.judged.samples, result.judged.allowed) == ("validation", 120, 5.0)
    assert result.calibration == 64
    assert result.judged.found == 0
    assert not {Code.MORE_LOST, Code.JUDGED_ON_TRAINING} & {note.code for note in result.notes}
    result = package.prune(learned, eval=batches(200, seed=2), **given).result
    assert (result.judged.on, result.judged.samples) == ("calibration samples", 32)


def test_validation_loaders_that_cannot_judge_are_refused(learned):
    given = {"train": batches(), "eval": batches(seed=1), "max_drop": 5.0}
    with pytest.raises(UserError, match="validation= and eval= are one data set; give other samples"):
        package.prune(learned, validation=given["eval"], **given)
    with pytest.raises(UserError, match=r"validation= gives samples of \[1, 5, 5\], not of \[1, 4, 4\]"):
        package.prune(learned, validation=[(torch.rand(9, 1, 5, 5), torch.arange(9) % 2)], **given)


@pytest.mark.parametrize(
    ("right", "samples", "commonest", "commonest_right", "told"),
    [
        (100, 200, 100, 100, False),  # always answers one class
        (100, 200, 100, 50, False),  # guesses
        (125, 200, 100, 60, True),
        (990, 1000, 990, 990, False),
        (999, 1000, 990, 990, True),
        (2, 2, 1, 1, True),  # nothing wrong: few samples are no reason to refuse
        (12, 20, 5, 3, True),
        (7, 20, 5, 2, False),
    ],
)
def test_a_base_must_be_surely_better_than_one_answer(right, samples, commonest, commonest_right, told):
    score = Score(right / samples, samples, commonest=commonest, commonest_right=commonest_right)
    assert score.beats_constant == told
    if told:
        assert check_base(score, force=False) == []
        return
    with pytest.raises(UserError, match="what it loses means nothing; train it"):
        check_base(score, force=False)
    assert [note.code for note in check_base(score, force=True)] == [Code.NO_BETTER_THAN_CHANCE]


def test_an_untrained_base_is_refused_before_work():
    torch.manual_seed(0)
    train, heldout = ([*tiny.source(90, seed=seed).batches(30)] for seed in (0, 1))
    given = {"train": train, "eval": heldout, "keep_macs": 0.5}
    net = tiny.network("resnet20")
    with pytest.raises(UserError, match="or go on with force"):
        package.prune(net, **given)
    notes = package.prune(net, **given, force=True).result.notes
    assert Code.NO_BETTER_THAN_CHANCE in {note.code for note in notes}


@pytest.mark.parametrize(
    ("images", "code"),
    [
        (torch.zeros(60, 1, 8, 8), Code.ALIKE_SAMPLES),
        (torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0)).repeat(60, 1, 1, 1), None),
        (torch.linspace(0, 1, 60).view(-1, 1, 1, 1).repeat(1, 3, 8, 8), None),  # each of one colour
        (torch.eye(8).view(1, 1, 8, 8) + 0.01 * torch.rand(60, 1, 8, 8), None),
    ],
)
def test_calibration_samples_that_are_alike_are_refused(images, code):
    source = TreeSource.of([(images, torch.arange(60) % 3)], labelled=True)
    with pytest.raises(UserError, match="all 60 are alike or without content; give samples such as"):
        check_calibration(source)
    assert [note.code for note in check_calibration(source, force=True)] == [code or Code.ALIKE_SAMPLES]


def test_few_calibration_samples_and_copies_are_said():
    source: MemorySource = tiny.source(200)
    assert check_calibration(source) == []
    (note,) = check_calibration(source.take(torch.arange(29)))
    assert (note.code, note.split(" are")[0]) == (Code.FEW_SAMPLES, "29 calibration samples")
    (note,) = check_calibration(source.take(torch.arange(200) % 20))
    assert note.startswith("of 128 calibration samples 20 differ")


@pytest.mark.filterwarnings("error")
def test_one_image_is_compared_with_nothing():
    (note,) = check_calibration(TreeSource.of([(torch.rand(1, 3, 8, 8), None)], labelled=False))
    assert note.code == Code.FEW_SAMPLES


def timed(low, ratio, high, *, base=(2.0, 2.4), pruned=(1.0, 1.2)):
    return Latency(
        engine="torch", device="cpu", threads=1, batch=1, base_ms=2.2, pruned_ms=1.1, base_spread_ms=base,
        pruned_spread_ms=pruned, ratio=ratio, ratio_interval=(low, high), repeats=50,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("entry", "told", "differs", "text"),
    [
        (timed(1.9, 2.0, 2.1), True, True, "2.00× faster"),
        (timed(0.9, 1.1, 1.3), True, False, "no difference can be told (0.90–1.30×)"),
        (timed(0.5, 0.8, 1.2), False, False, "no difference can be told (0.50–1.20×)"),
        (timed(2.4, 8.78, 16.0), False, False, "how much cannot be told (2.40–16.00×)"),
        (timed(8.0, 8.78, 9.0, base=(2.2, 15.1)), False, False, "how much cannot be told (8.00–9.00×)"),
    ],
)
def test_a_ratio_that_noise_swamps_is_no_speed(entry, told, differs, text):
    assert (entry.conclusive, entry.differs, sentences.speed(entry)) == (told, differs, text)


def test_the_interval_of_a_median_by_hand():
    # 1 − 2 · P(at most 17 heads of 50) = 0.967; of five values the interval is all of them.
    assert median_interval(np.arange(50)[::-1]) == (17, 32)
    assert median_interval(np.array([3.0, 1, 2, 5, 4])) == (1, 5)
    inside = [
        low <= 0 <= high
        for low, high in (median_interval(np.random.default_rng(s).normal(size=40)) for s in range(300))
    ]
    assert 0.93 <= np.mean(inside) <= 0.99


def test_wilson_by_hand():
    # Newcombe, Statistics in Medicine 17 (1998), pp. 857-872, table I: 81 of 263 and 0 of 20.
    assert wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(0.0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)


def test_a_panel_names_its_samples():
    data = load_data("fashion-mnist-sample", calibration=100, validation="500")
    context = context_of(data)
    judges = context, context.task
    assert Judging(tiny.source(9), "validation", SURE, *judges).samples == "validation samples"
    assert Judging(tiny.source(9), "training samples", SURE, *judges).samples == "training samples"
    assert judging_of(context).z == pytest.approx(SEEN * math.sqrt(1 + 500 / 1500))


def test_first_screen_and_result_say_who_judged(coprune, base, tmp_path):
    """From the command line, with the data's own validation part; held-out labels are partly wrong."""
    rng = np.random.default_rng(0)
    digits = np.load(write_digits(tmp_path / "d.npz"))
    labels = digits["y_test"][:60]
    part = {"x_test": digits["x_test"][:60], "y_test": np.where(rng.random(60) < 0.1, 3 - labels, labels)}
    own = {"x_val": digits["x_test"][60:], "y_val": digits["y_test"][60:]}
    name = f"npz:{write_digits(tmp_path / 'own.npz', **part, **own)}"
    typed = ("prune", "--model", base, "--data", name, "--max-drop", 12, "--latency-batches", "")
    ended = coprune(*typed, "--out", tmp_path / "run")
    assert ended.code == 0, ended.err
    result = Result.load(tmp_path / "run" / "result.json")
    assert (result.judged.on, result.judged.samples, result.judged.allowed) == ("validation", 60, 12)
    lines = ended.out.replace("\n", " ")
    assert "judged   at most 12 points lost, on 60 validation samples: " in lines
    assert "on 60 samples; 240 for calibration" in lines
    plan = (tmp_path / "run" / "plan.json").read_text()
    assert "-half" not in plan
