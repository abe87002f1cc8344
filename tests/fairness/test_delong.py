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


def _between(y, s, patients) -> float:
    """The share of pairs of different patients that are in the right order."""
    apart = patients[y == 1][:, None] != patients[y == 0][None, :]
    return _kernel(y, s)[apart].mean()


def _jackknife_by_definition(y, s, patients) -> float:
    """Every patient deleted in turn; the two kinds of rows have their own small-sample factor."""
    wins, area = _kernel(y, s), _between(y, s, patients)
    of_pos, of_neg = patients[y == 1], patients[y == 0]
    apart = of_pos[:, None] != of_neg[None, :]
    odds = [np.sqrt((len(set(of)) - 1) / len(set(of))) for of in (of_pos, of_neg)]
    total = 0.0
    for i in np.unique(patients):
        up = ((wins - area) * apart)[of_pos == i].sum()
        low = ((wins - area) * apart)[:, of_neg == i].sum()
        left = apart[np.ix_(of_pos != i, of_neg != i)].sum()
        total += ((odds[0] * up + odds[1] * low) / left) ** 2
    return total


@pytest.mark.parametrize("seed", range(5))
def test_several_images_per_patient_are_counted_by_deleting_each_patient(seed):
    y, s, patients = _scores(seed, images=4)
    found = delong.auroc_estimate(y, s, patients)
    assert found.value == pytest.approx(_kernel(y, s).mean(), rel=1e-12)
    assert found.centre == pytest.approx(_between(y, s, patients), rel=1e-12)
    assert found.variance == pytest.approx(_jackknife_by_definition(y, s, patients), rel=1e-10)
    for i in (0, 7):
        left = patients != i
        moved = _between(y, s, patients) - _between(y[left], s[left], patients[left])
        # Without the factors, a patient's deviation is what its deletion takes away.
        assert found.deviations[i] == pytest.approx(moved, rel=0.06, abs=1e-4)


def test_many_patients_alike_give_obuchowski():
    y, s, patients = _scores(0, n=1200, images=4)
    found = delong.auroc_estimate(y, s, patients)
    value, variance = _obuchowski_by_definition(y, s, patients)
    assert found.value == pytest.approx(value, rel=1e-12)
    assert found.variance == pytest.approx(variance, rel=0.02)


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


@pytest.mark.parametrize("interval", [delong.logit_interval, delong.arcsine_interval])
def test_perfect_separation_has_the_bound_that_disjoint_pairs_of_patients_give(interval):
    y, s = np.tile([0.0, 1.0], 30), np.tile([0.0, 1.0], 30)
    found = delong.auroc_estimate(y, s)
    assert found.value == 1 and interval(found) == pytest.approx((0.025 ** (1 / 30), 1))
    assert interval(delong.auroc_estimate(y, -s)) == pytest.approx((0, 1 - 0.025 ** (1 / 30)))
    # Many images of the same patients are no more pairs of patients.
    copies = delong.auroc_estimate(*(np.repeat(x, 9) for x in (y, s, np.arange(60))))
    assert interval(copies) == pytest.approx(interval(found))
    # Patients with both labels can each be in one pair only.
    mixed = delong.auroc_estimate(y, s, np.arange(60) // 2)
    assert interval(mixed) == pytest.approx((0.025 ** (1 / 15), 1))


def test_the_bound_of_a_perfect_auroc_holds_for_the_law_that_is_hardest():
    """One positive in 20 lies below all negatives: true AUROC .95, often unseen with 20."""
    rng, held = np.random.default_rng(0), 0
    for _ in range(400):
        s = np.r_[np.where(rng.random(20) < 0.05, -9.0, 9.0), rng.normal(size=30)]
        low, high = delong.logit_interval(delong.auroc_estimate(np.repeat([1, 0], [20, 30]), s))
        held += low <= 0.95 <= high
    assert held >= 0.915 * 400


@pytest.mark.parametrize("images", [1, 3])
def test_scores_that_all_tie_leave_every_interval_undefined(images):
    y = np.tile([0.0, 1.0, 1.0], 20)
    found = delong.auroc_estimate(y, np.full(60, 0.3), np.arange(60) // images)
    other = delong.auroc_estimate(y, np.arange(60.0) + 40 * y, np.arange(60) // images)
    assert found.value == 0.5
    intervals = (delong.logit_interval, delong.arcsine_interval, delong.t_interval)
    assert np.isnan([interval(found) for interval in intervals]).all()
    assert np.isnan(delong.t_interval(delong.difference(found, other))).all()
    assert np.isnan(delong.difference_interval(found, other)).all()


def test_a_difference_without_any_spread_has_no_interval_and_one_with_a_perfect_side_has():
    y = np.tile([0.0, 1.0], 40)
    s = y + np.random.default_rng(0).normal(size=80)
    codes = np.arange(80)
    perfect = delong.auroc_estimate(y, y, codes, n_patients=160)
    alike = delong.auroc_estimate(y, y, codes + 80, n_patients=160)
    good = delong.auroc_estimate(y, s, codes + 80, n_patients=160)
    assert np.isnan(delong.t_interval(delong.difference(perfect, alike))).all()
    low, high = delong.difference_interval(perfect, alike)
    assert (low, high) == pytest.approx((0.025 ** (1 / 40) - 1, 1 - 0.025 ** (1 / 40)))
    low, high = delong.difference_interval(perfect, good)
    assert low < 1 - good.value < high <= 1


def test_a_difference_adds_the_squares_of_the_distances_to_the_ends():
    """Worked by hand for two groups of other patients (Zou & Donner 2008, equation 4)."""
    y, s, patients = _scores(6, n=160, images=2)
    inside = patients < 40
    a, b = (
        delong.auroc_estimate(y[part], s[part], patients[part], n_patients=80)
        for part in (inside, ~inside)
    )
    (low1, high1), (low2, high2) = delong.logit_interval(a), delong.logit_interval(b)
    d = a.centre - b.centre
    expected = (
        d - np.hypot(a.centre - low1, high2 - b.centre),
        d + np.hypot(high1 - a.centre, b.centre - low2),
    )
    assert delong.difference_interval(a, b) == pytest.approx(expected)
    assert delong.t_interval(delong.difference(a, b)) == pytest.approx(expected, abs=0.03)


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


def test_degrees_of_freedom_are_those_of_the_influences_and_not_of_the_patients():
    y = np.tile([0.0, 1.0], 60)
    s = y + np.random.default_rng(0).normal(size=120)
    even = delong.auroc_estimate(y, s)
    sizes = np.r_[100, 100, np.ones(118, dtype=int)]
    uneven = delong.auroc_estimate(*(np.repeat(x, sizes) for x in (y, s, np.arange(120))))
    squares = uneven.deviations**2
    assert even.df > 60 and 1 <= uneven.df < 6
    assert uneven.df == pytest.approx(max(2 * squares.sum() ** 2 / (squares**2).sum() - 1, 1))
