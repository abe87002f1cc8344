"""One task's rows with redrawn patients, shared by all numbers that are set beside each other.

Two runs on the same patients get the same draws, whatever the order of their rows, so that what
one run has more than the other is paired. Validation patients are drawn too, and thresholds are
fitted again in each draw (protocol S6).
"""

import functools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from jaxfair.errors import InputError
from jaxfair.fairness.bootstrap import patient_weights
from jaxfair.fairness.frame import GroupFrame
from jaxfair.fairness.groups import group_labels
from jaxfair.fairness.predictions import checked
from jaxfair.fairness.rules import Sorted

__all__ = ["Resamples", "Rows"]

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Counts = npt.NDArray[np.uint16]


class Rows:
    """The rows of one split, by patient.

    Attributes:
      table: the rows, those of one patient together, patients in order of their ids.
      y, score: (n,).
      order: (n,) where each row was before.
      people: (n,) patient codes 0..p-1, ascending.
      n_people: p.
    """

    def __init__(self, table: pd.DataFrame) -> None:
        rows = table.reset_index(drop=True).sort_values(["patient_id", "image_id"])
        self.order, self.table = rows.index.to_numpy(), rows.reset_index(drop=True)
        self.y = self.table["y_true"].to_numpy(dtype=float)
        self.score = self.table["y_score"].to_numpy(dtype=float)
        codes, ids = pd.factorize(self.table["patient_id"])
        self.people, self.n_people = codes.astype(np.int64), len(ids)

    def __len__(self) -> int:
        return len(self.y)

    def codes(self, attribute: str, groups: list[str]) -> Ints:
        """Returns the place of each row's group in `groups`, (n,); len(groups) for others."""
        place = {group: i for i, group in enumerate(groups)}
        labels = group_labels(self.table, attribute)
        return np.array([place.get(str(g), len(groups)) for g in labels], dtype=np.int64)

    @functools.cached_property
    def ordered(self) -> Sorted:
        """The rows in ascending order of the score, for fits."""
        return Sorted(self.y, self.score)


class Resamples:
    """The test and validation rows of one task, and how often each patient is redrawn.

    Args:
      predictions: rows of one task (see `predictions.checked`).
      seed: of the draws.
      n_draws: of patients; both splits are drawn.

    Raises:
      InputError: if there are several tasks, or no test rows.
    """

    def __init__(self, predictions: pd.DataFrame, *, seed: int = 0, n_draws: int = 400) -> None:
        rows = checked(predictions)
        if rows["task"].nunique() > 1:
            names = ", ".join(sorted(rows["task"].unique()))
            raise InputError(f"Gaps are of one task; the rows hold {names}: choose one of them.")
        self.test = Rows(rows[rows["split"] == "test"])
        self.validation = Rows(rows[rows["split"] == "validation"])
        if not len(self.test):
            raise InputError("There are no test rows, so there is no gap; give rows of split test.")
        self.seed, self.n_draws = seed, n_draws
        self._pooled: dict[str, Array] = {}
        self._compared: dict[str, list[str]] = {}

    @property
    def fits(self) -> bool:
        """True if the validation rows hold both labels, so that thresholds can be fitted."""
        return 0 < self.validation.y.sum() < len(self.validation)

    @functools.cached_property
    def weights(self) -> Counts:
        """(draws, test patients) how often each is drawn."""
        return self._drawn(self.test.n_people, 0)

    @functools.cached_property
    def validation_weights(self) -> Counts:
        """(draws, validation patients) how often each is drawn."""
        return self._drawn(self.validation.n_people, 1)

    def pooled(self, rule: str) -> Array:
        """Returns (draws,) pooled thresholds of a rule, fitted on the redrawn patients."""
        if rule not in self._pooled:
            ordered = self.validation.ordered
            people = self.validation.people[ordered.order]
            fitted = [ordered.fit(rule, w[people].astype(float)) for w in self.validation_weights]
            self._pooled[rule] = np.array(fitted)
        return self._pooled[rule]

    def compared(self, attribute: str, groups: Sequence[str] | None = None) -> list[str]:
        """Returns `groups`, or those of an attribute with enough test patients (protocol S3)."""
        if groups is not None:
            return list(groups)
        if attribute not in self._compared:
            frame = GroupFrame(self.test.table, attribute)
            self._compared[attribute] = [g for g in frame.groups if g not in frame.too_few]
        return list(self._compared[attribute])

    def _drawn(self, n_people: int, split: int) -> Counts:
        rng = np.random.default_rng([self.seed, split])
        draws = [patient_weights(n_people, rng) for _ in range(self.n_draws)]
        return np.array(draws, dtype=np.uint16).reshape(self.n_draws, n_people)
