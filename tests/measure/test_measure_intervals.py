"""Standard errors of figures over samples, against the bootstrap and against what is known."""

import math

import pytest
import torch

from coprune.measure.intervals import around, error_of_mean, jackknife
from coprune.tasks.names import METRICS


def draw(seed, *shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def bootstrap(sums, figure, *, times=2000):
    """Standard deviation of the figure of as many samples drawn with replacement."""
    generator = torch.Generator().manual_seed(1)
    drawn = torch.randint(len(sums), (times, len(sums)), generator=generator)
    return float(figure(sums[drawn].sum(1)).std())


SUMS = {
    # Negative log-likelihoods of texts of 20 to 60 tokens; overlaps and unions of three classes; errors.
    "perplexity": lambda: torch.stack([40 * draw(0, 300) + 60 * draw(1, 300), 20 + 40 * draw(1, 300)], 1),
    "miou": lambda: torch.cat([50 * draw(0, 300, 3), 50 + 50 * draw(1, 300, 3)], 1),
    "mse": lambda: torch.stack([draw(0, 300).square(), torch.ones(300, dtype=torch.float64)], 1),
    "f1": lambda: torch.stack([draw(0, 300).round(), draw(0, 300).round() + 0.5 * draw(1, 300).round()], 1),
}


@pytest.mark.parametrize("name", SUMS)
def test_the_jackknife_agrees_with_the_bootstrap(name):
    sums, figure = SUMS[name](), METRICS.find(name).finish
    assert jackknife(sums, figure) == pytest.approx(bootstrap(sums, figure), rel=0.1)


@pytest.mark.parametrize("name", SUMS)
def test_of_pairs_what_both_networks_share_is_no_doubt(name):
    """Two networks of which one loses a little on every sample: their difference is far surer than either."""
    sums, figure = SUMS[name](), METRICS.find(name).finish
    other = sums.clone()
    other[:, 0] *= 1.01

    def lost(both):
        values = figure(both)
        return values[..., 0] - values[..., 1]

    both = torch.stack([sums, other], 1)
    assert jackknife(both, lost) == pytest.approx(bootstrap(both, lost), rel=0.1)
    assert jackknife(both, lost) < 0.2 * jackknife(sums, figure)


def test_of_a_mean_it_is_the_usual_error():
    values = draw(0, 50)
    sums = torch.stack([values, torch.ones_like(values)], 1)
    due = float(values.std()) / math.sqrt(50)
    assert jackknife(sums, METRICS.find("mse").finish) == pytest.approx(due)
    assert error_of_mean(values.tolist()) == pytest.approx(due)


def test_of_one_sample_nothing_is_sure():
    assert jackknife(torch.ones(1, 2), METRICS.find("mse").finish) == math.inf
    assert around(0.5, math.inf, 1, z=1.96) == (-math.inf, math.inf)
    # Two blocks: Student's quantile with one degree of freedom, 12.7.
    assert around(0.0, 1.0, 2, z=1.959964)[1] == pytest.approx(12.706, rel=1e-3)
