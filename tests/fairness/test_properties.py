"""Properties of every formula, on tables drawn by hypothesis: ties, rare labels, tiny groups."""

import itertools

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxfair.fairness import calibration, delong, metrics, thresholds
from jaxfair.fairness.catalog import METRICS
from jaxfair.fairness.gaps import max_min_gap
from jaxfair.fairness.multiplicity import holm, romano_wolf
from jaxfair.fairness.permutation import patient_strata, permuted_groups

often = settings(deadline=None, max_examples=60)


@st.composite
def tables(draw, *, both=True, size=40):
    """(y, s, patients): few score values, so ties; 1 to `size` rows, any number per patient."""
    n = draw(st.integers(4, size))
    y = np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n)), dtype=float)
    if both:
        y[0], y[1] = 0.0, 1.0
    s = np.array(draw(st.lists(st.integers(-3, 3), min_size=n, max_size=n)), dtype=float)
    patients = np.array(draw(st.lists(st.integers(0, n - 1), min_size=n, max_size=n)))
    return y, s, np.unique(patients, return_inverse=True)[1]


def brute_auroc(y, s):
    pairs = [(a > b) + 0.5 * (a == b) for a, b in itertools.product(s[y == 1], s[y == 0])]
    return float(np.mean(pairs)) if pairs else float("nan")


def value_of(name, y, s, threshold=0.5):
    metric = METRICS[name]
    at = {"youden": threshold, "fpr@0.05": threshold, "sens@0.95": threshold}
    return metric.of_group(y, s, np.ones(len(y), dtype=bool), at)


@often
@given(tables(both=False))
def test_auroc_is_the_share_of_pairs_in_the_right_order(table):
    y, s, _ = table
    assert metrics.auroc(y, s) == pytest.approx(brute_auroc(y, s), nan_ok=True)


@often
@given(tables(both=False), st.lists(st.booleans(), min_size=40, max_size=40))
def test_sauroc_and_bpsn_are_pair_counts_and_make_up_each_other(table, marks):
    y, s, _ = table
    inside = np.array(marks[: len(y)])
    pairs = lambda up, low: brute_auroc(
        np.r_[np.ones(up.sum()), np.zeros(low.sum())], np.r_[s[up], s[low]]
    )
    low = (y == 0) & inside
    assert metrics.sauroc(y, s, inside) == pytest.approx(pairs(y == 1, low), nan_ok=True)
    assert metrics.bpsn(y, s, inside) == pytest.approx(pairs((y == 1) & ~inside, low), nan_ok=True)


@often
@given(tables(both=False), st.randoms(use_true_random=False))
def test_no_metric_sees_the_order_of_the_rows(table, random):
    y, s, _ = table
    order = np.array(random.sample(range(len(y)), len(y)))
    for name in METRICS:
        if METRICS[name].needs != "all scores":
            assert value_of(name, y, s) == pytest.approx(
                value_of(name, y[order], s[order]), nan_ok=True
            )


@often
@given(tables(both=False), st.integers(2, 5))
def test_no_metric_changes_if_every_row_is_copied(table, times):
    y, s, _ = table
    for name in METRICS:
        if METRICS[name].needs != "all scores":
            assert value_of(name, y, s) == pytest.approx(
                value_of(name, np.repeat(y, times), np.repeat(s, times)), nan_ok=True
            )


@often
@given(tables(both=False))
def test_every_value_lies_in_the_range_of_the_catalog(table):
    y, s, _ = table
    for name, metric in METRICS.items():
        if metric.needs != "all scores":
            value = value_of(name, y, s)
            assert np.isnan(value) or metric.low <= value <= metric.high


@often
@given(tables())
def test_ranked_metrics_see_ranks_only(table):
    y, s, patients = table
    bent = np.exp(3 * s) + s**3
    assert metrics.auroc(y, bent) == pytest.approx(metrics.auroc(y, s))
    assert metrics.average_precision(y, bent) == pytest.approx(metrics.average_precision(y, s))
    a, b = (delong.auroc_estimate(y, x, patients) for x in (s, bent))
    assert a.variance == pytest.approx(b.variance, nan_ok=True)


@often
@given(tables(), st.integers(-3, 4))
def test_exchanging_the_labels_and_the_sign_of_the_scores_exchanges_the_names(table, threshold):
    y, s, _ = table
    cut = threshold - 0.5  # between scores, so that ">=" and ">" agree
    assert metrics.auroc(1 - y, s) == pytest.approx(1 - metrics.auroc(y, s))
    assert metrics.auroc(1 - y, -s) == pytest.approx(metrics.auroc(y, s))
    twins = [
        (metrics.sensitivity, metrics.specificity),
        (metrics.ppv, metrics.npv),
        (metrics.underdiagnosis, metrics.overdiagnosis),
        (metrics.accuracy, metrics.accuracy),
    ]
    for one, other in twins:
        assert one(y, s, cut) == pytest.approx(other(1 - y, -s, -cut), nan_ok=True)


@often
@given(tables(), st.integers(-4, 4))
def test_rates_keep_their_identities(table, threshold):
    y, s, _ = table
    at = (y, s, float(threshold))
    assert metrics.underdiagnosis(*at) == pytest.approx(1 - metrics.sensitivity(*at))
    assert metrics.overdiagnosis(*at) == metrics.fpr(*at)
    assert metrics.fpr(*at) == pytest.approx(1 - metrics.specificity(*at))
    share = metrics.prevalence(y, s)
    assert metrics.missed_per_1000(*at) == pytest.approx(
        1000 * share * (1 - metrics.sensitivity(*at))
    )
    assert metrics.positive_rate(*at) == pytest.approx(
        share * metrics.sensitivity(*at) + (1 - share) * metrics.fpr(*at)
    )
    assert metrics.accuracy(*at) == pytest.approx(
        share * metrics.sensitivity(*at) + (1 - share) * metrics.specificity(*at)
    )


@often
@given(tables(), st.integers(-4, 4))
def test_rates_equal_scikit_learn(table, threshold):
    y, s, _ = table
    called = s >= threshold
    peers = {
        metrics.sensitivity: sklearn.metrics.recall_score,
        metrics.ppv: sklearn.metrics.precision_score,
        metrics.f1: sklearn.metrics.f1_score,
    }
    for metric, peer in peers.items():
        expected = peer(y, called, zero_division=np.nan)
        assert metric(y, s, threshold) == pytest.approx(expected, nan_ok=True)
    expected = sklearn.metrics.recall_score(y, called, pos_label=0, zero_division=np.nan)
    assert metrics.specificity(y, s, threshold) == pytest.approx(expected)


@often
@given(tables())
def test_the_variance_is_what_deleting_patients_does_and_never_negative(table):
    y, s, patients = table
    found = delong.auroc_estimate(y, s, patients)
    n = int(patients.max()) + 1
    above = lambda a, b: (a > b) + 0.5 * (a == b)
    wins = above(s[y == 1][:, None], s[y == 0][None, :])
    pos, neg = patients[y == 1], patients[y == 0]
    apart = pos[:, None] != neg[None, :]
    assert found.value == pytest.approx(wins.mean())
    if not apart.any():
        assert np.isnan(found.variance)
        return
    area = wins[apart].mean()
    up, low = np.zeros(n), np.zeros(n)
    np.add.at(up, pos, ((wins - area) * apart).sum(axis=1) / apart.sum())
    np.add.at(low, neg, ((wins - area) * apart).sum(axis=0) / apart.sum())
    np.testing.assert_allclose(found.parts, [up, low], atol=1e-12)
    left = [apart[np.ix_(pos != i, neg != i)].sum() / apart.sum() for i in range(n)]
    m, k = len(set(pos)), len(set(neg))
    if min(m, k) < 2 or min(left) == 0:
        assert np.isnan(found.variance)
        return
    expected = ((up * np.sqrt((m - 1) / m) + low * np.sqrt((k - 1) / k)) / left) ** 2
    seen = expected.sum() > 1e-20 or found.value in (0, 1)
    assert found.variance == pytest.approx(expected.sum() if seen else np.nan, nan_ok=True)


@often
@given(tables(), st.randoms(use_true_random=False))
def test_names_of_patients_do_not_matter(table, random):
    y, s, patients = table
    n = int(patients.max()) + 1
    names = np.array(random.sample(range(n), n))
    a, b = (delong.auroc_estimate(y, s, codes) for codes in (patients, names[patients]))
    assert (a.value, a.variance, a.df) == pytest.approx((b.value, b.variance, b.df), nan_ok=True)


@often
@given(tables())
def test_a_difference_is_antisymmetric_and_nothing_against_itself(table):
    y, s, patients = table
    other = np.roll(s, 1)
    a, b = (delong.auroc_estimate(y, x, patients) for x in (s, other))
    there, back = delong.difference(a, b), delong.difference(b, a)
    assert there.value == -back.value
    assert there.variance == pytest.approx(back.variance, nan_ok=True)
    same = delong.difference(a, a)
    assert same.value == 0 and (np.isnan(same.variance) or same.variance < 1e-12)


@often
@given(tables())
def test_every_interval_holds_its_value_and_grows_with_the_level(table):
    y, s, patients = table
    found = delong.auroc_estimate(y, s, patients)
    for interval in (delong.logit_interval, delong.arcsine_interval, delong.t_interval):
        low, high = interval(found)
        if np.isfinite(low):
            assert low - 1e-12 <= found.value <= high + 1e-12
            wide = interval(found, 0.99)
            assert wide[0] <= low + 1e-12 and high <= wide[1] + 1e-12
        if interval is not delong.t_interval and np.isfinite(low):
            assert low >= 0 and high <= 1


@often
@given(
    tables(both=False), st.sampled_from(["youden", "min_gap", "sens@0.8", "spec@0.8", "fpr@0.2"])
)
def test_a_threshold_keeps_its_promise_whatever_the_ties(table, rule):
    y, s, _ = table
    found = thresholds.fit_threshold(y, s, rule)
    name = rule.partition("@")[0]
    needs = {"sens": y == 1, "spec": y == 0, "fpr": y == 0}.get(name)
    if (not y.any() or y.all()) if needs is None else not needs.any():
        assert np.isnan(found)
        return
    candidates = [*np.unique(s), np.nextafter(s.max(), np.inf)]
    tpr, fpr = (
        np.array([f(y, s, c) for c in candidates]) for f in (metrics.sensitivity, metrics.fpr)
    )
    at = candidates.index(found)
    if name == "youden":
        assert (tpr - fpr)[at] == pytest.approx((tpr - fpr).max())
    if name == "min_gap":
        assert abs(tpr + fpr - 1)[at] == pytest.approx(abs(tpr + fpr - 1).min())
    if name == "sens":
        assert tpr[at] >= 0.8 - 1e-9 and (tpr[at + 1 :] < 0.8).all()
    if name in ("spec", "fpr"):
        assert fpr[at] <= 0.2 + 1e-9 and (fpr[:at] > 0.2).all()


@often
@given(tables(both=False), st.integers(1, 6))
def test_calibration_errors_are_those_counted_bin_by_bin(table, n_edges):
    y, s, _ = table
    p = (s + 3) / 6
    edges = np.linspace(0, 1, n_edges + 2)[1:-1]
    bins = np.digitize(p, edges)
    by_hand, debiased, counted = 0.0, 0.0, 0
    for b in set(bins):
        here = bins == b
        gap = y[here].mean() - p[here].mean()
        by_hand += here.sum() * abs(gap) / len(y)
        if here.sum() > 1:
            debiased += here.sum() * (gap**2 - y[here].var(ddof=1) / here.sum())
            counted += here.sum()
    assert calibration.ece(y, p, edges) == pytest.approx(by_hand)
    assert calibration.brier(y, p) == pytest.approx(((y - p) ** 2).mean())
    expected = debiased / counted if counted else np.nan
    assert calibration.debiased_squared_error(y, p, edges) == pytest.approx(expected, nan_ok=True)
    rows, truth, mean = calibration.reliability(y, p, edges)
    assert rows.sum() == len(y) and rows @ truth == pytest.approx(y.sum())
    assert rows @ mean == pytest.approx(p.sum())


probabilities = st.lists(st.floats(0, 1), min_size=1, max_size=8)


@often
@given(probabilities)
def test_holm_is_its_definition_and_never_below_the_plain_p(values):
    p = np.array(values)
    corrected = holm(p)
    order = np.argsort(p, kind="stable")
    for place, index in enumerate(order):
        steps = [p[order[j]] * (len(p) - j) for j in range(place + 1)]
        assert corrected[index] == pytest.approx(min(1.0, max(steps)))
    assert (corrected >= p).all()


@often
@given(st.lists(st.floats(-3, 5), min_size=1, max_size=6, unique=True), st.integers(0, 99))
def test_romano_wolf_is_monotone_and_at_least_each_ones_own_p(statistics, seed):
    t, null = np.array(statistics), np.random.default_rng(seed).normal(size=(99, len(statistics)))
    p = romano_wolf(t, null)
    assert (np.diff(p[np.argsort(-t)]) >= 0).all() and (p >= 1 / 100).all() and (p <= 1).all()
    own = (1 + (null >= t).sum(axis=0)) / 100
    assert (p >= own - 1e-12).all()
    with_nan = romano_wolf(np.r_[t, np.nan], np.c_[null, np.full(99, 50.0)])
    assert with_nan[:-1] == pytest.approx(p) and np.isnan(with_nan[-1])


@often
@given(tables(), st.integers(0, 99))
def test_a_permutation_gives_every_group_as_many_patients_of_each_kind(table, seed):
    y, _, patients = table
    rng = np.random.default_rng(seed)
    own = rng.integers(0, 3, patients.max() + 1)
    strata = patient_strata(y, patients)
    for groups in permuted_groups(own, strata, 4, rng):
        np.testing.assert_array_equal(
            np.bincount(strata * 3 + groups, minlength=30),
            np.bincount(strata * 3 + own, minlength=30),
        )


def _case(n=300, seed=0, images=1):
    rng = np.random.default_rng(seed)
    patients = np.arange(n) // images
    y = (rng.random(n) < 0.4).astype(float)
    groups = rng.choice(["a", "b", "c"], n)[patients]
    return y, np.round(rng.normal(size=n) + y, 1), groups, patients


@pytest.mark.parametrize("images", [1, 3])
def test_the_gap_does_not_know_the_names_of_groups_nor_the_direction_of_labels(images):
    y, s, groups, patients = _case(images=images)
    found = max_min_gap(y, s, groups, patients, seed=0, n_replicates=199)
    renamed = np.array([{"a": "z", "b": "m", "c": "k"}[g] for g in groups])
    other = max_min_gap(y, s, renamed, patients, seed=0, n_replicates=199)
    assert (other.value, other.statistic) == pytest.approx((found.value, found.statistic))
    assert other.p_value == pytest.approx(found.p_value, abs=0.12)
    flipped = max_min_gap(1 - y, -s, groups, patients, seed=0, n_replicates=199)
    assert (flipped.value, flipped.statistic) == pytest.approx((found.value, found.statistic))


def test_a_planted_gap_has_the_smallest_p_there_is_and_its_null_is_below_it():
    y, s, groups, patients = _case(n=900)
    s = s - 3 * (groups == "a") * y
    found = max_min_gap(y, s, groups, patients, seed=0, n_replicates=99)
    assert found.p_value == pytest.approx(1 / 100)
    assert found.null_mean < found.null_95 < found.value


def test_romano_wolf_steps_down_after_a_rejection_as_worked_by_hand():
    """The second of two is compared with its own null alone, once the first has left."""
    null = np.array([[5.0, 0.0], [4.0, 1.0], [3.0, 2.5], [0.0, 0.5]])
    # 9 is above every maximum (5, 4, 3, .5): 1/5. 2 is reached by its own null once: 2/5, where
    # the maximum over both would reach it three times: 4/5.
    assert romano_wolf([9.0, 2.0], null).tolist() == pytest.approx([1 / 5, 2 / 5])
    # Exchanged, 2 meets the null that reaches it three times: 4/5.
    assert romano_wolf([2.0, 9.0], null).tolist() == pytest.approx([4 / 5, 1 / 5])
