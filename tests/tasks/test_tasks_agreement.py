"""How much two networks say the same."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coprune.tasks.agreement import agreement
from coprune.tasks.divergence import Divergence
from coprune.tasks.outputs import Outputs


def agreed(kind, found, wanted, *, axis=1, mask=None):
    metric = agreement(Divergence(kind, axis))
    wrapped = (Outputs(t if isinstance(t, tuple) else (t,), mask) for t in (found, wanted))
    return float(metric.finish(metric.sums(*wrapped).sum(0)))


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_the_same_class_by_hand():
    wanted, found = torch.eye(4), torch.eye(4)[[0, 1, 3, 3]]
    assert agreed("softmax", found, wanted) == 0.75


def test_the_same_labels_by_hand():
    wanted, found = torch.tensor([[1.0, -1.0], [2.0, 3.0]]), torch.tensor([[1.0, 1.0], [-2.0, 3.0]])
    assert agreed("sigmoid", found, wanted) == 0.5
    # One logit a pixel is yes or no, of which a softmax knows nothing.
    assert agreed("softmax", found.view(1, 1, 2, 2), wanted.view(1, 1, 2, 2)) == 0.5


def test_the_mean_cosine_by_hand():
    wanted, found = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[1.0, 1.0], [0.0, 5.0]])
    assert agreed("cosine", found, wanted) == pytest.approx((0.5**0.5 + 1) / 2)


def test_what_stays_of_the_variance_by_hand():
    wanted = torch.tensor([[0.0, 0.0], [2.0, 20.0], [4.0, 40.0]])
    found = wanted + torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 10.0]])
    # Each channel in its own unit: deviations of 8 and 800, errors of 1 and 100.
    assert agreed("gaussian", found, wanted) == pytest.approx(1 - (1 / 8 + 100 / 800) / 2)


def test_several_tensors_count_by_their_places():
    small, large = drawn(5, 2), drawn(5, 2, 3, 3, seed=1)
    assert agreed("gaussian", (small, large), (small, large)) == 1
    wrong = agreed("gaussian", (small.flip(0), large), (small, large))
    other = agreed("gaussian", (small, large.flip(0)), (small, large))
    assert other < wrong < 1


def test_tokens_that_pad_do_not_count():
    wanted, found = drawn(2, 4, 3), drawn(2, 4, 3)
    mask = torch.tensor([[True, True, False, False], [True] * 4])
    found[0, 2:] = 9
    for kind in ("softmax", "sigmoid", "gaussian", "cosine"):
        assert agreed(kind, found, wanted, axis=-1, mask=mask) == pytest.approx(1)


@settings(max_examples=20, deadline=None)
@given(
    kind=st.sampled_from(["softmax", "sigmoid", "gaussian", "cosine"]),
    cut=st.integers(1, 6),
    seed=st.integers(0, 999),
)
def test_batches_change_nothing_even_one_of_a_single_sample(kind, cut, seed):
    wanted, found = drawn(7, 3, seed=seed), drawn(7, 3, seed=seed + 1)
    metric = agreement(Divergence(kind))
    parts = [
        metric.sums(Outputs((found[at],)), Outputs((wanted[at],))) for at in (slice(cut), slice(cut, None))
    ]
    assert float(metric.finish(torch.cat(parts).sum(0))) == pytest.approx(agreed(kind, found, wanted))
    assert agreed(kind, wanted, wanted) == pytest.approx(1)


def test_of_many_channels_some_are_looked_at():
    wanted = drawn(40, 1000)
    found = wanted + 0.5 * drawn(40, 1000, seed=1)
    assert agreed("gaussian", found, wanted) == pytest.approx(0.75, abs=0.03)


def test_a_channel_that_hardly_varies_does_not_decide():
    wanted = torch.stack([drawn(50), torch.ones(50), torch.zeros(50)], 1)
    assert agreed("gaussian", wanted + 0.01, wanted) > 0.95
