import numpy as np
import pandas as pd
import pytest
import scipy.special

from jaxfair.fairness import delong
from jaxfair.fairness.contrasts import group_contrasts
from jaxfair.fairness.exchange import Exchange, levels_of, units_of
from jaxfair.fairness.permutation import patient_strata, permuted_groups

_AT = 0.8


def _case(seed: int, images: int, split: bool = False, n: int = 240):
    rng = np.random.default_rng(seed)
    patients = np.arange(n) // images
    codes = rng.integers(0, 3, n) if split else rng.integers(0, 3, n)[patients]
    y = (rng.random(n) < 0.4).astype(float)
    own = rng.normal(size=n)[patients]
    return y, np.round(own + rng.normal(size=n) + y, 2), codes, patients


def _exchange(y, s, codes, patients, strata=None, n_groups=3):
    units = units_of(patients, codes)
    own = np.zeros(units.max() + 1, dtype=np.int64)
    own[units] = codes
    return Exchange(y, s, strata, patients, units, n_groups, _AT), own, units


def _slow_rate(y, s, patients, chosen, label):
    """A rate, half an image added, and its cluster variance, by a loop over patients."""
    use = chosen & (y == label)
    right = (s >= _AT) == (label == 1)
    n, rate = use.sum(), right[use].mean()
    h = (rate * n + 0.5) / (n + 1)
    total = sum(
        ((right[use & (patients == c)] - rate).sum() / n) ** 2 for c in set(patients[use].tolist())
    )
    return h, max(total * n / (n - 1), h * (1 - h) / n)


@pytest.mark.parametrize("images", [1, 3])
def test_areas_and_errors_are_those_of_the_plain_functions(images):
    y, s, codes, patients = _case(0, images)
    exchange, own, _ = _exchange(y, s, codes, patients)
    found = exchange.of(own[None])
    for g in range(3):
        for side, chosen in enumerate((codes == g, codes != g)):
            plain = delong.auroc_estimate(y[chosen], s[chosen], patients[chosen])
            pairs = (y[chosen] == 1).sum() * (y[chosen] == 0).sum()
            h = (plain.value * pairs + 0.5) / (pairs + 1)
            assert found.logit[0, g, 0, side] == pytest.approx(scipy.special.logit(h))
            # With clusters the factors for few patients differ.
            error = np.sqrt(found.part[0, g, 0, side]) * h * (1 - h)
            assert error == pytest.approx(plain.se, rel=1e-9 if images == 1 else 0.08)


@pytest.mark.parametrize("images", [1, 3])
def test_rates_and_errors_are_those_of_a_loop_over_patients(images):
    y, s, codes, patients = _case(1, images)
    exchange, own, _ = _exchange(y, s, codes, patients)
    found = exchange.of(own[None])
    for g in range(3):
        for side, chosen in enumerate((codes == g, codes != g)):
            for place, label in ((1, 1), (2, 0)):
                h, variance = _slow_rate(y, s, patients, chosen, label)
                assert found.logit[0, g, place, side] == pytest.approx(scipy.special.logit(h))
                expected = variance / (h * (1 - h)) ** 2
                assert found.part[0, g, place, side] == pytest.approx(expected)


@pytest.mark.parametrize("controlled", [False, True])
@pytest.mark.parametrize(("images", "split"), [(1, False), (3, False), (3, True)])
def test_a_permutation_gives_what_the_same_groups_give_anew(images, split, controlled):
    y, s, codes, patients = _case(2, images, split)
    view = np.random.default_rng(0).integers(0, 2, len(y)) if controlled else None
    exchange, own, units = _exchange(y, s, codes, patients, view)
    kinds = patient_strata(y, units, view)
    for assigned in permuted_groups(own, kinds, 3, np.random.default_rng(1)):
        fresh = Exchange(y, s, view, patients, units, 3, _AT)
        rows = assigned[units].astype(np.int64)
        again, anew, _ = _exchange(y, s, rows, patients, view)
        one, other = exchange.of(assigned[None]), again.of(anew[None])
        assert np.allclose(one.logit, other.logit) and np.isfinite(one.t).all()
        assert np.allclose(fresh.of(np.stack([own, assigned])).t[1], one.t[0])
        if not split:
            assert np.allclose(one.variance, other.variance)


def test_images_that_a_patient_has_on_both_sides_are_paired():
    rng = np.random.default_rng(3)
    patients = np.arange(400) // 2
    codes, y = np.arange(400) % 2, (patients % 2).astype(float)
    s = np.repeat(rng.normal(size=200), 2) + 0.1 * rng.normal(size=400) + y
    exchange, own, _ = _exchange(y, s, codes, patients, n_groups=1)
    found = exchange.of(own[None])
    apart, _, _ = _exchange(y, s, codes, np.arange(400), n_groups=1)
    unpaired = apart.of(codes[None])
    assert found.variance[0, 0, 0] < 0.2 * unpaired.variance[0, 0, 0]


def test_weights_give_both_sides_the_pooled_mix():
    rng = np.random.default_rng(4)
    n = 4000
    view = rng.integers(0, 2, n)
    codes = (rng.random(n) < np.where(view == 1, 0.8, 0.2)).astype(np.int64)
    y = (rng.random(n) < 0.5).astype(float)
    s = rng.normal(size=n) + y * np.where(view == 1, 0.5, 2.5)
    raw, own, _ = _exchange(y, s, codes, np.arange(n), n_groups=1)
    same, _, _ = _exchange(y, s, codes, np.arange(n), view, n_groups=1)
    assert abs(raw.of(own[None]).t[0, 0, 0]) > 8 > 3 > abs(same.of(own[None]).t[0, 0, 0])


def test_merged_levels_keep_every_call_and_almost_every_order():
    rng = np.random.default_rng(5)
    y, s = (rng.random(5000) < 0.02).astype(float), rng.normal(size=5000)
    level, called = levels_of(y, s + 2 * y, 1.2345)
    assert len(called) <= 258
    assert (called[level] == (s + 2 * y >= 1.2345)).all()
    exact = delong.auroc_estimate(y, s + 2 * y)
    merged = delong.auroc_estimate(y, level)
    assert merged.value == pytest.approx(exact.value, abs=1e-3)
    assert merged.se == pytest.approx(exact.se, rel=0.01)


def test_perfect_separation_has_an_error():
    y = np.tile([0.0, 1.0], 60)
    codes = (np.arange(120) < 40).astype(np.int64)
    exchange, own, _ = _exchange(y, 2 * y, codes, np.arange(120), n_groups=1)
    found = exchange.of(own[None])
    assert np.isfinite(found.logit).all() and (found.variance > 0).all()


def _level(area: float, cell: tuple[int, int], many: tuple[int, int], repeats: int) -> float:
    """The share of repeats in which either of two equal groups is called worse."""
    signal, hits = np.sqrt(2) * scipy.special.ndtri(area), 0
    sizes = [*cell, *many]
    y, codes = np.repeat([1.0, 0, 1, 0], sizes), np.repeat(["a", "a", "b", "b"], sizes)
    ids = np.arange(len(y))
    rows = pd.DataFrame({"image_id": ids, "patient_id": ids, "y_true": y, "site": codes})
    for repeat in range(repeats):
        rows["y_score"] = np.random.default_rng([2026, repeat]).normal(size=len(y)) + signal * y
        found = group_contrasts(rows, ["site"], seed=repeat, n_draws=119)
        hits += bool(found["flagged"].any())
    return hits / repeats


@pytest.mark.parametrize(
    "area",
    [0.99, pytest.param(0.95, marks=pytest.mark.slow), pytest.param(0.76, marks=pytest.mark.slow)],
)
def test_no_true_gap_is_called_worse_in_2_to_8_5_percent_up_to_the_edge(area):
    assert 0.02 <= _level(area, (10, 50), (400, 1600), 400) <= 0.085
