import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxfair.fairness import delong, metrics


def _scores(seed: int, n: int = 60, images: int = 1):
    rng = np.random.default_rng(seed)
    patients = np.arange(n) // images
    y = (rng.random(n) < 0.4).astype(float)
    s = np.round(rng.normal(size=n) + y + rng.normal(size=n)[patients], 1)
    return y, s, patients


def _kernel(y, s):
    """wins[i, j]: positive i above negative j, ties one half."""
    a, b = s[y == 1][:, None], s[y == 0][None, :]
    return (a > b) + 0.5 * (a == b)


def _delong_by_definition(y, s) -> tuple[float, float]:
    wins = _kernel(y, s)
    m, n = wins.shape
    return wins.mean(), wins.mean(1).var(ddof=1) / m + wins.mean(0).var(ddof=1) / n


def _obuchowski_by_definition(y, s, patients) -> tuple[float, float]:
    """Obuchowski (1997), equations 3 to 8, one patient at a time."""
    wins, area = _kernel(y, s), _kernel(y, s).mean()
    m, n = wins.shape
    of_pos, of_neg = patients[y == 1], patients[y == 0]
    everyone = np.unique(patients)
    pos = np.array([(wins.mean(1)[of_pos == i] - area).sum() for i in everyone])
    neg = np.array([(wins.mean(0)[of_neg == i] - area).sum() for i in everyone])
    i10, i01, i = len(set(of_pos)), len(set(of_neg)), len(everyone)
    s10 = i10 / ((i10 - 1) * m) * (pos**2).sum()
    s01 = i01 / ((i01 - 1) * n) * (neg**2).sum()
    s11 = i / (i - 1) * (pos * neg).sum()
    return area, s10 / m + s01 / n + 2 * s11 / (m * n)


@pytest.mark.parametrize("seed", range(5))
def test_one_image_per_patient_gives_delong_to_the_last_digit(seed):
    y, s, _ = _scores(seed)
    found = delong.auroc_estimate(y, s)
    value, variance = _delong_by_definition(y, s)
    assert found.value == pytest.approx(value, rel=1e-12) == metrics.auroc(y, s)
    assert found.variance == pytest.approx(variance, rel=1e-10)


@pytest.mark.parametrize("seed", range(5))
def test_several_images_per_patient_give_obuchowski(seed):
    y, s, patients = _scores(seed, images=4)
    found = delong.auroc_estimate(y, s, patients)
    value, variance = _obuchowski_by_definition(y, s, patients)
    assert found.value == pytest.approx(value, rel=1e-12)
    assert found.variance == pytest.approx(variance, rel=1e-10)


def test_delong_interval_of_a_published_design_equals_the_oracle_to_1e_4():
    # 41 cases and 72 controls as in pROC's aSAH; the oracle is the definition itself.
    rng = np.random.default_rng(11)
    y = np.r_[np.ones(41), np.zeros(72)]
    s = np.round(rng.gamma(2, 0.1, 113) + 0.1 * y, 2)
    found = delong.auroc_estimate(y, s)
    value, variance = _delong_by_definition(y, s)
    half = scipy.stats.norm.ppf(0.975) * np.sqrt(variance)
    ours = found.value + np.array([-1, 1]) * scipy.stats.norm.ppf(0.975) * found.se
    assert ours == pytest.approx([value - half, value + half], abs=1e-4)


def test_repeating_each_image_of_a_patient_changes_nothing():
    y, s, patients = _scores(3)
    once = delong.auroc_estimate(y, s, patients)
    thrice = delong.auroc_estimate(*(np.repeat(x, 3) for x in (y, s, patients)))
    assert thrice.value == pytest.approx(once.value)
    assert thrice.variance == pytest.approx(once.variance)


@settings(deadline=None)
@given(st.integers(0, 50), st.integers(1, 4))
def test_influences_sum_to_zero(seed, images):
    y, s, patients = _scores(seed, n=40, images=images)
    found = delong.auroc_estimate(y, s, patients)
    if np.isfinite(found.value):
        assert found.influence.sum() == pytest.approx(0, abs=1e-12)


def test_weights_count_a_row_as_often_as_repeating_it_within_its_patient():
    y, s, patients = _scores(4, images=2)
    weights = np.random.default_rng(0).integers(1, 4, len(y))
    weighted = delong.auroc_estimate(y, s, patients, weights=weights)
    repeated = delong.auroc_estimate(*(np.repeat(x, weights) for x in (y, s, patients)))
    assert weighted.value == pytest.approx(repeated.value)
    assert weighted.variance == pytest.approx(repeated.variance)


def test_paired_difference_equals_delongs_covariance():
    y, s, _ = _scores(5)
    other = s + np.random.default_rng(1).normal(size=len(s))
    first, second = _kernel(y, s), _kernel(y, other)
    m, n = first.shape
    covariance = (
        np.cov(first.mean(1), second.mean(1))[0, 1] / m
        + np.cov(first.mean(0), second.mean(0))[0, 1] / n
    )
    expected = _delong_by_definition(y, s)[1] + _delong_by_definition(y, other)[1] - 2 * covariance
    found = delong.difference(delong.auroc_estimate(y, s), delong.auroc_estimate(y, other))
    assert found.variance == pytest.approx(expected, rel=1e-9)


def test_difference_of_disjoint_patients_adds_the_variances():
    y, s, patients = _scores(6, images=2)
    inside = patients < 15
    a, b = (
        delong.auroc_estimate(y[part], s[part], patients[part], n_patients=30)
        for part in (inside, ~inside)
    )
    assert delong.difference(a, b).variance == pytest.approx(a.variance + b.variance)


def test_a_model_compared_with_itself_differs_by_exactly_nothing():
    y, s, patients = _scores(7, images=3)
    same = delong.auroc_estimate(y, s, patients)
    gap = delong.difference(same, same)
    assert gap.value == 0 and gap.variance == pytest.approx(0, abs=1e-12)
    assert (gap.influence == 0).all()


@pytest.mark.parametrize("y", [[0, 0, 0], [1, 1, 1], []])
def test_one_class_is_undefined(y):
    found = delong.auroc_estimate(y, np.arange(float(len(y))))
    assert np.isnan(found.value) and np.isnan(delong.logit_interval(found)).all()


def test_one_patient_with_positives_leaves_the_interval_undefined():
    found = delong.auroc_estimate([1, 1, 0, 0, 0], [2.0, 0.5, 1, 0, 3], [0, 0, 1, 2, 3])
    assert np.isfinite(found.value) and np.isnan(found.variance)


def test_perfect_separation_has_a_value_and_no_interval():
    found = delong.auroc_estimate([0, 0, 1, 1], [0.0, 1, 2, 3])
    assert found.value == 1
    assert np.isnan(delong.logit_interval(found)).all()
    assert np.isnan(delong.arcsine_interval(found)).all()


def test_logit_interval_is_worked_by_hand():
    estimate = delong.Estimate(0.8, 0.0016, 10.0, np.zeros((2, 1)), np.ones((2, 1), dtype=bool))
    half = 2.2281389 * 0.04 / (0.8 * 0.2)
    low, high = 1 / (1 + np.exp(-(np.log(4) + np.array([-half, half]))))
    assert delong.logit_interval(estimate) == pytest.approx((low, high), rel=1e-6)


def test_post_stratified_weights_leave_the_spread_between_strata_out():
    rng = np.random.default_rng(8)
    y, strata = np.tile([0.0, 1.0], 200), np.repeat([0, 1], 200)
    s = rng.normal(size=400) + y + 3 * strata
    plain = delong.auroc_estimate(y, s)
    fixed = delong.auroc_estimate(y, s, strata=strata)
    assert fixed.value == plain.value
    assert fixed.variance < 0.8 * plain.variance
