"""Differences of calibration between groups, beside what chance alone gives."""

import numpy as np
import pytest
from scipy.special import expit

from jaxfair.errors import InputError
from jaxfair.fairness import calibration
from jaxfair.fairness.levels import spreads
from jaxfair.fairness.miscalibration import EQUAL_WIDTH, calibration_levels
from jaxfair.fairness.resamples import Resamples
from tests.fairness.conftest import make_predictions

ECE, SQUARED = "calibration: ECE, 15 bins", "calibration: squared error, debiased"


def _made(shift: float, n: int = 3000, seed: int = 0):
    """Rows whose labels follow their probability, for women that of a shifted score."""
    table = make_predictions(n, seed=seed)
    rng = np.random.default_rng([seed, 1])
    p = expit(rng.normal(-0.5, 1.2, n))
    true = expit(np.log(p / (1 - p)) + shift * (table["sex"] == "F"))
    return table.assign(y_score=p, y_true=(rng.random(n) < true).astype(float))


def test_each_groups_errors_are_those_of_15_equal_bins_whatever_the_scores():
    rows = _made(0.5).assign(y_score=lambda t: 0.3 + 0.2 * t["y_score"])
    test = rows[rows["split"] == "test"]
    found = calibration_levels(Resamples(rows, n_draws=3), "sex", test["y_score"], n_permutations=3)
    assert len(EQUAL_WIDTH) == 14 and EQUAL_WIDTH[0] == pytest.approx(1 / 15)
    for g, sex in enumerate(("F", "M")):
        y, p = (test.loc[test["sex"] == sex, name] for name in ("y_true", "y_score"))
        assert found.values[0, g] == pytest.approx(calibration.ece(y, p, EQUAL_WIDTH))
        squared = calibration.debiased_squared_error(y, p, EQUAL_WIDTH)
        assert found.values[1, g] == pytest.approx(squared)


def test_probabilities_stay_with_their_rows_when_rows_are_sorted():
    rows = _made(0.5).sample(frac=1, random_state=0).reset_index(drop=True)
    test = rows[rows["split"] == "test"]
    mixed = calibration_levels(Resamples(rows, n_draws=3), "sex", test["y_score"], n_permutations=3)
    rows = _made(0.5)
    test = rows[rows["split"] == "test"]
    sorted_ = calibration_levels(
        Resamples(rows, n_draws=3), "sex", test["y_score"], n_permutations=3
    )
    assert mixed.values == pytest.approx(sorted_.values)
    assert mixed.draws == pytest.approx(sorted_.draws)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -0.1, 1.1])
def test_what_is_no_probability_is_refused(bad):
    rows = _made(0.5)
    spoilt = rows[rows["split"] == "test"]["y_score"].to_numpy(copy=True)
    spoilt[7] = bad
    with pytest.raises(InputError, match=r"[Pp]robabilities"):
        calibration_levels(Resamples(rows, n_draws=3), "sex", spoilt, n_permutations=3)


def test_a_planted_difference_is_found():
    rows = _made(0.9)
    test = rows[rows["split"] == "test"]
    found = spreads(calibration_levels(Resamples(rows, n_draws=60), "sex", test["y_score"]))
    for name in (ECE, SQUARED):
        assert found[name].p_value <= 0.05 and 0 < found[name].ci_low < found[name].value
        assert found[name].excess == pytest.approx(found[name].value - found[name].null_mean)


def _sicker(rows):
    """Women are left out by chance unless their risk is high: sicker, as well calibrated."""
    keep = (rows["sex"] == "M") | (rows["y_score"] > 0.4) | (np.arange(len(rows)) % 4 == 0)
    return rows[keep].reset_index(drop=True)


def _fewer(rows):
    return rows.assign(sex=np.where(np.arange(len(rows)) < 300, "F", "M"))


@pytest.mark.parametrize("changed", [_sicker, _fewer])
def test_equal_calibration_is_called_unequal_in_few_of_20(changed):
    """Where groups differ in risk, images per patient, or size."""
    rejected, excess = 0, []
    for seed in range(20):
        rows = changed(_made(0.0, 1500, seed))
        test = rows[rows["split"] == "test"]
        resamples = Resamples(rows, seed=seed, n_draws=2)
        levels = calibration_levels(resamples, "sex", test["y_score"], n_permutations=59)
        found = spreads(levels)[ECE]
        assert found.null_mean > 0.01
        rejected += found.p_value <= 0.05
        excess.append(found.excess)
    assert rejected <= 4
    assert abs(np.mean(excess)) < 4 * np.std(excess) / np.sqrt(20)


@pytest.mark.parametrize("apart", ["risk", "images"])
def test_only_patients_of_like_risk_and_number_of_images_change_places(apart):
    rows = _made(0.0, 1350)
    women = rows["patient_id"].astype(int) // 3 % 3 == 0  # 5 of 15 strata, if theirs are apart
    rows["sex"] = np.where(women, "F", "M")
    if apart == "risk":
        rows["y_score"] = rows["y_score"] / 4 + 0.7 * women
    else:
        rows = rows[women | ~rows.duplicated("patient_id")].reset_index(drop=True)
    test = rows[rows["split"] == "test"]
    found = calibration_levels(
        Resamples(rows, n_draws=2), "sex", test["y_score"], n_permutations=5
    )  # so nobody finds his like in the other group
    assert found.null == pytest.approx(np.tile(np.ptp(found.values, axis=1), (5, 1)))
