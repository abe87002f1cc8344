"""The gaps of one run and task, each computed once: AUROC, decisions, calibration."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from jaxfair.fairness.areas import auroc_levels
from jaxfair.fairness.frame import MIN_LABEL, MIN_PATIENTS
from jaxfair.fairness.gaps import Gap
from jaxfair.fairness.levels import Levels, Spread, spreads, with_null
from jaxfair.fairness.miscalibration import calibration_levels
from jaxfair.fairness.odds import MIN_POSITIVES, Decisions, decisions
from jaxfair.fairness.resamples import Resamples
from jaxfair.fairness.rules import MIN_CASES
from jaxfair.report.cells import Number, p_text, with_interval
from jaxfair.report.family import CONTROL, SEED, Probabilities
from jaxfair.report.single import Run

__all__ = ["ALONE", "ONE", "OWN", "RULE", "WORDS", "WORST", "Line", "Measured"]

RULE = "min_gap"
"""The rule of the thresholds of all gaps of decisions: the smallest |TPR - TNR|."""
WORST = "delta-EO, worst case"
ONE, OWN = "one threshold", "a threshold per group"

WORDS = (
    "Before and after thresholds per group: gaps of decisions at the threshold where |TPR - TNR| is"
    " smallest on validation, one for all, then one for each group that has"
    f" {MIN_CASES} validation cases of either label; whoever decides so has to know a patient's"
    " group at test time. delta-EO is the larger of the gaps of TPR and TNR. By chance alone:"
    " patients exchange groups within label and view, and thresholds are fitted again. With fewer"
    f" than {MIN_POSITIVES} positives in a group a gap is mostly noise. To set this beside another"
    " training, give both runs to `python -m jaxfair.report`, the earlier first."
)
"""What `shown` shows."""

ALONE = f"fewer than two groups have {MIN_PATIENTS} test patients, and {MIN_LABEL} of either label"
"""Why an attribute has no gap."""

_WORK = 4e6


class Line(NamedTuple):
    """One gap of one attribute.

    Attributes:
      attribute: whose groups.
      gap: its name in `levels.GAPS`.
      threshold: ONE, OWN, or '' where no threshold is part of it.
      spread: the gap.
      levels: what it was made of.
      note: what a reader of it must know, '' for nothing.
      own: the groups that decide at thresholds of their own.
    """

    attribute: str
    gap: str
    threshold: str
    spread: Spread
    levels: Levels
    note: str = ""
    own: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """'sex: delta-EO, worst case, one threshold'."""
        return f"{self.attribute}: {self.gap}" + (f", {self.threshold}" if self.threshold else "")


class Measured:
    """The gaps of one run's task.

    Args:
      run: a run with validation rows or stored thresholds; without both, decisions are undefined.
      task: one of its labels.
      groups: attribute -> groups that are not hidden.
      gaps: attribute -> the AUROC's gap with its null.
      probabilities: of the test rows, or None.
    """

    def __init__(
        self,
        run: Run,
        task: str,
        groups: Mapping[str, Sequence[str]],
        gaps: Mapping[str, Gap],
        probabilities: Probabilities | None,
    ) -> None:
        self._groups, self._gaps, self._probabilities = groups, gaps, probabilities
        self._stored = run.thresholds.get(task, {})
        rows = run.predictions[run.predictions["task"] == task]
        self._n = int(np.clip(_WORK / len(rows), 99, 199))
        self.resamples = Resamples(rows, seed=SEED, n_draws=2 * self._n)

    @functools.cached_property
    def decisions(self) -> dict[tuple[str, str], Decisions]:
        """Those of every attribute at either kind of threshold, by (attribute, ONE or OWN)."""
        return {
            (attribute, kind): decisions(
                self.resamples,
                attribute,
                rule=RULE,
                per_group=kind == OWN,
                groups=groups,
                control=CONTROL,
                stored=self._stored,
                n_permutations=self._n,
            )
            for attribute, groups in self._groups.items()
            for kind in (ONE, OWN)
        }

    @functools.cached_property
    def lines(self) -> list[Line]:
        """Every gap, by attribute."""
        return [line for attribute in self._groups for line in self._of(attribute)]

    def _of(self, attribute: str) -> list[Line]:
        groups = self._groups[attribute]
        area = auroc_levels(self.resamples, attribute, groups)
        (name, spread), *_ = spreads(area).items()
        found = [Line(attribute, name, "", with_null(spread, self._gaps[attribute]), area)]
        for kind in (ONE, OWN):
            made = self.decisions[attribute, kind]
            tail = made.levels, _note(made), made.own
            found += [Line(attribute, n, kind, s, *tail) for n, s in spreads(made.levels).items()]
        if self._probabilities is not None:
            levels = calibration_levels(
                self.resamples, attribute, self._probabilities[0], groups, n_permutations=self._n
            )
            found += [Line(attribute, n, "", s, levels) for n, s in spreads(levels).items()]
        return found

    def table(self) -> pd.DataFrame:
        """Returns all gaps as numbers: attribute, gap, threshold, the fields of Spread, ..."""
        rows = [
            {
                "attribute": line.attribute,
                "gap": line.gap,
                "threshold": line.threshold,
                **line.spread._asdict(),
                "fewest_positives": line.levels.smallest,
                "overall": line.levels.overall,
            }
            for line in self.lines
        ]
        names = ["attribute", "gap", "threshold", *Spread._fields, "fewest_positives", "overall"]
        return pd.DataFrame(rows, columns=names)

    def shown(self) -> pd.DataFrame:
        """Returns the gaps of decisions as text: a row for each kind of threshold, or why none."""
        rows: list[dict[str, Any]] = []
        for (attribute, kind), found in self.decisions.items():
            if len(found.levels.groups) < 2:
                rows += [{"attribute": attribute, "note": ALONE}] if kind == ONE else []
                continue
            spread, levels = spreads(found.levels), found.levels
            worst = spread[WORST]
            rows.append(
                {
                    "attribute": attribute,
                    "threshold": kind,
                    "delta-EO [95 %]": with_interval(worst.value, worst.ci_low, worst.ci_high),
                    "by chance alone: mean": Number(worst.null_mean),
                    "95 % below": Number(worst.null_95),
                    "excess": Number(worst.excess),
                    "p": p_text(worst.p_value) or "undefined",
                    **{name: Number(s.value) for name, s in spread.items() if name != WORST},
                    "accuracy": Number(levels.overall),
                    "note": _note(found),
                }
            )
        table = pd.DataFrame(rows).fillna("")
        return table[[*(name for name in table if name != "note"), "note"]]


def _note(found: Decisions) -> str:
    """What a reader of a gap must know: few positives, and who has no threshold of his own."""
    notes, every, own = [], len(found.thresholds), len(found.own)
    if len(found.levels.groups) > 1 and found.levels.smallest < MIN_POSITIVES:
        notes.append(f"only {found.levels.smallest} positives in a group")
    if found.per_group and own < every:
        notes.append(f"pooled threshold for {'all' if not own else every - own} of {every} groups")
    return "; ".join(notes)
