"""Designs that the statistics were not made for: one class, ties, rare disease, one giant."""

import numpy as np
import pandas as pd
import pytest
import scipy.special
import scipy.stats
import sklearn.linear_model

from jaxfair.fairness import calibration, delong, metrics, parity, selection, thresholds
from jaxfair.fairness.comparable import mix_weights
from jaxfair.fairness.compare import MIN_SEEDS, fairness_law, two_source
from jaxfair.fairness.contrasts import group_contrasts
from jaxfair.fairness.frame import GroupFrame
from jaxfair.fairness.gaps import max_min_gap
from jaxfair.fairness.influence import Estimate
from jaxfair.fairness.multiplicity import bootstrap_sums, holm
from jaxfair.fairness.table import fairness_table
from tests.fairness.conftest import make_predictions


def design(positives, negatives, area=0.8, seed=0):
    """(y, s) of two normal laws whose AUROC is `area`."""
    rng = np.random.default_rng(seed)
    y = np.r_[np.ones(positives), np.zeros(negatives)]
    shift = np.sqrt(2) * scipy.stats.norm.ppf(area)
    return y, rng.normal(size=len(y)) + shift * y


@pytest.mark.parametrize("area", [0.5, 0.7, 0.9, 0.98])
@pytest.mark.parametrize(("positives", "negatives"), [(40, 400), (400, 40), (150, 150)])
def test_the_standard_error_is_the_spread_over_repeats(area, positives, negatives):
    """Against the truth of 300 redrawn test sets, from chance level to near perfect."""
    found = [delong.auroc_estimate(*design(positives, negatives, area, k)) for k in range(300)]
    values = np.array([estimate.value for estimate in found])
    assert values.mean() == pytest.approx(area, abs=4 * values.std() / np.sqrt(300))
    seen = np.sqrt(np.mean([estimate.variance for estimate in found]))
    assert seen == pytest.approx(values.std(), rel=0.2)


def test_one_patient_with_a_thousand_images_is_one_patient():
    y, s = design(30, 30)
    patients = np.arange(60)
    giant = np.r_[np.arange(60), np.full(1000, 5)]
    more = np.r_[y, np.ones(1000)], np.r_[s, np.full(1000, s[5])]
    alone = delong.auroc_estimate(y, s, patients)
    crowded = delong.auroc_estimate(*more, giant)
    # The giant is almost all of the positives, so chance in the others hardly counts.
    assert crowded.value == pytest.approx(metrics.auroc(*more))
    assert abs(crowded.value - (s[5] > s[30:]).mean()) < 0.05
    assert crowded.variance > 0 and crowded.members[0].sum() == alone.members[0].sum() == 30


@pytest.mark.parametrize("area", [0.0, 1.0])
def test_perfect_and_inverted_scores_have_a_bound_and_every_rate_an_exact_interval(area):
    y = np.tile([0.0, 1.0], 120)
    rows = make_predictions(240, images_per_patient=1).assign(y_true=y, y_score=y if area else -y)
    table = fairness_table(rows, attributes=("sex",), n_bootstrap=20)
    auroc = table[table["metric"] == "auroc"]
    assert (auroc["value"] == area).all()
    far = auroc["ci_low"] if area else 1 - auroc["ci_high"]
    k = np.minimum(auroc["n_positive"], auroc["n"] - auroc["n_positive"])
    assert far.tolist() == pytest.approx((0.025 ** (1 / k)).tolist())
    contrast = group_contrasts(rows, ["sex"], seed=0, n_draws=19)
    assert not contrast["flagged"].any()


@pytest.mark.parametrize("scores", ["perfect", "inverted", "constant", "random"])
def test_no_interval_of_any_table_is_without_width(scores):
    y = np.tile([0.0, 1.0], 300)
    s = {"perfect": y, "inverted": -y, "constant": 0 * y}.get(scores)
    rows = make_predictions(600, images_per_patient=1).assign(y_true=y)
    rows = rows if s is None else rows.assign(y_score=s)
    tables = [
        fairness_table(rows, attributes=("sex",), n_bootstrap=30),
        group_contrasts(rows, ["sex"], seed=0, n_draws=39),
    ]
    for table in tables:
        width = (table["ci_high"] - table["ci_low"]).dropna()
        assert (width > 1e-9).all()
    rates = tables[0][tables[0]["metric"].isin(["sensitivity", "specificity", "accuracy"])]
    assert rates[["value", "ci_low", "ci_high"]].notna().all(axis=None)
    ranked = tables[0][tables[0]["metric"].isin(["auroc", "sauroc", "bpsn"])]
    assert ranked[["value", "ci_low"]].isna().all(axis=None) == (scores == "constant")


def test_constant_scores_are_chance_everywhere():
    rows = make_predictions(900).assign(y_score=1.0)
    frame = GroupFrame(rows, "sex")
    assert frame.by_group("auroc").tolist() == [0.5, 0.5] and frame.gap("auroc") == 0
    test = rows[rows["split"] == "test"]
    assert metrics.average_precision(test["y_true"], test["y_score"]) == pytest.approx(
        metrics.prevalence(test["y_true"], test["y_score"])
    )
    found = max_min_gap(test["y_true"], test["y_score"], test["sex"], seed=0, n_replicates=49)
    assert found.value == 0 and found.method == "undefined" and np.isnan(found.p_value)


def test_one_positive_in_ten_thousand_is_ranked_and_has_no_interval():
    y, s = design(1, 9999)
    found = delong.auroc_estimate(y, s)
    assert found.value == pytest.approx((s[0] > s[1:]).mean())
    assert np.isnan(found.variance) and np.isnan(delong.logit_interval(found)).all()
    assert metrics.average_precision(y, s) == pytest.approx(1 / (1 + (s[1:] > s[0]).sum()))


def test_a_group_of_one_among_thousands_is_counted_and_compared_with_nobody():
    rows = make_predictions(3000)
    rows.loc[rows.index[-1], "sex"] = "X"
    rows.loc[rows.index[-1], "split"] = "test"
    frame = GroupFrame(rows, "sex")
    assert frame.too_few == ["X"] and np.isnan(frame.by_group("auroc")["X"])
    contrast = group_contrasts(rows, ["sex"], seed=0, n_draws=19).set_index("group")
    assert contrast.loc["X", "too_few"] and np.isnan(contrast.loc["X", "value"])
    assert np.isfinite(contrast.loc[["F", "M"], "value"]).all()
    table = parity.parity_table(frame, 0.5, n_permutations=9)
    assert (table["too_few"] == "X").all() and np.isfinite(table["difference"]).all()


def test_parity_with_one_group_is_undefined_and_never_zero():
    frame = GroupFrame(make_predictions(600).assign(sex="F"), "sex")
    table = parity.parity_table(frame, 0.5, n_permutations=9)
    assert table["difference"].isna().all() and table["chance"].isna().all()


@pytest.mark.parametrize("threshold", [-1e9, 1e9])
def test_parity_where_everybody_or_nobody_is_called(threshold):
    table = parity.parity_table(GroupFrame(make_predictions(900), "sex"), threshold)
    by = table.set_index("criterion")["difference"]
    assert by["equal opportunity (sensitivity)"] == 0
    assert by["demographic parity (share called positive)"] == 0
    assert np.isnan(by["predictive parity (PPV)"]) == (threshold > 0)


def test_parity_equals_a_table_worked_by_hand():
    # F finds 30 of 60 with 6 of 60 false, M 45 of 60 with 30 of 60 false.
    counts = {"F": (30, 30, 6, 54), "M": (45, 15, 30, 30)}
    rows = pd.concat(
        pd.DataFrame(
            {
                "y_true": np.repeat([1.0, 1, 0, 0], n),
                "y_score": np.repeat([1.0, 0, 1, 0], n),
                "sex": sex,
            }
        )
        for sex, n in counts.items()
    ).reset_index(drop=True)
    found = parity.parity_table(GroupFrame(rows, "sex"), 0.5, n_permutations=5)
    expected = [0.25, 0.4, 30 / 36 - 45 / 75, 75 / 120 - 36 / 120, (84 - 75) / 120]
    assert found["difference"].tolist() == pytest.approx(expected)


def test_probabilities_of_exactly_zero_and_one_keep_calibration_finite():
    y = np.array([0.0, 1, 0, 1, 1, 0])
    p = np.array([0.0, 1, 0.3, 0.7, 0.0, 1.0])
    assert np.isfinite(calibration.calibration_slope(y, p))
    assert np.isfinite(calibration.calibration_intercept(y, p))
    assert calibration.brier(y, p) == pytest.approx((0.09 + 0.09 + 1 + 1) / 6)


def test_calibration_of_a_rare_disease_equals_scikit_learn():
    rng = np.random.default_rng(0)
    p = rng.beta(0.5, 60, 20000)
    y = (rng.random(20000) < p).astype(float)
    x = scipy.special.logit(np.clip(p, 1e-7, 1 - 1e-7))
    peer = sklearn.linear_model.LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000)
    peer.fit(x[:, None], y)
    assert calibration.calibration_slope(y, p) == pytest.approx(peer.coef_[0, 0], rel=1e-3)


def test_platt_equals_scikit_learn_on_the_softened_labels():
    y, s = design(60, 90)
    line = calibration.platt(y, s)
    soft = np.where(y == 1, 61 / 62, 1 / 92)
    peer = sklearn.linear_model.LogisticRegression(C=np.inf, tol=1e-12, max_iter=1000)
    peer.fit(np.r_[s, s][:, None], np.repeat([1, 0], 150), sample_weight=np.r_[soft, 1 - soft])
    assert line(s) == pytest.approx(peer.predict_proba(s[:, None])[:, 1], abs=1e-5)


def test_mix_weights_leave_the_total_of_each_label_as_large_as_the_shared_strata():
    rng = np.random.default_rng(1)
    y, strata = (rng.random(400) < 0.3).astype(float), rng.integers(0, 4, 400)
    chosen = rng.random(400) < np.where(strata == 3, 1.0, 0.4)  # stratum 3 has no rest
    weights = mix_weights(y, strata, chosen, ~chosen)
    assert (weights[~chosen] == 0).all() and (weights[strata == 3] == 0).all()
    for label in (0, 1):
        here = (y == label) & (strata != 3)
        assert weights[y == label].sum() == pytest.approx(here.sum())


def arm(values, n=50, spread=0.0):
    part = np.full(n, 0.0)
    part[0], part[1] = spread, -spread
    parts, members = np.stack([part, 0 * part]), np.stack([np.ones(n, bool), np.zeros(n, bool)])
    return [Estimate(v, spread**2 * 2 * n / (n - 1), n - 1.0, parts, members) for v in values]


def test_two_sources_with_no_chance_in_patients_are_welchs_test_over_seeds():
    plain, private = [0.81, 0.83, 0.80, 0.84, 0.82], [0.78, 0.71, 0.80, 0.75, 0.79, 0.77]
    found = two_source(arm(plain), arm(private))
    peer = scipy.stats.ttest_ind(plain, private, equal_var=False).confidence_interval()
    assert (found.ci_low, found.ci_high) == pytest.approx((peer.low, peer.high))
    assert found.sd_plain_seed == pytest.approx(np.std(plain, ddof=1)) and found.sd_patients == 0


def test_two_sources_give_no_interval_below_five_seeds_and_none_without_any_chance():
    few = two_source(arm([0.8] * (MIN_SEEDS - 1)), arm([0.7] * MIN_SEEDS))
    assert few.value == pytest.approx(0.1) and np.isnan([few.ci_low, few.df]).all()
    certain = two_source(arm([0.8] * MIN_SEEDS), arm([0.7] * MIN_SEEDS))
    assert np.isnan([certain.ci_low, certain.ci_high]).all()


def test_a_fairness_law_equals_scipys_line_and_is_flat_without_a_slope():
    shares, rng = np.array([0, 0.25, 0.5, 0.75, 1]), np.random.default_rng(0)
    values = 0.7 + 0.1 * shares + 0.01 * rng.normal(size=(6, 5))
    law = fairness_law(shares, values)
    peer = scipy.stats.linregress(np.tile(shares, 6), values.ravel())
    assert (law.slope, law.p_value) == pytest.approx((peer.slope, peer.pvalue))
    ends = values[:, [0, -1]].mean(axis=0)
    assert law.predicted == pytest.approx(np.interp(shares, [0, 1], ends))
    flat = fairness_law(shares, np.full((2, 5), 0.7))
    assert flat.slope == 0 and flat.mae == 0 and np.isnan(flat.r)


def test_fate_falls_where_utility_falls_and_where_the_gap_grows():
    base = (0.8, 0.1)
    assert parity.fate(*base, *base) == 0
    assert parity.fate(0.7, 0.1, *base) < 0 < parity.fate(0.8, 0.05, *base)
    assert parity.fate(0.8, 0.2, *base) == pytest.approx(-1)
    assert np.isnan(parity.fate(0.8, 0.1, 0.0, 0.1))


def test_the_front_is_what_no_other_model_beats():
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.integers(0, 4, (30, 3)) / 4, columns=["overall", "worst", "epsilon"])
    table.index = [f"m{i}" for i in range(30)]
    gains = table[["overall", "worst"]].assign(private=-table["epsilon"]).to_numpy()
    beaten = [any((other >= own).all() and (other > own).any() for other in gains) for own in gains]
    assert selection.pareto(table) == [m for m, b in zip(table.index, beaten, strict=True) if not b]
    assert selection.minimax(table) == max(
        sorted(table.index), key=lambda m: (table.loc[m, "worst"], table.loc[m, "overall"])
    )
    assert (selection.distance_to_ideal(table) >= 0).all()


def test_no_comparison_at_all_stays_undefined():
    assert np.isnan(holm([np.nan, np.nan])).all() and holm([]).size == 0


def test_bootstrap_sums_have_the_variance_of_the_influences():
    influence = np.random.default_rng(0).standard_t(3, size=(80, 3))
    influence -= influence.mean(axis=0)
    moved, errors = bootstrap_sums(influence, 6000, np.random.default_rng(1))
    assert moved.var(axis=0) == pytest.approx((influence**2).sum(axis=0), rel=0.08)
    assert moved.mean(axis=0) == pytest.approx(0, abs=0.5)
    assert np.cov(moved.T)[0, 1] == pytest.approx(
        (influence[:, 0] * influence[:, 1]).sum(), abs=0.1 * (influence**2).sum()
    )
    assert (errors >= 0).all()


def test_group_thresholds_of_a_rare_disease_are_pooled_where_its_cases_are_few():
    rows = make_predictions(4000)
    ill = (rows["sex"] == "F") & (rows["y_true"] == 1)
    rows = rows[~ill | (rows.index % 20 == 0)]
    by_positives = thresholds.group_thresholds(rows, "sex", "sens@0.9")
    by_negatives = thresholds.group_thresholds(rows, "sex", "fpr@0.05")
    assert [by_positives["F"][1], by_positives["M"][1]] == [False, True]
    assert by_negatives["F"][1] and by_negatives["M"][1]
    assert by_positives["F"][0] == thresholds.fit_threshold(
        rows["y_true"], rows["y_score"], "sens@0.9"
    )
