"""Bounds from canaries against known answers, and the isolation check against its faults."""

import numpy as np
import pytest
import scipy.stats

from jaxfair.privacy import canaries

N = 10_000


def made_normal(shift):
    """N(shift, 1) at its own quantiles: the scores behind the published figures."""
    return scipy.stats.norm.ppf((np.arange(N) + 0.5) / N) + shift


def frontier(ins, outs):
    """(guesses, correct) at the corners of the hull of the ROC curve, one per threshold."""
    thresholds = np.append(np.union1d(ins, outs), np.inf)
    missed = np.searchsorted(np.sort(ins), thresholds)
    cleared = np.searchsorted(np.sort(outs), thresholds)
    kept = []
    for point in zip(missed, cleared):
        while len(kept) > 1 and _turns_down(kept[-2], kept[-1], point):
            kept.pop()
        kept.append(point)
    corners = np.array(kept)
    return 2 * N - corners.sum(axis=1), N - corners[:, 0]


def _turns_down(a, b, c):
    return (b[1] - a[1]) * (c[0] - b[0]) <= (c[1] - b[1]) * (b[0] - a[0])


@pytest.mark.parametrize(
    ("estimator", "shift", "epsilon"),
    [
        (canaries.one_run_epsilon, 1, 1.13346),
        (canaries.one_run_epsilon, 2, 2.311945),
        (canaries.one_run_epsilon, 4, 4.395568),
        (canaries.one_run_gaussian_epsilon, 1, 2.164749),
        (canaries.one_run_gaussian_epsilon, 2, 4.7218075),
        (canaries.one_run_gaussian_epsilon, 4, 9.133752),
    ],
)
def test_one_run_bounds_give_the_published_figures(estimator, shift, epsilon):
    guesses, correct = frontier(made_normal(shift), made_normal(0))
    level = 0.05 / len(guesses)
    bound = lambda i: estimator(2 * N, int(guesses[i]), int(correct[i]), delta=1e-6, level=level)
    stride = max(1, len(guesses) // 40)
    coarse = max(range(1, len(guesses), stride), key=bound)
    near = range(max(0, coarse - stride), min(len(guesses), coarse + stride), max(1, stride // 40))
    found = max(bound(i) for i in near)
    assert found == pytest.approx(epsilon, rel=1e-5)
