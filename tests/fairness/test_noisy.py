"""Statistics of a noisy histogram: against exact ones and in other designs; the table of groups."""

import numpy as np
import pytest
import scipy.stats

from jaxfair.fairness.histogram import (
    area,
    binned,
    prevalence,
    sensitivity,
    specificity,
    tied_area,
)
from jaxfair.fairness.metrics import auroc
from jaxfair.fairness.noisy import noisy_table
from tests.fairness.binned_laws import cut, masses

N = scipy.stats.norm


def truth_of(one, other):
    """P(other > one) by a sum over a fine grid."""
    grid = np.linspace(min(one.ppf(1e-9), other.ppf(1e-9)), other.ppf(1 - 1e-9), 200_001)
    middle = (one.cdf(grid[:-1]) + one.cdf(grid[1:])) / 2
    return float(middle @ np.diff(other.cdf(grid)))


LAWS = {
    "normals": (N(0, 1), N(1.2, 1)),
    "unlike spreads": (N(0, 1), N(0.8, 2)),
    "betas": (scipy.stats.beta(2, 5), scipy.stats.beta(4, 3)),
    "skewed": (scipy.stats.gamma(2), scipy.stats.gamma(4)),
    "no difference": (N(0, 1), N(0, 1)),
    "near perfect": (N(0, 1), N(3.5, 1)),
}


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("bins", [5, 8, 16])
def test_the_bias_of_bins_is_taken_out(name, bins):
    """At edges as those of a release."""
    one, other = LAWS[name]
    edges = cut(one, other, bins)
    counts = np.stack([masses(one, edges), masses(other, edges)])
    truth = truth_of(one, other)
    assert abs(area(counts) - truth) < {5: 0.0025, 8: 0.001, 16: 0.0003}[bins]
    if name != "unlike spreads":  # whose odds fall and rise, so that halved ties happen to cancel
        assert abs(area(counts) - truth) <= abs(tied_area(counts) - truth) + 1e-9


def test_an_area_is_exact_for_straight_densities_and_turns_with_the_order():
    rising = scipy.stats.triang(1.0)  # density 2 x against one that is flat: 2 / 3
    edges = [0.25, 0.5, 0.75]
    counts = np.stack([masses(scipy.stats.uniform(), edges), masses(rising, edges)])
    assert area(counts) == pytest.approx(2 / 3)
    assert area(counts[:, ::-1]) == pytest.approx(1 / 3)
    assert area(counts[::-1]) == pytest.approx(1 / 3)


def test_many_bins_give_the_area_of_the_scores_themselves():
    rng = np.random.default_rng(0)
    y = (rng.random(3000) < 0.3).astype(float)
    scores = rng.normal(y)
    edges = np.quantile(scores, np.arange(1, 200) / 200)
    counts = np.zeros((2, 200))
    np.add.at(counts, (y.astype(int), binned(scores, edges)), 1)
    assert area(counts) == pytest.approx(auroc(y, scores), abs=2e-3)


def test_rates_and_prevalence_are_shares_and_undefined_without_mass():
    counts = [[6.0, 2.0, 2.0], [1.0, 1.0, 3.0]]
    assert sensitivity(counts, 2) == pytest.approx(0.6) and specificity(counts, 2) == 0.8
    assert prevalence(counts) == pytest.approx(1 / 3)
    nobody = np.zeros((2, 3))
    assert np.isnan([area(nobody), sensitivity(nobody, 1), prevalence(nobody)]).all()
    assert np.isnan(area([[-3.0, 1.0], [1.0, 1.0]]))


def test_noise_leaves_the_area_where_it_is():
    """2,000 noisy copies of one histogram; the mean within three of its errors."""
    counts = 900 * np.stack([masses(N(0, 1), np.linspace(-1, 2, 7)),
                             masses(N(1, 1), np.linspace(-1, 2, 7)) / 3])  # fmt: skip
    noisy = counts + np.random.default_rng(0).normal(scale=4, size=(2000, 2, 8))
    found = area(noisy)
    assert abs(found.mean() - area(counts)) < 3 * found.std() / 2000**0.5 + 1e-3


def test_groups_are_hidden_by_the_noisy_count_alone():
    few, many = np.full((2, 4), 5.0), np.full((2, 4), 200.0)
    table = noisy_table([few, many], np.eye(4), ["few", "many"], at=2)
    hidden = table[table["group"] == "few"]
    assert hidden[["value", "ci_low", "ci_high", "patients"]].isna().all(axis=None)
    assert (hidden["why"] == "too few by the noisy count").all()
    assert not table["metric"].str.startswith("gap").any()  # nobody is left to compare with
    lifted = noisy_table([few + 5, many], np.eye(4), ["few", "many"], at=2)
    assert lifted["value"].notna().all() and (lifted["metric"] == "gap_auroc").sum() == 1


def test_a_label_that_drowns_in_noise_has_no_rates():
    counts = np.stack([np.full(4, 200.0), np.full(4, 6.0)])[None]
    table = noisy_table(counts, 16 * np.eye(4), ["all"], at=2).set_index("metric")
    assert table.loc[["auroc", "sensitivity"], "value"].isna().all()
    assert table.loc[["specificity", "prevalence"], "value"].notna().all()


def test_negative_counts_end_neither_in_an_error_nor_outside_of_shares():
    counts = np.array([[[-9.0, 40, 80, 1], [2.0, -6, 90, 60]]])
    table = noisy_table(counts, 16 * np.eye(4), ["all"], at=2)
    assert table[["value", "ci_low", "ci_high"]].stack().between(0, 1).all()
