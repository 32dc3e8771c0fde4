"""Metrics of other libraries and of a user's own give what they give by hand."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from coprune.data import TreeSource
from coprune.errors import UserError
from coprune.measure.evaluation import evaluate, lost
from coprune.task import TASKS
from coprune.tasks.foreign import metric_of
from coprune.tasks.names import METRICS

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(40, 3, generator=GENERATOR)
Y = torch.randint(0, 4, (40,), generator=GENERATOR)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Linear(3, 4).eval()


@pytest.fixture
def source():
    return TreeSource.of([(X, Y)])


def by_hand(model):
    with torch.no_grad():
        return float((model(X).argmax(1) == Y).double().mean())


def task(metric):
    return replace(TASKS["classification"], metric=metric_of(metric))


class Accuracy:
    """As torchmetrics' own ones look."""

    higher_is_better = True

    def __init__(self):
        self.reset()

    def reset(self):
        self.right = self.all = 0

    def update(self, predictions, targets):
        self.right += int((predictions.argmax(1) == targets).sum())
        self.all += len(targets)

    def compute(self):
        return torch.tensor(self.right / self.all)

    def clone(self):
        return copy.deepcopy(self)


def accuracy(given):
    """As 🤗 Trainer's compute_metrics."""
    assert isinstance(given.predictions, np.ndarray)
    return {"accuracy": float((given.predictions.argmax(1) == given.label_ids).mean()), "other": 7}


def share_right(model, batches):
    pairs = [(model(inputs).argmax(1) == targets).double() for inputs, targets in batches]
    return torch.cat(pairs).mean()


@pytest.mark.parametrize(
    "metric", [Accuracy(), accuracy, share_right], ids=["object", "computed", "function"]
)
def test_the_figure_is_that_by_hand(model, source, metric):
    score = evaluate(model, source, task=task(metric))
    assert score.value == pytest.approx(by_hand(model))
    assert (score.samples, len(score.blocks)) == (40, 10)
    assert np.mean(score.blocks) == pytest.approx(score.value)  # blocks of four each
    low, high = score.interval
    assert low < score.value < high
    assert score.metric.higher_is_better
    other = copy.deepcopy(model)
    nn.init.zeros_(other.weight)
    assert lost(score, evaluate(other, source, task=task(metric))).found == pytest.approx(
        by_hand(model) - by_hand(other)
    )


def test_a_metric_is_left_as_it_is(model, source):
    given = Accuracy()
    given.update(torch.eye(4), torch.arange(4))
    evaluate(model, source, task=task(given))
    assert (given.right, given.all) == (4, 4)


def test_direction_and_name():
    def word_error(model, batches):
        return 0.0

    def better(model, batches):
        return 0.0

    better.name, better.higher_is_better = "slowness", False
    assert (metric_of(word_error).name, metric_of(word_error).higher_is_better) == ("word_error", False)
    assert (metric_of(better).name, metric_of(better).higher_is_better) == ("slowness", False)
    assert metric_of(share_right).higher_is_better
    assert metric_of("miou") is METRICS["miou"]
    assert metric_of(METRICS["f1"]) is METRICS["f1"]


@pytest.mark.parametrize(
    ("given", "said"),
    [("mio", "miou"), (3, "3 is no metric"), (Accuracy, "is no metric")],
)
def test_what_is_no_metric_is_refused(given, said):
    with pytest.raises(UserError, match=said):
        metric_of(given)


def test_a_figure_that_is_no_number_is_refused(model, source):
    with pytest.raises(UserError, match="no number"):
        evaluate(model, source, task=task(lambda model, batches: "good"))


def test_boxes_are_handed_on_as_they_are_and_map_counts(source):
    class Boxes(nn.Module):
        def forward(self, images):
            return [{"boxes": torch.zeros(1, 4), "scores": torch.ones(1)} for _ in images]

    class Map(Accuracy):
        def update(self, predictions, targets):
            assert predictions[0]["boxes"].shape == (1, 4)
            self.all += len(predictions)

        def compute(self):
            return {"classes": torch.tensor([1, 2]), "map": torch.tensor(self.all / 80)}

    score = evaluate(Boxes(), source, task=task(Map()))
    assert score.value == 0.5


def test_predictions_of_several_widths_are_padded(model):
    seen = []

    def computed(given):
        seen.append((given.predictions.shape, given.label_ids.shape, given.label_ids[0, -1]))
        return {"accuracy": 1.0}

    class Tagger(nn.Module):
        def forward(self, x):
            return torch.zeros(*x.shape, 5)

    pairs = [(torch.zeros(2, 3), torch.zeros(2, 3)), (torch.zeros(2, 6), torch.zeros(2, 6))]
    metric = metric_of(computed)
    found = metric.whole(Tagger(), [pairs], TASKS["token-classification"].read)
    assert list(found) == [1.0]
    assert seen == [((4, 6, 5), (4, 6), -100)]
