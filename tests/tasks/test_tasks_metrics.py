"""Figures by hand, and what of them counts."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coprune.tasks.losses import PlaceLoss, label_loss, span_loss, squared_loss
from coprune.tasks.metrics import IGNORED, OWN_PERPLEXITY, Metric
from coprune.tasks.names import METRICS
from coprune.tasks.outputs import Outputs


def figure(metric, output, targets):
    """As it is worked out of single samples."""
    sums = metric.sums(Outputs(output if isinstance(output, tuple) else (output,)), targets)
    assert sums.dtype == torch.float64
    return float(metric.finish(sums.sum(0)))


def logits_of(classes, count):
    """Logits ``[N, C, …]`` whose largest is that of the classes."""
    return torch.nn.functional.one_hot(classes.clamp_min(0), count).movedim(-1, 1).float() * 3 - 1


TRUTH = torch.tensor([[[0, 0, 1], [1, 2, 2]]])
GUESS = torch.tensor([[[0, 1, 1], [1, 2, 0]]])


def test_miou_by_hand():
    # 0: {a, f} and {a, b}: 1 of 3. 1: {b, c, d} and {c, d}: 2 of 3. 2: {e} and {e, f}: 1 of 2.
    found = figure(METRICS["miou"], logits_of(GUESS, 3), TRUTH)
    assert found == pytest.approx((1 / 3 + 2 / 3 + 1 / 2) / 3)
    assert figure(METRICS["pixel_accuracy"], logits_of(GUESS, 3), TRUTH) == pytest.approx(4 / 6)


def test_classes_that_occur_nowhere_do_not_count():
    # A fourth class, never there and never guessed, is no class of this data.
    found = figure(METRICS["miou"], logits_of(GUESS, 4), TRUTH)
    assert found == pytest.approx((1 / 3 + 2 / 3 + 1 / 2) / 3)


@pytest.mark.parametrize("ignored", [IGNORED, 255])
def test_pixels_without_a_class_do_not_count(ignored):
    truth = TRUTH.clone()
    truth[0, 0, 1] = truth[0, 1, 2] = ignored  # the two that are wrong
    assert figure(METRICS["miou"], logits_of(GUESS, 3), truth) == 1
    assert figure(METRICS["pixel_accuracy"], logits_of(GUESS, 3), truth) == 1


def test_one_logit_a_pixel_is_yes_or_no():
    logit = torch.tensor([[[[2.0, -1.0, 0.5, -3.0]]]])
    truth = torch.tensor([[[[1, 1, 0, 0]]]])
    # No: {b, d} and {c, d}: 1 of 3; yes: {a, c} and {a, b}: 1 of 3.
    assert figure(METRICS["miou"], logit, truth) == pytest.approx(1 / 3)
    pair = torch.cat([torch.zeros_like(logit), logit], 1)
    assert figure(METRICS["miou"], pair, truth[:, 0]) == pytest.approx(1 / 3)
    loss = PlaceLoss(1)(Outputs((logit,)), truth)
    due = torch.nn.functional.binary_cross_entropy_with_logits(logit, truth.float())
    torch.testing.assert_close(loss, due)


def test_logits_of_a_coarser_grid_are_brought_to_the_masks():
    coarse = logits_of(torch.tensor([[[0, 1], [2, 1]]]), 3)
    truth = torch.tensor([[[0, 1], [2, 1]]]).repeat_interleave(4, 1).repeat_interleave(4, 2)
    assert figure(METRICS["miou"], coarse, truth) > 0.7
    fine = torch.nn.functional.interpolate(coarse, (8, 8), mode="bilinear")
    assert figure(METRICS["miou"], coarse, truth) == figure(METRICS["miou"], fine, truth)


def test_a_class_that_the_model_has_not_is_refused():
    with pytest.raises(IndexError, match="class 2 of 2"):
        figure(METRICS["miou"], logits_of(GUESS.clamp_max(1), 2), TRUTH)


def test_miou_is_that_of_all_samples_together():
    generator = torch.Generator().manual_seed(0)
    guess, truth = (torch.randint(0, 3, (5, 4, 4), generator=generator) for _ in range(2))
    inside = [int(((guess == c) & (truth == c)).sum()) for c in range(3)]
    union = [int(((guess == c) | (truth == c)).sum()) for c in range(3)]
    due = sum(i / u for i, u in zip(inside, union, strict=True)) / 3
    assert figure(METRICS["miou"], logits_of(guess, 3), truth) == pytest.approx(due)


def test_f1_and_label_accuracy_by_hand():
    logits = torch.tensor([[1.0, -1.0, 2.0], [-1.0, -2.0, 3.0]])
    labels = torch.tensor([[1, 1, 1], [0, 0, 0]])
    # Right yes: 2; wrong yes: 1; missed: 1.
    assert figure(METRICS["f1"], logits, labels) == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert figure(METRICS["label_accuracy"], logits, labels) == pytest.approx(4 / 6)
    due = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels.float())
    torch.testing.assert_close(label_loss(Outputs((logits,)), labels), due)


def test_r2_and_mse_by_hand():
    values, wanted = torch.tensor([[1.0], [2.0], [6.0]]), torch.tensor([2.0, 2.0, 5.0])
    # Mean 3, deviations 1 + 1 + 4; errors 1 + 0 + 1.
    assert figure(METRICS["r2"], values, wanted) == pytest.approx(1 - 2 / 6)
    assert figure(METRICS["mse"], values, wanted) == pytest.approx(2 / 3)
    assert float(squared_loss(Outputs((values,)), wanted)) == pytest.approx(2 / 3)
    # Two columns: each deviates from its own mean.
    two = torch.cat([values, values + 100], 1)
    due = torch.stack([wanted, wanted + 100], 1)
    assert figure(METRICS["r2"], two, due) == pytest.approx(1 - 4 / 12)


def test_targets_of_another_layout_are_refused():
    with pytest.raises(ValueError, match=r"targets \[2, 4, 4, 3\] for values \[2, 3, 4, 4\]"):
        figure(METRICS["mse"], torch.zeros(2, 3, 4, 4), torch.zeros(2, 4, 4, 3))


def test_psnr_by_hand():
    wanted = torch.zeros(2, 1, 2, 2)
    values = torch.stack([torch.full((1, 2, 2), 0.1), torch.full((1, 2, 2), 0.01)])
    # 20 dB and 40 dB: the mean over the images, not that of their errors.
    assert figure(METRICS["psnr"], values, wanted) == pytest.approx(30, abs=1e-4)


def test_perplexity_by_hand():
    shares = torch.tensor([[[0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]]])
    tokens = torch.tensor([[2, 0, 1]])
    # The first place says the second token, the second one the third.
    found = figure(METRICS["perplexity"], shares.log(), tokens)
    assert found == pytest.approx(math.exp(-(math.log(0.5) + math.log(0.8)) / 2), rel=1e-6)
    due = math.exp(-(math.log(0.25) + math.log(0.1) + math.log(0.2)) / 3)
    assert figure(OWN_PERPLEXITY, shares.log(), tokens) == pytest.approx(due, rel=1e-6)
    shifted = PlaceLoss(-1, shift=True)(Outputs((shares.log(),)), tokens)
    assert float(shifted) == pytest.approx(math.log(found), rel=1e-6)


def test_masked_tokens_do_not_count():
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 5, 4, generator=generator)
    tokens = torch.randint(0, 4, (2, 5), generator=generator)
    tokens[0, 3:] = IGNORED
    for name in ("perplexity", "token_accuracy"):
        before = figure(METRICS[name], logits, tokens)
        other = logits.clone()
        other[0, 3:] = 50  # only places without a token of their own, or after it
        assert figure(METRICS[name], other, tokens) == pytest.approx(before)
    long, short = tokens[1:], tokens[:1, :3]
    counts = METRICS["perplexity"].sums(Outputs((logits,)), tokens)[:, 1]
    assert counts.tolist() == [short.shape[1] - 1, long.shape[1] - 1]


def test_token_accuracy_by_hand():
    logits = torch.eye(3).unsqueeze(0) * 2  # says 0, 1, 2
    assert figure(METRICS["token_accuracy"], logits, torch.tensor([[0, 2, 2]])) == pytest.approx(2 / 3)
    assert figure(METRICS["token_accuracy"], logits, torch.tensor([[0, IGNORED, 1]])) == pytest.approx(1 / 2)


@pytest.mark.parametrize("tree", [tuple, lambda pair: dict(zip(("start", "end"), pair, strict=True))])
def test_exact_match_by_hand(tree):
    start, end = torch.eye(3), torch.eye(3).flip(0)  # starts 0, 1, 2; ends 2, 1, 0
    wanted = tree((torch.tensor([0, 1, 1]), torch.tensor([2, 1, 0])))
    assert figure(METRICS["exact_match"], (start, end), wanted) == pytest.approx(2 / 3)
    parts = wanted if isinstance(wanted, tuple) else tuple(wanted.values())
    due = sum(torch.nn.functional.cross_entropy(*pair) for pair in zip((start, end), parts, strict=True)) / 2
    torch.testing.assert_close(span_loss(Outputs((start, end)), wanted), due)


def test_what_is_lost_has_a_direction_and_a_unit():
    share, ratio = METRICS["f1"], METRICS["perplexity"]
    assert share.lost(0.9, 0.88) == pytest.approx(2)
    assert ratio.lost(20.0, 21.5) == pytest.approx(1.5)
    assert share.allowed("1%", 0.9) == pytest.approx(0.9)  # points
    assert ratio.allowed("10%", 20.0) == pytest.approx(2)
    assert share.allowed(0.5, 0.9) == 0.5
    assert (share.shown(0.9345), METRICS["miou"].shown(0.9345)) == ("93.45%", "0.9345")
    assert (share.loss_unit, METRICS["miou"].loss_unit) == ("points", "miou")
    assert Metric("word_accuracy").label == "word accuracy"


CASES = {
    "miou": (
        lambda n, g: torch.randn(n, 3, 4, 4, generator=g),
        lambda n, g: torch.randint(3, (n, 4, 4), generator=g),
    ),
    "f1": (lambda n, g: torch.randn(n, 5, generator=g), lambda n, g: torch.randint(2, (n, 5), generator=g)),
    "r2": (lambda n, g: torch.randn(n, 2, generator=g), lambda n, g: torch.randn(n, 2, generator=g)),
    "psnr": (
        lambda n, g: torch.rand(n, 1, 3, 3, generator=g),
        lambda n, g: torch.rand(n, 1, 3, 3, generator=g),
    ),
    "perplexity": (
        lambda n, g: torch.randn(n, 4, 6, generator=g),
        lambda n, g: torch.randint(6, (n, 4), generator=g),
    ),
}


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), cut=st.integers(1, 6), name=st.sampled_from(sorted(CASES)))
def test_a_figure_does_not_depend_on_batches(seed, cut, name):
    generator = torch.Generator().manual_seed(seed)
    values, targets = (make(7, generator) for make in CASES[name])
    metric = METRICS[name]
    whole = metric.sums(Outputs((values,)), targets)
    parts = [metric.sums(Outputs((values[at],)), targets[at]) for at in (slice(cut), slice(cut, None))]
    torch.testing.assert_close(torch.cat(parts), whole)
