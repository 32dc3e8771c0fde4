"""Top-1 by hand; wrong labels, shapes and numbers are refused in one line."""

import pytest
import torch
from torch import nn

import tiny
from coprune.data import DataSet, LoaderSource
from coprune.errors import UserError
from coprune.measure import Score, evaluate
from coprune.pipeline.context import stage_of


class Returns(nn.Module):
    """Gives its input back, after a change."""

    def __init__(self, change=lambda x: x):
        super().__init__()
        self.change = change

    def forward(self, x):
        return self.change(x)


def loader(logits, labels, batch=2):
    x, y = torch.tensor(logits, dtype=torch.float32), torch.tensor(labels)
    return LoaderSource(list(zip(x.split(batch), y.split(batch), strict=True)), len(y))


LOGITS = [[2.0, 0.0], [0.0, 1.0], [0.0, 3.0]]


def test_accuracy_by_hand():
    score = evaluate(Returns(), loader(LOGITS, [0, 1, 0]))
    assert score.value == 2 / 3
    assert score.samples == 3
    assert score.words == "top-1 66.67%"
    assert (score.commonest, score.commonest_right) == (2, 1)


def test_the_last_short_batch_counts_by_its_samples():
    net, source = tiny.network("resnet20"), tiny.source(25)
    whole, parts = (evaluate(net, source, batch_size=b) for b in (25, 7))
    assert whole.samples == parts.samples == 25
    assert whole.value == parts.value


def test_evaluation_mode_and_no_changes():
    net = tiny.network("resnet20").train()
    before = tiny.state_of(net)
    evaluate(net, tiny.source(9))
    assert not net.training
    assert tiny.same_state(before, tiny.state_of(net))


@pytest.mark.parametrize("label", [2, 7])
def test_a_label_above_the_classes_is_refused(label):
    with pytest.raises(UserError, match=f"label {label} is outside the model's 2 classes"):
        evaluate(Returns(), loader(LOGITS, [0, 1, label]))


@pytest.mark.parametrize("label", [-1, -100])
def test_a_negative_label_is_refused(label):
    # Once a bug: −1 is an IndexError of PyTorch; −100 is cross_entropy's "ignore" and
    # silently counts as wrong.
    with pytest.raises(UserError, match="label"):
        evaluate(Returns(), loader(LOGITS, [0, 1, label]))


@pytest.mark.parametrize(
    "change",
    [lambda x: x.sum(1), lambda x: x.view(1, -1), lambda x: x.unsqueeze(2), lambda x: x.mean()],
)
def test_an_output_that_is_not_a_row_a_sample_is_refused(change):
    with pytest.raises(UserError, match="a classifier returns one row of logits a sample"):
        evaluate(Returns(change), loader(LOGITS, [0, 1, 0]))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_none_are_refused(value):
    with pytest.raises(UserError, match="NaN or Inf"):
        evaluate(Returns(), loader([[1.0, value], *LOGITS[1:]], [0, 1, 0]))


def test_no_samples_are_refused():
    with pytest.raises(UserError, match="no samples"):
        evaluate(Returns(), LoaderSource([], 0))


def test_a_stage_holds_all_figures(example):
    net, source = tiny.network("resnet20"), tiny.source(30)
    data = DataSet("test", source, source, tiny.source(21, seed=1), 3, (1, 12, 12), "x")
    stage = stage_of("base", net, evaluate(net, data.heldout), example)
    assert stage.name == "base"
    assert stage.value == evaluate(net, data.heldout).value
    assert stage.params == sum(p.numel() for p in net.parameters())
    assert stage.bytes > 4 * stage.params
    assert stage.peak_memory > 4 * stage.params
    assert stage.macs > 0


def test_score_is_a_value():
    assert Score(0.5, 10) == Score(0.5, 10)


def test_which_samples_are_right_by_hand():
    sums = evaluate(Returns(), loader(LOGITS, [0, 1, 0])).sums
    assert sums.dtype == torch.float64
    assert sums.tolist() == [[1, 1], [1, 1], [0, 1]]


def test_which_samples_are_right_is_in_the_sources_order_and_means_the_accuracy():
    net, source = tiny.network("resnet20"), tiny.source(25)
    whole, parts = (evaluate(net, source, batch_size=b).sums[:, 0] > 0 for b in (25, 7))
    assert torch.equal(whole, parts)
    assert float(whole.double().mean()) == evaluate(net, source).value
    x, y = next(source.batches(25))
    with torch.no_grad():
        assert torch.equal(whole, net(x).argmax(1) == y)


@pytest.mark.parametrize(("labels", "words"), [([0, 1, 7], "outside"), ([0, 1, -1], "label")])
def test_which_samples_are_right_refuses_labels_that_are_none(labels, words):
    with pytest.raises(UserError, match=words):
        evaluate(Returns(), loader(LOGITS, labels))
