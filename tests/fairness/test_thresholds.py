import numpy as np
import pytest

from jaxfair.errors import InputError
from jaxfair.fairness import metrics, thresholds
from tests.fairness.conftest import make_predictions

Y = np.array([0, 0, 0, 0, 1, 1, 1, 1.0])
S = np.array([0.1, 0.2, 0.3, 0.6, 0.4, 0.5, 0.7, 0.8])


def test_each_rule_equals_a_search_over_all_scores():
    rng = np.random.default_rng(0)
    y = (rng.random(300) < 0.3).astype(float)
    s = np.round(rng.normal(size=300) + y, 1)
    candidates = [*np.unique(s), np.nextafter(s.max(), np.inf)]
    tpr = np.array([metrics.sensitivity(y, s, t) for t in candidates])
    fpr = np.array([metrics.fpr(y, s, t) for t in candidates])
    expected = {
        "youden": candidates[int(np.argmax(tpr - fpr))],
        "min_gap": candidates[int(np.argmin(np.abs(tpr - 1 + fpr)))],
        "sens@0.95": max(t for t, rate in zip(candidates, tpr, strict=True) if rate >= 0.95),
        "spec@0.9": min(t for t, rate in zip(candidates, fpr, strict=True) if rate <= 0.1),
        "fpr@0.05": min(t for t, rate in zip(candidates, fpr, strict=True) if rate <= 0.05),
    }
    assert {rule: thresholds.fit_threshold(y, s, rule) for rule in expected} == expected


def test_a_fixed_rate_that_no_score_reaches_calls_no_one_positive():
    threshold = thresholds.fit_threshold([0, 1], [0.5, 0.5], "fpr@0.05")
    assert threshold > 0.5
    assert metrics.fpr([0, 1], [0.5, 0.5], threshold) == 0
    assert np.isfinite(threshold)


def test_weights_count_rows_as_often_as_repeating_them():
    rng = np.random.default_rng(1)
    y, s = (rng.random(60) < 0.5).astype(float), np.round(rng.normal(size=60), 1)
    weights = rng.integers(0, 4, 60)
    ordered = thresholds.Sorted(y, s)
    repeated = thresholds.Sorted(np.repeat(y, weights), np.repeat(s, weights))
    for rule in ("youden", "min_gap", "sens@0.8", "fpr@0.2"):
        a = ordered.fit(rule, weights[ordered.order].astype(float))
        b = repeated.fit(rule)
        assert (s[np.repeat(np.arange(60), weights)] >= a).tolist() == (
            s[np.repeat(np.arange(60), weights)] >= b
        ).tolist()


def test_test_labels_never_move_a_stored_threshold():
    rows = make_predictions()
    before = thresholds.fit_thresholds(rows)
    test = rows["split"] == "test"
    rows.loc[test, "y_true"] = 1 - rows.loc[test, "y_true"]
    rows.loc[test, "y_score"] *= -3
    assert thresholds.fit_thresholds(rows) == before
    assert before["anomaly"]["youden"] is not None


def test_validation_rows_of_one_label_leave_the_threshold_undefined():
    rows = make_predictions()
    rows.loc[rows["split"] == "validation", "y_true"] = 0.0
    fitted = thresholds.fit_thresholds(rows)["anomaly"]
    assert fitted["youden"] is None and fitted["sens@0.95"] is None
    assert fitted["fpr@0.05"] is not None
    assert fitted["n_positive"] == 0


def test_small_groups_take_the_pooled_threshold():
    rows = make_predictions(3000)
    rows = rows[(rows["sex"] == "M") | (np.arange(len(rows)) % 10 == 0)]
    pooled = thresholds.fit_threshold(rows["y_true"], rows["y_score"], "min_gap")
    fitted = thresholds.group_thresholds(rows, "sex")
    assert fitted["F"] == (pooled, False)
    own = rows[rows["sex"] == "M"]
    expected = thresholds.fit_threshold(own["y_true"], own["y_score"], "min_gap")
    assert fitted["M"] == (expected, True)


@pytest.mark.parametrize("rule", ["f1", "sens", "sens@2", "fpr@x", "youden@1"])
def test_unknown_rules_are_refused_with_the_known_ones(rule):
    with pytest.raises(InputError, match="use youden, min_gap, g_means, sens@x"):
        thresholds.fit_threshold(Y, S, rule)


def test_g_means_and_a_fixed_threshold_equal_a_search():
    rng = np.random.default_rng(3)
    y = (rng.random(300) < 0.2).astype(float)
    s = np.round(rng.normal(size=300) + y, 1)
    candidates = [*np.unique(s), np.nextafter(s.max(), np.inf)]
    means = [
        np.sqrt(metrics.sensitivity(y, s, t) * metrics.specificity(y, s, t)) for t in candidates
    ]
    assert thresholds.fit_threshold(y, s, "g_means") == candidates[int(np.argmax(means))]
    assert thresholds.fit_threshold(y, s, "fixed@0.5") == 0.5
    assert thresholds.fit_threshold([], [], "fixed@0.5") == 0.5


@pytest.mark.parametrize("rule", ["min_gap", "youden", "g_means", "sens@0.9", "fpr@0.1"])
def test_fits_by_group_equal_fits_of_each_groups_rows(rule):
    rng = np.random.default_rng(5)
    y = (rng.random(900) < 0.4).astype(float)
    s, groups = np.round(rng.normal(size=900) + y, 1), rng.integers(0, 4, 900)
    weights = rng.integers(0, 3, 900)
    ordered = thresholds.Sorted(y, s)
    by_score = groups[ordered.order]
    found, own = ordered.fit_groups(rule, by_score, 3, min_cases=50)
    assert own.all() and len(found) == 3  # group 3 is nobody's
    for g in range(3):
        part = groups == g
        assert found[g] == thresholds.fit_threshold(y[part], s[part], rule)
    weighted = ordered.fit_groups(rule, by_score, 3, weights[ordered.order].astype(float), 50)[0]
    for g in range(3):
        rows = np.repeat(np.flatnonzero(groups == g), weights[groups == g])
        again = thresholds.fit_threshold(y[rows], s[rows], rule)
        assert ((s[rows] >= weighted[g]) == (s[rows] >= again)).all()


def test_thresholds_by_group_lie_beside_the_pooled_ones_and_are_applied():
    rows = make_predictions(4000, gap=0.5)
    few = (rows["sex"] == "F") & (np.arange(len(rows)) % 8 > 0) & (rows["split"] == "validation")
    rows = rows[~few].reset_index(drop=True)
    stored = thresholds.fit_thresholds(rows, attributes=["sex"])["anomaly"]
    plain = thresholds.fit_thresholds(rows)["anomaly"]
    assert {k: v for k, v in stored.items() if k != "groups"} == plain
    women, men = stored["groups"]["sex"]["F"], stored["groups"]["sex"]["M"]
    assert not women["own"] and women["n_positive"] < 200 <= men["n_positive"] and men["own"]
    assert women["min_gap"] == stored["min_gap"] != men["min_gap"]
    validation = rows[(rows["split"] == "validation") & (rows["sex"] == "M")]
    assert men["g_means"] == thresholds.fit_threshold(
        validation["y_true"], validation["y_score"], "g_means"
    )
    test = rows[rows["split"] == "test"].assign(sex=lambda t: t["sex"].where(t.index % 3 > 0, "X"))
    at = thresholds.row_thresholds(test, stored, "sex")
    assert set(at[test["sex"] == "M"]) == {men["min_gap"]}
    assert set(at[test["sex"] == "X"]) == {stored["min_gap"]}  # nobody of X was validated
    assert set(thresholds.row_thresholds(test, stored, None, "youden")) == {stored["youden"]}
    with pytest.raises(InputError, match=r"No thresholds by 'view' are stored; known are sex"):
        thresholds.row_thresholds(test, stored, "view")
