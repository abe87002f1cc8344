"""The sums that a question asks for: what a patient moves, and which noise is left."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
import scipy.stats

from jaxfair.fairness.histogram import area, kernel
from jaxfair.privacy.histogram import unit_histogram
from jaxfair.privacy.strategy import covariance, strategy
from tests.fairness.binned_laws import cut, masses

BINS = range(1, 65)
N = scipy.stats.norm


@pytest.mark.parametrize("bins", BINS)
def test_no_cell_moves_the_sums_by_more_than_one(bins):
    """In fractions, of the very floats; and of the matrix whose inverse the noise has."""
    for column in strategy(bins).T:
        square = sum(Fraction(float(entry)) ** 2 for entry in column)
        assert 1 - 1e-11 < square <= 1
    asked = np.linalg.inv(covariance(bins))
    assert (np.diag(asked) <= 1).all()


@pytest.mark.parametrize("bins", [3, 5, 16, 64])
def test_a_patient_spread_over_cells_moves_the_sums_by_no_more_than_one(bins):
    rng, rows = np.random.default_rng(0), 6
    for images in (1, 2, 3, 10, 500):
        cells = rng.integers(0, rows * bins, images)
        mine = unit_histogram(np.zeros(images, int), cells, rows * bins)
        assert np.linalg.norm(mine.reshape(rows, bins) @ strategy(bins).T) <= 1
    near = unit_histogram(np.zeros(2, int), np.arange(2), rows * bins)
    assert np.linalg.norm(near.reshape(rows, bins) @ strategy(bins).T) > 0.7


@pytest.mark.parametrize("bins", BINS)
def test_the_noise_is_that_of_sums_of_neighbours_and_the_same_from_either_end(bins):
    """By the closed form of the inverse of r^|i - j|."""
    r, found = max(0.0, 1 - (3 / bins) ** 0.5), covariance(bins)
    inner = np.full(bins, 1 + r**2)
    inner[[0, -1]] = 1
    wanted = np.diag(inner) - r * (np.eye(bins, k=1) + np.eye(bins, k=-1))
    assert np.allclose(found, wanted / (1 - r**2), atol=1e-10)
    asked = strategy(bins)
    steps = np.abs(np.subtract.outer(np.arange(bins), np.arange(bins)))
    assert np.allclose(asked.T @ asked, r**steps, atol=1e-10)
    assert (asked >= 0).all() and np.isclose(np.linalg.det(asked), (1 - r**2) ** ((bins - 1) / 2))


def ratios(bins):
    """(what is told, its noise over that of independent counts) of many designs."""
    noise = covariance(bins)
    for auc, spread in itertools.product((0.6, 0.7, 0.8, 0.9, 0.95, 0.99), (0.5, 1.0, 2.0)):
        other = N(N.ppf(auc) * (1 + spread**2) ** 0.5, spread)
        edges = cut(N(0, 1), other, bins)
        law = np.stack([masses(N(0, 1), edges), masses(other, edges)])
        slopes = np.stack([kernel(bins) @ law[1], law[0] @ kernel(bins)]) - area(law)
        for positive in (0.02, 0.1, 0.5):
            rows = slopes / np.array([[1 - positive], [positive]])
            name = "auroc" if spread == 1 else "auroc of unlike spreads"
            yield name, (((rows @ noise) * rows).sum() / (rows**2).sum()) ** 0.5
        for label, at in itertools.product((0, 1), range(1, bins)):
            row = (np.arange(bins) >= at) - law[label, at:].sum()
            yield "rate", ((row @ noise @ row) / (row @ row)) ** 0.5
    yield "all", (noise.sum() / bins) ** 0.5


@pytest.mark.parametrize(("bins", "auroc", "unlike", "rate", "everybody"), [
    (4, 1.0, 1.04, 1.03, 0.91), (5, 0.98, 1.06, 1.05, 0.85), (8, 0.91, 1.11, 1.11, 0.72),
    (16, 0.75, 1.12, 1.24, 0.57), (64, 0.46, 0.9, 1.63, 0.37),
])  # fmt: skip
def test_sums_have_less_noise_and_nothing_has_much_more(bins, auroc, unlike, rate, everybody):
    """The worst of each kind; rates are worst at thresholds beside the first or the last bin."""
    found = list(ratios(bins))
    most = {name: max(r for n, r in found if n == name) for name, _ in found}
    assert most["auroc"] <= auroc and most["auroc of unlike spreads"] <= unlike
    assert most["rate"] <= rate and most["all"] <= everybody
    for kind in ("auroc", "rate"):
        assert np.mean([ratio**2 for name, ratio in found if name == kind]) < 1
