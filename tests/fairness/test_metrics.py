import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxfair.fairness import metrics

Y = np.array([0, 0, 0, 1, 1, 0, 1, 1.0])
S = np.array([0.1, 0.4, 0.4, 0.4, 0.9, 0.6, 0.2, 0.8])
AT_THRESHOLD = [
    metrics.sensitivity,
    metrics.specificity,
    metrics.fpr,
    metrics.underdiagnosis,
    metrics.overdiagnosis,
    metrics.ppv,
    metrics.npv,
    metrics.accuracy,
    metrics.f1,
    metrics.positive_rate,
    metrics.missed_per_1000,
]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2, max_size=40).filter(
        lambda rows: len({label for label, _ in rows}) == 2
    )
)
def test_auroc_and_average_precision_equal_scikit_learn_with_ties(rows):
    y, s = np.array(rows, dtype=float).T
    assert metrics.auroc(y, s) == pytest.approx(sklearn.metrics.roc_auc_score(y, s))
    expected = sklearn.metrics.average_precision_score(y, s)
    assert metrics.average_precision(y, s) == pytest.approx(expected)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 5)), min_size=4, max_size=40)
)
def test_sauroc_is_the_mix_of_group_auroc_and_bpsn_by_share_of_positives(rows):
    y, inside, s = np.array(rows, dtype=float).T
    inside = inside == 1
    own, cross = metrics.auroc(y[inside], s[inside]), metrics.bpsn(y, s, inside)
    share = y[inside].sum() / max(y.sum(), 1)
    if np.isfinite([own, cross]).all():
        mixed = share * own + (1 - share) * cross
        assert metrics.sauroc(y, s, inside) == pytest.approx(mixed)


def test_constant_scores_give_exactly_one_half():
    inside = np.arange(8) % 2 == 0
    assert metrics.auroc(Y, np.ones(8)) == 0.5
    assert metrics.sauroc(Y, np.ones(8), inside) == 0.5


def test_rates_at_a_threshold_equal_the_table_worked_by_hand():
    # At 0.4: called positive are 0.4 0.4 (negatives), 0.4 0.9 0.8 (positives), 0.6 (negative).
    assert metrics.confusion(Y, S, 0.4) == (3, 1, 3, 1)
    values = [metric(Y, S, 0.4) for metric in AT_THRESHOLD]
    by_hand = [3 / 4, 1 / 4, 3 / 4, 1 / 4, 3 / 4, 3 / 6, 1 / 2, 4 / 8, 6 / 10, 6 / 8, 125]
    assert values == pytest.approx(by_hand)


def test_rates_equal_scikit_learn():
    called = S >= 0.4
    assert metrics.ppv(Y, S, 0.4) == sklearn.metrics.precision_score(Y, called)
    assert metrics.sensitivity(Y, S, 0.4) == sklearn.metrics.recall_score(Y, called)
    assert metrics.f1(Y, S, 0.4) == pytest.approx(sklearn.metrics.f1_score(Y, called))
    assert metrics.accuracy(Y, S, 0.4) == sklearn.metrics.accuracy_score(Y, called)


def test_a_group_without_positives_is_undefined_and_never_zero():
    y, s = np.zeros(4), np.arange(4.0)
    assert np.isnan([metrics.auroc(y, s), metrics.average_precision(y, s)]).all()
    assert np.isnan(metrics.sensitivity(y, s, 2.0))
    assert np.isnan(metrics.underdiagnosis(y, s, 2.0))
    assert metrics.specificity(y, s, 2.0) == 0.5


@pytest.mark.parametrize("metric", AT_THRESHOLD)
def test_a_threshold_that_could_not_be_fitted_makes_rates_undefined(metric):
    assert np.isnan(metric(Y, S, float("nan")))


@pytest.mark.parametrize("metric", AT_THRESHOLD)
def test_no_rows_are_undefined(metric):
    assert np.isnan(metric([], [], 0.5))


def test_rows_of_other_shapes_or_labels_are_refused():
    with pytest.raises(ValueError, match="y_true has 2 rows and y_score has 3"):
        metrics.auroc([0, 1], [1, 2, 3])
    with pytest.raises(ValueError, match="labels are 0 "):
        metrics.auroc([0, 2], [1, 2])
    with pytest.raises(ValueError, match="finite"):
        metrics.auroc([0, 1], [1, float("nan")])
