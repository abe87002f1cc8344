"""Fresh probes: what they can read, how they are fitted, and what they refuse."""

import numpy as np
import pytest
import scipy.special
from sklearn.linear_model import LogisticRegression

from jaxfair.errors import InputError
from jaxfair.fairness import probes
from jaxfair.fairness.metrics import auroc


def made(n=300, d=4, k=2, shift=1.0, seed=0):
    rng = np.random.default_rng(seed)
    codes = np.arange(n) % k
    x = rng.normal(size=(n, d))
    x[:, 0] += shift * codes
    return x, codes


@pytest.mark.parametrize("kind", probes.PROBES)
@pytest.mark.parametrize("k", [2, 3])
def test_log_odds_are_those_of_each_value_against_the_others(kind, k):
    x, codes = made(k=k, shift=2.0)
    odds = probes.probe_scores(kind, x, codes, np.arange(300), x, seed=0)
    assert odds.shape == (300, k) and np.isfinite(odds).all()
    assert scipy.special.expit(odds).mean() == pytest.approx(1 / k, abs=0.03)
    assert all(auroc(codes == v, odds[:, v]) > 0.6 for v in range(k))
    if k == 2:
        np.testing.assert_allclose(odds[:, 0], -odds[:, 1], atol=1e-3)


def test_the_linear_probe_is_a_logistic_regression_on_standardised_numbers(monkeypatch):
    monkeypatch.setattr(probes, "_RIDGES", (0.01,))
    x, codes = made(k=3)
    odds = probes.probe_scores("linear", 5 * x + 3, codes, np.arange(300), 5 * x[:50] + 3, seed=0)
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    p = LogisticRegression(C=0.01, tol=1e-8).fit(z, codes).predict_proba(z[:50])
    np.testing.assert_allclose(scipy.special.expit(odds), p, atol=2e-3)


def test_the_ridge_is_strong_for_noise_and_weak_for_a_clear_direction():
    spread = {}
    for shift in (0.0, 4.0):
        x, codes = made(200, d=30, shift=shift, seed=2)
        spread[shift] = probes.probe_scores("linear", x, codes, np.arange(200), x, seed=0).std()
    assert spread[0.0] < 0.5 and spread[4.0] > 3


@pytest.mark.parametrize("images", [1, 7])
def test_no_patient_is_in_two_folds_and_every_fold_has_every_value(images):
    codes = np.repeat(np.arange(30) % 3, images)
    patients = np.repeat(np.arange(30), images)
    folds = probes._folds(codes, patients, 0)
    for patient in range(30):
        assert len(set(folds[patients == patient])) == 1
    for fold in range(3):
        assert set(codes[folds == fold]) == {0, 1, 2}


def test_scale_and_shift_of_a_number_change_nothing_and_a_constant_one_is_nothing():
    x, codes = made()
    one = probes.probe_scores("linear", x, codes, np.arange(300), x[:9], seed=0)
    other = np.concatenate([x * [1e-4, 1, 1e4, 1] + [0, 1, 0, 0], np.full((300, 1), 0.1)], axis=1)
    two = probes.probe_scores("linear", other, codes, np.arange(300), other[:9], seed=0)
    np.testing.assert_allclose(one, two, atol=1e-2)


def test_a_value_that_few_images_of_few_patients_have_is_read_all_the_same():
    """Ten patients with one image of the value each, beside their other images."""
    x, _ = made(300)
    codes, patients = np.zeros(300, dtype=int), np.arange(300) // 3
    codes[1:31:3] = 1
    x[codes == 1, 0] += 3
    for kind in probes.PROBES:
        odds = probes.probe_scores(kind, x, codes, patients, x, seed=0)
        assert auroc(codes, odds[:, 1]) > 0.8


@pytest.mark.parametrize(
    ("numbers", "words"),
    [(np.zeros(5), "shape"), (np.array([[0.0], [np.nan]]), "not finite in 1 of 2 rows")],
)
def test_what_is_no_table_of_numbers_is_refused(numbers, words):
    with pytest.raises(InputError, match=words):
        probes.checked_numbers(numbers, "features")
