"""All comparisons of one run: labels, groups and statistics as one family (protocol S13)."""

import functools

import numpy as np
import numpy.typing as npt
import pandas as pd

from jaxfair.fairness import calibration
from jaxfair.fairness.contrasts import group_contrasts, n_comparisons
from jaxfair.report.single import Run

__all__ = ["CONTROL", "SEED", "Family", "Probabilities", "probabilities_of"]

CONTROL = "view"
"""The column to whose pooled mix groups are compared."""
SEED = 0

Array = npt.NDArray[np.float64]
Probabilities = tuple[Array, Array, str]
"""Probabilities of the test rows, bin edges from validation, and how they were made."""


class Family:
    """The contrasts of every label of a run, computed once and shared by its views."""

    def __init__(self, run: Run, n_draws: int | None = None) -> None:
        self._run, self._n_draws = run, n_draws

    @functools.cached_property
    def contrasts(self) -> pd.DataFrame:
        """Every comparison of the run (contrasts.py)."""
        run = self._run
        risks = {task: probabilities_of(run, task) for task in run.tasks}
        return group_contrasts(
            run.predictions,
            run.attributes,
            seed=SEED,
            thresholds={task: run.threshold(task) for task in run.tasks},
            probabilities={task: found[0] for task, found in risks.items() if found is not None},
            control=CONTROL,
            n_draws=self._n_draws,
        )

    @property
    def size(self) -> int:
        """How many comparisons were made."""
        return n_comparisons(self.contrasts)

    @property
    def labels(self) -> int:
        """Over how many labels."""
        return len(self._run.tasks)


def probabilities_of(run: Run, task: str) -> Probabilities | None:
    """Returns the scores of a label's test rows as probabilities; None where nothing makes them so.

    Scores between 0 and 1 are taken as they are; others go through a logistic line that is
    fitted on the validation rows, which must hold both labels.
    """
    validation = run.rows(task, "validation")
    if validation["y_true"].nunique() < 2:
        return None
    scores, own = run.rows(task)["y_score"].to_numpy(), validation["y_score"].to_numpy()
    both = np.concatenate([scores, own])
    if task != "anomaly" and both.min() >= 0 and both.max() <= 1:
        return scores, calibration.equal_mass_edges(own), "Scores are taken as probabilities."
    line = calibration.platt(validation["y_true"], own)
    if not np.isfinite(line.fit).all():
        return None
    words = (
        "Scores are no probabilities; a logistic line (Platt) fitted on validation rows makes"
        " them so, and what is shown is the calibration of its result."
    )
    return line(scores), calibration.equal_mass_edges(line(own)), words
