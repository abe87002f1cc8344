"""Intervals of noisy histograms: against formulas and repeats, and simulated coverage."""

import itertools

import numpy as np
import pytest
import scipy.stats

from jaxfair.fairness.histogram import area, kernel
from jaxfair.fairness.noisy import Side, _less, enough, interval
from jaxfair.fairness.noisy_intervals import (
    Interval,
    _noised,
    area_interval,
    difference,
    share_interval,
)
from jaxfair.privacy.strategy import covariance
from tests.fairness.binned_laws import cut, masses

N = scipy.stats.norm
NOISE = {0.5: 7.0, 1.0: 3.73, 4.0: 1.1}
"""Deviation of the noise on what is asked of the tests, by epsilon, of one attribute."""
EVEN = np.eye(5)
METRICS = ("auroc", "sensitivity", "specificity", "prevalence")


def test_without_noise_a_share_has_wilsons_interval():
    found = share_interval([8.0, 0.0, 40.0], [10.0, 30.0, 400.0], np.zeros((2, 2)))
    for place, (part, whole) in enumerate([(8, 10), (0, 30), (40, 400)]):
        exact = scipy.stats.binomtest(part, whole).proportion_ci(method="wilson")
        assert found.low[place] == pytest.approx(exact.low, abs=1e-9)
        assert found.high[place] == pytest.approx(exact.high, abs=1e-9)


def test_a_share_that_noise_drowns_may_be_anything():
    found = share_interval(9.0, 10.0, 50.0**2 * np.array([[3, 3], [3, 6]]))
    assert found.low <= 0 and found.high >= 1


def test_without_noise_and_with_many_patients_an_area_has_delongs_error():
    rng = np.random.default_rng(0)
    n, p = rng.normal(size=4000), rng.normal(loc=1, scale=1.5, size=3000)
    edges = np.linspace(-3, 5, 63)
    counts = np.stack([np.histogram(s, [-np.inf, *edges, np.inf])[0] for s in (n, p)]).astype(float)
    wins = [np.searchsorted(np.sort(n), p) / 4000, 1 - np.searchsorted(np.sort(p), n) / 3000]
    error = sum(w.var() / len(w) for w in wins) ** 0.5
    found = area_interval(counts, np.zeros((64, 64)))
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * error, rel=0.03)


def noisy_of(counts, noise, repeats, seed):
    """Repeats of counts (2, b) with noise of a covariance (b, b), that of labels independent."""
    rng, root = np.random.default_rng(seed), np.linalg.cholesky(noise)
    return counts + rng.normal(size=(repeats, *counts.shape)) @ root.T


@pytest.mark.parametrize("noise", [25 * EVEN, 25 * covariance(5), 25 * covariance(16)],
                         ids=["independent", "5 bins", "16 bins"])  # fmt: skip
@pytest.mark.parametrize("shift", [0.3, 1.2, 2.3])
def test_the_noise_that_is_told_is_that_of_repeats(shift, noise):
    """The same counts, 4,000 times with other noise, a quarter of all positives in deviation."""
    bins = len(noise)
    edges, at = cut(N(0, 1), N(shift, 1), bins), bins // 2 + 1
    counts = np.stack([900 * masses(N(0, 1), edges), 60 * masses(N(shift, 1), edges)])
    noisy = noisy_of(counts, noise, 4000, 0)
    side = Side(noisy, noise, 50.0, at)
    found = {"auroc": area(noisy)}
    found["sensitivity"] = noisy[:, 1, at:].sum(-1) / noisy[:, 1].sum(-1)
    found["specificity"] = noisy[:, 0, :at].sum(-1) / noisy[:, 0].sum(-1)
    found["prevalence"] = noisy[:, 1].sum(-1) / noisy.sum((-1, -2))
    for metric, values in found.items():
        told = interval(side, metric)
        assert np.allclose(told.value, values)
        assert (told.noise_sd**2).mean() ** 0.5 == pytest.approx(values.std(), rel=0.08), metric


def test_the_variance_by_noise_is_exact_where_both_labels_nearly_drown():
    """That of n (K - t) p, of 40,000 repeats at any t; a third of it is of second order."""
    noise, exact = covariance(8), np.stack([np.linspace(2, 1, 8), np.linspace(1, 2, 8)])
    n, p = np.moveaxis(noisy_of(exact, noise, 40_000, 1), 1, 0)
    matrix, sizes = kernel(8), np.stack([n.sum(-1), p.sum(-1)], -1)
    wins = np.stack([p @ matrix.T / sizes[:, 1:], n @ matrix / sizes[:, :1]], 1)
    told = [term * sizes.prod(-1) ** 2 for term in _noised(sizes, wins, matrix, noise)]
    for t in (0.0, 0.3, 0.6, 1.0):
        moved = ((n @ (matrix - t)) * p).sum(-1)
        variance = told[0] + t * told[1] + t**2 * told[2]
        assert variance.mean() == pytest.approx(moved.var(), rel=0.04)


def test_an_area_that_noise_lifts_above_one_still_holds_what_lies_below():
    found = area_interval([[400.0, 60, 30, 8, 2], [-3, -3, 2, 8, 44]], 3.7**2 * EVEN)
    assert found.value > 1 and found.low < 0.95


def test_an_area_and_that_of_the_other_order_have_turned_intervals():
    counts = np.array([[300.0, 90, 40, 20, 6], [2, 9, 8, 16, 44]])
    one, other = (area_interval(c, 4 * covariance(5)) for c in (counts, counts[:, ::-1]))
    assert other.low == pytest.approx(1 - one.high, abs=1e-6)
    assert other.high == pytest.approx(1 - one.low, abs=1e-6)


def test_a_difference_reaches_down_by_the_ends_that_lie_against_it():
    """Down by 3 of the one's lower end and 4 of the other's upper one, up by 5 and 12."""
    one, other = Interval(7.0, 4.0, 12.0, 3.0), Interval(5.0, -7.0, 9.0, 4.0)
    assert np.allclose(difference(one, other), [2, 2 - 5, 2 + 13, 5])


def test_who_is_shown_by_little_has_a_wider_interval_than_the_same_counts_would_need():
    counts = np.array([[100.0, 40, 20, 10, 5], [2, 4, 8, 10, 16]])
    noise, sums = 3.7**2 * covariance(5), np.array([[0.0, 0, 0, 1, 1], [1, 1, 1, 1, 1]])
    near = interval(Side(counts, noise, 50.0, 3), "sensitivity")
    plain = share_interval(26.0, 40.0, sums @ noise @ sums.T)
    assert near.high > plain.high + 0.02 and near.value == plain.value
    far = interval(Side(counts * 4, noise, 50.0, 3), "sensitivity")
    assert far == share_interval(104.0, 160.0, sums @ noise @ sums.T)


@pytest.mark.parametrize("metric", ["sensitivity", "specificity", "prevalence", "auroc"])
def test_the_lift_of_those_who_stand_there_by_noise_is_what_noise_lifts(metric):
    """Of the noise on a sum the mean on each count, by the slopes of 100,000 repeats."""
    noise, counts = 9 * covariance(8), np.full((2, 8), 3.0)
    summed = 16 if metric == "prevalence" else 8
    cells = noisy_of(0 * counts, noise, 100_000, 0).reshape(100_000, -1, summed)
    sums = cells.sum(-1, keepdims=True)
    slopes = (cells * sums).mean(0) / (sums**2).mean(0)
    lifted = (counts - _less(Side(counts, noise, 48.0, 4), metric)).reshape(slopes.shape)
    assert (lifted > 0).all()
    assert np.allclose(lifted / lifted.sum(-1, keepdims=True), slopes, atol=0.01)


def drawn(mean, noise, repeats, rng):
    """Repeats (repeats, 2, b) of counts with sampling and noise, as a release has them."""
    patients = rng.poisson(mean, (repeats, *mean.shape))
    return patients + rng.normal(size=patients.shape) @ np.linalg.cholesky(noise).T


def coverage(design, repeats, seed, *, bins=5, scale=1.0):
    """(metric -> share of intervals that hold the truth, number shown, shown by little).

    Args:
      design: epsilon, patients, prevalence, AUROC of two normals, of deviations 1 and `scale`.
    """
    epsilon, patients, positive, auc = design
    noise, other = (
        NOISE[epsilon] ** 2 * covariance(bins),
        N(N.ppf(auc) * (1 + scale**2) ** 0.5, scale),
    )
    edges = cut(N(0, 1), other, bins)
    law, at = np.stack([masses(N(0, 1), edges), masses(other, edges)]), 1 + bins // 2
    sizes = patients * np.array([1 - positive, positive])
    counts = drawn(sizes[:, None] * law, noise, repeats, np.random.default_rng(seed))
    truths = area(law), law[1, at:].sum(), law[0, :at].sum(), positive
    found = {}
    for metric, truth in zip(METRICS, truths):
        side = Side(counts, noise, 50.0, at)
        shown = enough(side, metric) & (counts.sum((1, 2)) >= 50)
        if not shown.any():
            continue
        held = interval(side._replace(counts=counts[shown]), metric)
        smallest = {"prevalence": patients, "specificity": sizes[0]}.get(metric, sizes.min())
        few = smallest < max(50, 8 * noise.sum() ** 0.5)
        found[metric] = ((held.low <= truth) & (truth <= held.high)).mean(), shown.sum(), few
    return found


def held(share, count, few, *, low=0.94, high=0.96):
    """Within three errors of so many repeats; above is allowed where counts are few."""
    error = 3 * (0.95 * 0.05 / count) ** 0.5
    return low - error <= share and (few or share <= high + error)


SMALL = [
    (1.0, 600, 0.2, 0.8),
    (4.0, 1000, 0.1, 0.95),
    (0.5, 1000, 0.5, 0.99),
    (1.0, 1000, 0.1, 0.6),
]


@pytest.mark.parametrize("design", SMALL)
def test_intervals_cover_sampling_and_noise_briefly(design):
    for metric, found in coverage(design, 600, seed=1).items():
        assert held(*found), metric


GRID = list(itertools.product(NOISE, (200, 1000, 10_000), (0.02, 0.1, 0.5), (0.6, 0.8, 0.95, 0.99)))


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_intervals_cover_in_94_to_96_percent(scale):
    """2,000 repeats of 108 designs; those that fewer than 100 repeats show say nothing."""
    shares, missed = [], []
    for number, design in enumerate(GRID):
        for metric, found in coverage(design, 2000, seed=number, scale=scale).items():
            if found[1] < 100:
                continue
            unlike = metric == "auroc" and scale != 1 and design[-1] == 0.99
            if not held(*found, low=0.88 if unlike else 0.94):
                missed.append((design, metric, found))
            if not found[2] and not unlike:
                shares.append(found[0])
    assert not missed
    assert 0.945 <= np.mean(shares) <= 0.957


@pytest.mark.slow
def test_differences_cover_in_94_to_96_percent():
    """Two groups of other sizes, two noises, two pairs of laws; few on the wrong side are few."""
    rng, sizes = np.random.default_rng(3), ((120, 300), (60, 900))
    for sd, numbers, shift in itertools.product((1.1, 3.73), sizes, (1.2, 2.2)):
        edges = cut(N(0, 1), N(shift, 1), 5)
        law = np.stack([masses(N(0, 1), edges), masses(N(shift, 1), edges)])
        sides = []
        for positives in numbers:
            mean, noise = np.array([[5 * positives], [positives]]) * law, sd**2 * covariance(5)
            sides.append(Side(drawn(mean, noise, 2000, rng), noise, 50.0, 3))
        few = numbers[0] < 8 * noise.sum() ** 0.5 or numbers[0] * N.sf(shift / 2**0.5) < 10
        for metric in METRICS:
            gap = difference(*(interval(side, metric) for side in sides))
            share = ((gap.low <= 0) & (gap.high >= 0)).mean()
            assert held(share, 2000, few), (sd, numbers, shift, metric, share)
