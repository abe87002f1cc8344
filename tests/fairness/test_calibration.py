import numpy as np
import pytest
import scipy.special
import sklearn.linear_model

from jaxfair.fairness import calibration


def _calibrated(n: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    p = rng.beta(1, 3, n)
    return (rng.random(n) < p).astype(float), p


def test_ece_and_brier_are_worked_by_hand():
    y, p = [0, 1, 1, 1], [0.1, 0.3, 0.8, 0.6]
    # Bins [0, .5) and [.5, 1]: |1/2 - .2| and |1 - .7|, two rows each.
    assert calibration.ece(y, p, [0.5]) == pytest.approx(0.3)
    assert calibration.brier(y, p) == pytest.approx((0.01 + 0.49 + 0.04 + 0.16) / 4)
    assert calibration.debiased_squared_error(y, p, [0.5]) == pytest.approx(
        (2 * (0.09 - 0.25) + 2 * 0.09) / 4
    )


@pytest.mark.parametrize(("n", "expected"), [(100, 0.106), (2000, 0.024)])
def test_ece_of_a_perfect_model_is_its_null_and_not_zero(n, expected):
    found = []
    for seed in range(60):
        y, p = _calibrated(n, seed)
        edges = calibration.equal_mass_edges(p)
        found.append((calibration.ece(y, p, edges), calibration.ece_null(p, edges, seed=0)))
    seen, null = np.mean(found, axis=0)
    assert seen == pytest.approx(null, rel=0.08)
    assert seen == pytest.approx(expected, rel=0.15)


def test_debiased_error_of_a_perfect_model_is_zero_on_average_and_sees_a_real_one():
    found = []
    for seed in range(200):
        y, p = _calibrated(150, seed)
        found.append(calibration.debiased_squared_error(y, p, calibration.equal_mass_edges(p)))
    assert abs(np.mean(found)) < 3 * np.std(found) / np.sqrt(200)
    y, p = _calibrated(5000)
    shifted = np.clip(p + 0.2, 0, 1)
    error = calibration.debiased_squared_error(y, shifted, calibration.equal_mass_edges(shifted))
    assert error == pytest.approx(0.04, abs=0.006)


def test_equal_mass_bins_hold_equal_shares():
    p = np.random.default_rng(0).random(1500)
    counts = np.bincount(np.searchsorted(calibration.equal_mass_edges(p), p, side="right"))
    assert len(counts) == 15 and counts.min() >= 99 and counts.max() <= 101


def test_slope_equals_scikit_learn_and_recovers_overconfidence():
    y, p = _calibrated(4000)
    logits = scipy.special.logit(p)
    model = sklearn.linear_model.LogisticRegression(C=np.inf, tol=1e-10)
    model.fit(logits[:, None], y)
    found = calibration.calibration_slope(y, p)
    assert found == pytest.approx(float(model.coef_[0, 0]), abs=1e-4)
    assert found == pytest.approx(1, abs=0.1)
    bold = scipy.special.expit(2 * logits)
    assert calibration.calibration_slope(y, bold) == pytest.approx(found / 2, rel=1e-3)


def test_intercept_recovers_a_shift_of_the_logit():
    y, p = _calibrated(20000)
    low = scipy.special.expit(scipy.special.logit(p) - 0.7)
    assert calibration.calibration_intercept(y, p) == pytest.approx(0, abs=0.06)
    assert calibration.calibration_intercept(y, low) == pytest.approx(0.7, abs=0.06)


def test_platt_makes_probabilities_of_any_scale_of_scores():
    rng = np.random.default_rng(0)
    y = (rng.random(3000) < 0.3).astype(float)
    s = 1e-3 * (rng.normal(size=3000) + 2 * y) + 50
    p = calibration.platt(y[:2000], s[:2000])(s[2000:])
    assert p.min() > 0 and p.max() < 1 and (np.argsort(p) == np.argsort(s[2000:])).all()
    assert calibration.calibration_slope(y[2000:], p) == pytest.approx(1, abs=0.25)


def test_platt_stays_finite_where_the_classes_separate():
    line = calibration.platt([0, 0, 0, 1, 1, 1], [0.0, 1, 2, 10, 11, 12])
    assert np.isfinite(line.fit).all()
    assert line([0.0, 12.0]).round(1).tolist() == [0.2, 0.8]


def test_one_class_is_undefined():
    ones, p = np.ones(5), np.linspace(0.1, 0.9, 5)
    assert np.isnan(calibration.calibration_slope(ones, p))
    assert np.isnan(calibration.calibration_intercept(ones, p))
    assert np.isnan(calibration.platt(ones, p).fit).all()
    assert np.isnan(calibration.ece([], [], [0.5]))


def test_perfect_separation_has_no_slope():
    assert np.isnan(calibration.calibration_slope([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9]))


def test_scores_that_are_no_probabilities_are_refused_with_the_cure():
    with pytest.raises(ValueError, match=r"got 0\.5 to 7; fit `platt`"):
        calibration.brier([0, 1], [0.5, 7])
