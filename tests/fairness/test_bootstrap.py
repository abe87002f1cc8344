import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxfair.fairness.bootstrap import TableBootstrap, patient_weights, percentile_interval
from jaxfair.fairness.catalog import Metric
from jaxfair.fairness.thresholds import fit_threshold


def _engine(n=120, images=3, *, fixed=(0.4,), validation=None, others=None, seed=0):
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < 0.4).astype(float)
    s = np.round(rng.normal(size=n) + y, 1)
    patients = np.arange(n) // images
    group = rng.integers(0, 3, n)
    options = {"rules": ("youden",), "fixed": fixed, "validation": validation, "others": others}
    return TableBootstrap(y, s, patients, [group], **options), y, s, group, patients


def test_a_draw_takes_as_many_patients_as_there_are_each_with_equal_chance():
    rng = np.random.default_rng(0)
    draws = np.array([patient_weights(7, rng) for _ in range(3000)])
    assert (draws.sum(axis=1) == 7).all()
    # A patient's weight is Binomial(7, 1/7): mean 1, variance 6/7.
    assert draws.mean(axis=0) == pytest.approx(1, abs=5 * np.sqrt(6 / 7 / 3000))
    assert draws.var() == pytest.approx(6 / 7, rel=0.05)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(-5, 5), min_size=20, max_size=60, unique=True))
def test_the_percentile_interval_is_numpys_and_does_not_see_the_order(values):
    replicates = np.array(values)
    low, high = percentile_interval(replicates)
    assert (low, high) == pytest.approx(tuple(np.percentile(replicates, [2.5, 97.5])))
    assert percentile_interval(replicates[::-1]) == (low, high)


def test_a_tenth_of_undefined_replicates_is_passed_over_and_more_is_not():
    replicates = np.r_[np.arange(90.0), np.full(10, np.nan)]
    assert percentile_interval(replicates) == pytest.approx((0.025 * 89, 0.975 * 89))
    replicates[0] = np.nan
    assert np.isnan(percentile_interval(replicates)).all()
    assert np.isnan(percentile_interval(np.array([]))).all()


def test_an_interval_without_width_is_none():
    assert np.isnan(percentile_interval(np.ones(200))).all()


def test_a_wider_level_gives_a_wider_interval():
    replicates = np.random.default_rng(0).normal(size=500)
    narrow, wide = (percentile_interval(replicates, level) for level in (0.5, 0.99))
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_copies_of_an_image_within_a_patient_add_no_certainty():
    once, y, s, group, patients = _engine(n=90, images=1)
    many = TableBootstrap(
        *(np.repeat(x, 4) for x in (y, s, patients)),
        [np.repeat(group, 4)],
        rules=("youden",),
        fixed=(0.4,),
        validation=None,
    )
    for ((one,), _), ((four,), _) in zip(once.replicates(10, 0), many.replicates(10, 0)):
        np.testing.assert_allclose(four.precision, one.precision)


def test_any_other_metric_is_called_on_the_rows_as_often_as_their_patient_was_drawn():
    mean_gap = Metric(lambda y, s: s[y == 1].mean() - s[y == 0].mean(), "scores", "gap", "")
    called = Metric(lambda y, s, t: float((s >= t).mean()), "decisions", "called", "")
    engine, y, s, group, patients = _engine(others={"gap": mean_gap, "called": called})
    rng = np.random.default_rng(5)
    for ((_, others),), _ in engine.replicates(5, seed=5):
        rows = np.repeat(np.arange(len(y)), patient_weights(40, rng)[patients])
        for g in range(3):
            part = rows[group[rows] == g]
            ill = y[part] == 1
            expected = s[part][ill].mean() - s[part][~ill].mean()
            assert others["gap"][g] == pytest.approx(expected)
            assert others["called"][g] == pytest.approx((s[part] >= 0.4).mean())


def test_thresholds_are_fitted_again_on_redrawn_validation_patients_and_only_there():
    rng = np.random.default_rng(2)
    v = (rng.random(80) < 0.5).astype(float)
    rows = (v, rng.normal(size=80) + v, np.arange(80) // 2)
    fitted, fixed = _engine(validation=rows)[0], _engine()[0]
    assert fitted.refits and not fixed.refits
    rng = np.random.default_rng(0)
    for _, (threshold,) in fitted.replicates(30, seed=0):
        drawn = np.repeat(np.arange(80), patient_weights(40, rng)[rows[2]])
        own = fit_threshold(v[drawn], rows[1][drawn], "youden")
        assert ((rows[1][drawn] >= threshold) == (rows[1][drawn] >= own)).all()
        patient_weights(40, rng)
    assert {tuple(at) for _, at in fixed.replicates(5, seed=0)} == {(0.4,)}


def test_the_percentile_interval_of_a_mean_is_close_to_scipys():
    x = np.random.default_rng(3).exponential(size=60)
    peer = scipy.stats.bootstrap(
        (x,), np.mean, n_resamples=3000, method="percentile", rng=np.random.default_rng(1)
    )
    rng = np.random.default_rng(4)
    ours = percentile_interval(
        np.array([(patient_weights(60, rng) * x).sum() / 60 for _ in range(3000)])
    )
    assert ours == pytest.approx(tuple(peer.confidence_interval), abs=0.03)
