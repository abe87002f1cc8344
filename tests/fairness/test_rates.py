"""Exact intervals of rates over patients."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxfair.errors import InputError
from jaxfair.fairness.rates import rate_estimate
from jaxfair.fairness.table import NOMINAL, REALISED, fairness_table, fit_thresholds
from tests.fairness.conftest import make_predictions


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (10, 10), (9, 10), (3, 40), (500, 501)])
def test_one_image_per_patient_gives_scipys_exact_interval(hits, n):
    found = rate_estimate(np.arange(n) < hits, np.ones(n))
    peer = scipy.stats.binomtest(hits, n).proportion_ci(method="exact")
    assert found.value == hits / n and found.trials == pytest.approx(n)
    assert (found.low, found.high) == pytest.approx((peer.low, peer.high))


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_copies_of_an_image_within_a_patient_are_no_more_trials(value):
    hits = (np.arange(30) < 30 * value).astype(float)
    once = rate_estimate(hits, np.ones(30))
    many = rate_estimate(np.repeat(hits, 7), np.ones(210), np.repeat(np.arange(30), 7))
    assert many == pytest.approx(once)


def test_images_that_do_not_depend_on_their_patient_count_almost_fully():
    rng = np.random.default_rng(0)
    found = rate_estimate(rng.random(2000) < 0.7, np.ones(2000), np.arange(2000) // 4)
    assert 1500 < found.trials <= 2000


def test_a_patient_with_most_of_the_images_leaves_little_to_go_by():
    patients = np.r_[np.zeros(500, int), np.arange(1, 51)]
    hits = np.r_[np.ones(500), np.arange(50) % 2]
    found = rate_estimate(hits, np.ones(550), patients)
    assert found.trials < 5 and found.high - found.low > 0.3


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 2), st.integers(0, 6)), min_size=1),
    st.floats(0, 0.2),
)
def test_every_defined_rate_lies_within_an_interval_that_has_a_width(rows, variance):
    hit, trials, patients = (np.array(column, dtype=float) for column in zip(*rows))
    found = rate_estimate(hit * trials, trials, patients, threshold_variance=variance)
    if trials.sum() == 0:
        assert np.isnan(found).all()
        return
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.high - found.low > 1e-6 and found.trials > 0


def test_the_chance_of_the_threshold_widens_the_interval_and_no_threshold_leaves_none():
    y = np.arange(60) % 3 > 0
    plain = rate_estimate(y, np.ones(60))
    wider = rate_estimate(y, np.ones(60), threshold_variance=0.01)
    assert wider.low < plain.low and plain.high < wider.high
    # Away from 0 and 1 the two variances add.
    p = plain.value
    assert p * (1 - p) / wider.trials == pytest.approx(p * (1 - p) / 60 + 0.01, rel=0.02)
    assert np.isnan(rate_estimate(y, np.ones(60), threshold_variance=np.nan)[1:]).all()


def test_ten_positives_of_whom_all_are_found_have_an_interval_in_the_table():
    rows = make_predictions(400, images_per_patient=1)
    test = rows["split"] == "test"
    ill = test & (rows["y_true"] == 1)
    rows = rows[~ill | (ill.cumsum() <= 10)]
    rows.loc[rows["y_true"] == 1, "y_score"] += 9
    table = fairness_table(rows, attributes=(), n_bootstrap=50).set_index("metric")
    found = table.loc["sensitivity"]
    assert found["value"] == 1 and found["ci_high"] == 1
    assert found["ci_low"] == pytest.approx(0.025 ** (1 / 10), abs=0.01)
    for name in ("underdiagnosis", "missed_per_1000"):
        row = table.loc[name]
        assert row["value"] == row["ci_low"] == 0 < row["ci_high"]


@pytest.mark.parametrize("validation", [True, False])
def test_the_table_says_whether_an_interval_covers_the_realised_or_the_nominal_rate(validation):
    rows = make_predictions(300)
    fitted = fit_thresholds(rows)
    rows = rows if validation else rows[rows["split"] == "test"]
    table = fairness_table(rows, thresholds=fitted, attributes=(), n_bootstrap=20)
    covers = table.set_index("metric")["covers"]
    assert covers["sensitivity"] == covers["f1"] == (NOMINAL if validation else REALISED)
    assert covers["auroc"] == covers["prevalence"] == ""


@pytest.mark.parametrize("hits", [[np.nan, 1.0], [2.0, 1.0], [-1.0, 1.0], [1.0]])
def test_hits_that_are_no_part_of_trials_are_refused(hits):
    with pytest.raises(InputError, match="hits"):
        rate_estimate(hits, [1.0, 1.0])
