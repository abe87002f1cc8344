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
