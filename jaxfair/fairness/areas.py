"""The AUROC of each group with redrawn patients, for the interval of its gap and for changes."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from jaxfair.fairness.delong import auroc_estimate, logit_interval
from jaxfair.fairness.influence import Estimate
from jaxfair.fairness.levels import Levels
from jaxfair.fairness.resamples import Resamples

__all__ = ["auroc_levels"]

Array = npt.NDArray[np.float64]


def auroc_levels(
    resamples: Resamples, attribute: str, groups: Sequence[str] | None = None
) -> Levels:
    """Returns the AUROC of each group and of all rows, with redrawn patients.

    Draws are linear in the patients' influences. The null and p value of the gap are those of
    `gaps.max_min_gap` (`levels.with_null` joins them).

    Args:
      resamples: the rows.
      attribute: a column or an intersection.
      groups: to be compared; None takes those with enough patients.
    """
    names = resamples.compared(attribute, groups)
    test, codes = resamples.test, resamples.test.codes(attribute, names)
    everyone = _estimate(resamples, np.ones(len(test), dtype=bool))
    found = [_estimate(resamples, codes == g) for g in range(len(names))]
    positives = np.bincount(codes, test.y, minlength=len(names) + 1)[: len(names)]
    return Levels(
        "auroc",
        tuple(names),
        np.array([[e.value for e in found]]),
        _drawn(resamples, found)[:, None],
        np.array([[_floor(e) for e in found]]),
        everyone.value,
        _drawn(resamples, [everyone])[:, 0],
        np.full(1, np.nan),
        np.empty((0, 1)),
        np.empty((0, 1)),
        "undefined",
        int(positives.min()) if len(names) else 0,
        logit_interval(everyone),
    )


def _estimate(resamples: Resamples, inside: npt.NDArray[np.bool_]) -> Estimate:
    test = resamples.test
    return auroc_estimate(
        test.y[inside], test.score[inside], test.people[inside], n_patients=test.n_people
    )


def _drawn(resamples: Resamples, found: Sequence[Estimate]) -> Array:
    """(B, k) AUROCs of redrawn patients."""
    if not found:
        return np.empty((resamples.n_draws, 0))
    spread = np.stack([e.deviations for e in found], axis=1)
    values = np.array([e.value for e in found])
    return np.asarray(values + resamples.weights.astype(float) @ spread - spread.sum(axis=0))


def _floor(estimate: Estimate) -> float:
    """Variance of an AUROC with half a pair added (Hanley's bound over four of the rarer side)."""
    sizes = estimate.members.sum(axis=1)
    pairs = float(sizes.prod())
    near = (estimate.value * pairs + 0.5) / (pairs + 1)
    return float(near * (1 - near) / (4 * max(sizes.min(), 1)))
