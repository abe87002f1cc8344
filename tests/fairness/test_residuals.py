import numpy as np
import pytest

from jaxfair.fairness.exchange import units_of
from jaxfair.fairness.residuals import mean_gaps


@pytest.mark.parametrize("split", [False, True])
def test_gaps_and_errors_are_those_of_a_loop_over_patients(split):
    rng = np.random.default_rng(0)
    patients = np.arange(120) // 3
    codes = rng.integers(0, 3, 120) if split else rng.integers(0, 3, 40)[patients]
    residual = rng.normal(size=120) + 0.5 * rng.normal(size=40)[patients]
    units = units_of(patients, codes)
    own = np.zeros(units.max() + 1, dtype=np.int64)
    own[units] = codes
    gaps, errors = mean_gaps(residual, units, patients, np.stack([own, own]), 3)
    for g in range(3):
        inside = codes == g
        means = residual[inside].mean(), residual[~inside].mean()
        moved = np.zeros(120)
        for side, mean, sign in ((inside, means[0], 1), (~inside, means[1], -1)):
            m = len(np.unique(units[side]))
            moved[side] = sign * (residual[side] - mean) / side.sum() * np.sqrt(m / (m - 1))
        parts = np.array([moved[patients == c].sum() for c in range(40)])
        assert gaps[:, g] == pytest.approx(means[0] - means[1])
        assert errors[:, g] == pytest.approx(np.sqrt((parts**2).sum()))


def test_codes_beyond_the_groups_are_rest_alone():
    rng = np.random.default_rng(1)
    residual, ids = rng.normal(size=90), np.arange(90)
    gaps, _ = mean_gaps(residual, ids, ids, (ids % 3)[None], 2)
    assert gaps.shape == (1, 2)
    assert gaps[0, 1] == pytest.approx(
        residual[ids % 3 == 1].mean() - residual[ids % 3 != 1].mean()
    )
