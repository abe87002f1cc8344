import numpy as np
import pytest
import scipy.stats

from jaxfair.fairness import delong, metrics
from jaxfair.fairness.bootstrap import bca_interval, patient_bootstrap

Y = (np.random.default_rng(0).random(160) < 0.5).astype(float)
S = np.random.default_rng(1).normal(size=160) + Y
PATIENTS = np.arange(160) // 2


def _auroc(rows):
    return metrics.auroc(Y[rows], S[rows])


def _error(rows):
    return delong.auroc_estimate(Y[rows], S[rows]).se


@pytest.mark.parametrize("kind", ["percentile", "bca", "studentised"])
def test_every_kind_agrees_roughly_with_obuchowski(kind):
    found = patient_bootstrap(
        _auroc, PATIENTS, seed=0, n_bootstrap=400, kind=kind, standard_error=_error
    )
    low, high = delong.logit_interval(delong.auroc_estimate(Y, S, PATIENTS))
    assert found.value == pytest.approx(metrics.auroc(Y, S))
    assert found.low == pytest.approx(low, abs=0.02) and found.high == pytest.approx(high, abs=0.02)


def test_the_seed_makes_the_interval():
    once = patient_bootstrap(_auroc, PATIENTS, seed=5, n_bootstrap=50)
    assert once == patient_bootstrap(_auroc, PATIENTS, seed=5, n_bootstrap=50)
    assert once != patient_bootstrap(_auroc, PATIENTS, seed=6, n_bootstrap=50)


def test_whole_patients_are_drawn_and_not_images():
    seen = []

    def keep(rows):
        seen.append(np.bincount(PATIENTS[rows], minlength=80))
        return 0.0

    patient_bootstrap(keep, PATIENTS, seed=0, n_bootstrap=20)
    assert all((counts % 2 == 0).all() and counts.sum() == 160 for counts in seen)


def test_bca_equals_scipy():
    rng = np.random.default_rng(0)
    x = rng.exponential(size=40)
    peer = scipy.stats.bootstrap(
        (x,), np.mean, n_resamples=4000, method="BCa", rng=np.random.default_rng(1)
    )
    jackknife = (x.sum() - x) / 39
    ours = bca_interval(x.mean(), peer.bootstrap_distribution, jackknife)
    assert ours == pytest.approx(tuple(peer.confidence_interval), rel=1e-6)


def test_a_statistic_that_most_resamples_leave_undefined_has_no_interval():
    def rare(rows):
        return float("nan") if 0 not in PATIENTS[rows] else 1.0

    found = patient_bootstrap(rare, PATIENTS, seed=0, n_bootstrap=100)
    assert found.value == 1.0 and np.isnan([found.low, found.high]).all()


def test_an_interval_without_width_is_none():
    found = patient_bootstrap(lambda rows: 1.0, PATIENTS, seed=0, n_bootstrap=50)
    assert found.value == 1.0 and np.isnan([found.low, found.high]).all()


def test_a_wrong_kind_is_refused():
    with pytest.raises(ValueError, match="got 'normal'"):
        patient_bootstrap(_auroc, PATIENTS, seed=0, kind="normal")
    with pytest.raises(ValueError, match="needs standard_error"):
        patient_bootstrap(_auroc, PATIENTS, seed=0, kind="studentised")
