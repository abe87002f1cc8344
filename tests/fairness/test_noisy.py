"""Statistics of a noisy histogram: against exact ones, other designs, and simulated coverage."""

import numpy as np
import pytest
import scipy.stats

from jaxfair.fairness.edges import fine_edges, quantile_edges, youden_edge, zoomed
from jaxfair.fairness.histogram import area, binned, prevalence, sensitivity, specificity
from jaxfair.fairness.metrics import auroc
from jaxfair.fairness.noisy import noisy_table, spread

N = scipy.stats.norm


def masses(law, edges):
    """The chance of each bin."""
    return np.diff([0.0, *law.cdf(edges), 1.0])


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
@pytest.mark.parametrize("bins", [6, 8, 16])
def test_the_bias_of_bins_is_taken_out(name, bins):
    """At edges where both labels, half of each, have equal mass, as those of a release."""
    one, other = LAWS[name]
    grid = np.linspace(one.ppf(1e-6), other.ppf(1 - 1e-6), 20_001)
    cuts = np.searchsorted((one.cdf(grid) + other.cdf(grid)) / 2, np.arange(1, bins) / bins)
    counts = np.stack([masses(one, grid[cuts]), masses(other, grid[cuts])])
    truth = truth_of(one, other)
    ties = (counts[1] * (np.cumsum(counts[0]) - counts[0] / 2)).sum()
    assert abs(area(counts) - truth) < {6: 0.004, 8: 0.003, 16: 0.001}[bins]
    if name != "unlike spreads":  # whose odds fall and rise, so that halved ties happen to cancel
        assert abs(area(counts) - truth) <= abs(ties - truth) + 1e-9


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


def test_draws_hold_the_noise_and_the_sampling():
    counts = np.full((1, 2, 6), 100.0)
    around = spread(counts, 5.0, seed=0, n=4000)
    assert around.draws.var(0).mean() == pytest.approx(100 + 25, rel=0.05)
    assert around.noised.var(0).mean() == pytest.approx(25, rel=0.05)


def test_groups_are_hidden_by_the_noisy_count_alone():
    few, many = np.full((2, 4), 5.0), np.full((2, 4), 200.0)
    table = noisy_table([few, many], 1.0, ["few", "many"], at=2, seed=0, n=50)
    hidden = table[table["group"] == "few"]
    assert hidden[["value", "ci_low", "ci_high", "patients"]].isna().all(axis=None)
    assert (hidden["why"] == "too few by the noisy count").all()
    assert not table["metric"].str.startswith("gap").any()  # nobody is left to compare with
    lifted = noisy_table([few + 5, many], 1.0, ["few", "many"], at=2, seed=0, n=50)
    assert lifted["value"].notna().all() and (lifted["metric"] == "gap_auroc").sum() == 1


def test_a_label_that_drowns_in_noise_has_no_rates():
    counts = np.stack([np.full(4, 200.0), np.full(4, 6.0)])[None]
    table = noisy_table(counts, 4.0, ["all"], at=2, seed=0, n=50).set_index("metric")
    assert table.loc[["auroc", "sensitivity"], "value"].isna().all()
    assert table.loc[["specificity", "prevalence"], "value"].notna().all()


def test_negative_counts_end_neither_in_an_error_nor_outside_of_shares():
    counts = np.array([[[-9.0, 40, 80, 1], [2.0, -6, 90, 60]]])
    table = noisy_table(counts, 4.0, ["all"], at=2, seed=0, n=200)
    assert table[["value", "ci_low", "ci_high"]].stack().between(0, 1).all()


def test_edges_follow_the_mass_and_the_threshold_is_one_of_them():
    fine = fine_edges(0.0, 1.0, 64)
    laws = scipy.stats.beta(2, 6), scipy.stats.beta(5, 4)
    counts = 3000 * np.stack([masses(law, fine) for law in laws])
    edges = quantile_edges(counts, 3.0, 0.0, 1.0, 8)
    share = np.stack([masses(law, edges) for law in laws]).mean(0)
    assert len(edges) == 7 and np.isin(edges, fine).all() and (abs(share - 1 / 8) < 0.03).all()
    at = youden_edge(counts, edges, fine)
    sums = [laws[0].cdf(e) + laws[1].sf(e) for e in edges]
    assert at == 1 + int(np.argmax(sums))


def test_without_anybody_edges_are_even_and_the_range_stays():
    noise = np.random.default_rng(0).normal(size=(2, 64))
    assert zoomed(noise[0, :32], 1.0, 0.0, 1.0) == (0.0, 1.0)
    edges = quantile_edges(np.zeros((2, 64)), 1.0, 0.0, 1.0, 4)
    assert np.allclose(edges, [0.25, 0.5, 0.75], atol=0.02)
    assert 1 <= youden_edge(np.zeros((2, 64)), edges, fine_edges(0, 1, 64)) <= 3


DESIGNS = {  # negatives and positives by group, noise, separation
    "two groups": ([(600, 120), (500, 90)], 3.7, 1.2),
    "much noise": ([(900, 300), (900, 300)], 10.0, 1.0),
    "near the edge": ([(1500, 200), (400, 120)], 3.7, 2.2),
}


def coverage(design, repeats, *, seed):
    """Share of intervals that hold the truth, by metric, over all groups; binormal scores."""
    sizes, sd, shift = DESIGNS[design]
    edges = np.linspace(-1.2, shift + 1.2, 7)
    law = np.stack([masses(N(0, 1), edges), masses(N(shift, 1), edges)])
    truths = {
        "auroc": N.cdf(shift / 2**0.5), "gap_auroc": 0.0, "gap_specificity": 0.0,
        "sensitivity": N.sf(edges[3] - shift), "specificity": N.cdf(edges[3]),
    }  # fmt: skip
    hits = {metric: [] for metric in truths}
    for repeat in range(repeats):
        rng = np.random.default_rng([seed, repeat])
        counts = rng.poisson(np.array(sizes)[..., None] * law) + rng.normal(
            scale=sd, size=(len(sizes), 2, 8)
        )
        table = noisy_table(counts, sd, ["a", "b"], at=4, seed=repeat, n=400)
        for row in table[table["value"].notna()].itertuples():
            if row.metric in truths:
                hits[row.metric].append(row.ci_low <= truths[row.metric] <= row.ci_high)
    return {metric: (np.mean(found), len(found)) for metric, found in hits.items()}


def test_intervals_cover_sampling_and_noise_briefly():
    for share, count in coverage("two groups", 100, seed=1).values():
        assert abs(share - 0.95) < 4 * (0.95 * 0.05 / count) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize("design", DESIGNS)
def test_intervals_cover_in_94_to_96_percent(design):
    """2,000 repeats; a half of one percent is left for the chance of so many."""
    for share, _ in coverage(design, 2000, seed=2).values():
        assert 0.935 <= share <= 0.965
