"""The metrics by name: a new one is a function and a line in METRICS."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from jaxfair.errors import InputError, nearest
from jaxfair.fairness import metrics

__all__ = ["METRICS", "Metric", "metric_named"]

Array = npt.NDArray[np.float64]


class Metric(NamedTuple):
    """One line of METRICS.

    Attributes:
      function: `f(y_true, y_score) -> float` if it needs "scores"; with a third argument, the
        threshold, if it needs "decisions"; `f(y_true, y_score, in_group)` on the rows of
        everybody if it needs "all scores".
      needs: "scores", "all scores" or "decisions".
      title: heading in a report.
      meaning: one line for readers.
      rule: of the threshold of "decisions" (thresholds.py).
      low, high: the range of its values.
      higher_is_better: which end is worse for a group; None if neither is.
    """

    function: Callable[..., float]
    needs: str
    title: str
    meaning: str
    rule: str = "youden"
    low: float = 0.0
    high: float = 1.0
    higher_is_better: bool | None = True

    def of_group(
        self,
        y_true: Array,
        y_score: Array,
        inside: npt.NDArray[np.bool_],
        thresholds: Mapping[str, Any],
    ) -> float:
        """Returns the metric of the rows `inside`, (n,) bool; NaN without rows or threshold.

        `thresholds` maps rules to thresholds, None or NaN where there is none.
        """
        if self.needs == "all scores":
            return float(self.function(y_true, y_score, inside))
        if not inside.any():
            return float("nan")
        if self.needs == "scores":
            return float(self.function(y_true[inside], y_score[inside]))
        threshold = thresholds.get(self.rule)
        if threshold is None or np.isnan(threshold):
            return float("nan")
        return float(self.function(y_true[inside], y_score[inside], float(threshold)))


METRICS: dict[str, Metric] = {
    "auroc": Metric(
        metrics.auroc, "scores", "AUROC", "chance that a positive scores above a negative"
    ),
    "sauroc": Metric(
        metrics.sauroc,
        "all scores",
        "sAUROC",
        "AUROC of all positives against the group's negatives",
    ),
    "bpsn": Metric(
        metrics.bpsn,
        "all scores",
        "BPSN",
        "AUROC of the others' positives against the group's negatives",
    ),
    "average_precision": Metric(
        metrics.average_precision, "scores", "average precision", "precision over recall"
    ),
    "prevalence": Metric(
        metrics.prevalence,
        "scores",
        "prevalence",
        "positives among all images",
        higher_is_better=None,
    ),
    "sensitivity": Metric(
        metrics.sensitivity, "decisions", "sensitivity", "positives that are found"
    ),
    "specificity": Metric(
        metrics.specificity, "decisions", "specificity", "negatives that are let go"
    ),
    "ppv": Metric(metrics.ppv, "decisions", "PPV", "positives among those called positive"),
    "npv": Metric(metrics.npv, "decisions", "NPV", "negatives among those called negative"),
    "underdiagnosis": Metric(
        metrics.underdiagnosis,
        "decisions",
        "underdiagnosis",
        "the ill called healthy",
        higher_is_better=False,
    ),
    "overdiagnosis": Metric(
        metrics.overdiagnosis,
        "decisions",
        "overdiagnosis",
        "the healthy called ill",
        higher_is_better=False,
    ),
    "accuracy": Metric(metrics.accuracy, "decisions", "accuracy", "right calls"),
    "f1": Metric(metrics.f1, "decisions", "F1", "harmonic mean of PPV and sensitivity"),
    "positive_rate": Metric(
        metrics.positive_rate,
        "decisions",
        "called positive",
        "share called positive",
        higher_is_better=None,
    ),
    "missed_per_1000": Metric(
        metrics.missed_per_1000,
        "decisions",
        "missed per 1,000",
        "cases missed among 1,000 images",
        high=1000.0,
        higher_is_better=False,
    ),
    "tpr_at_fpr_0.05": Metric(
        metrics.sensitivity,
        "decisions",
        "TPR at FPR .05",
        "sensitivity where 5 % of negatives are called",
        rule="fpr@0.05",
    ),
    "fpr_at_tpr_0.95": Metric(
        metrics.fpr,
        "decisions",
        "FPR at TPR .95",
        "negatives called where 95 % of positives are found",
        rule="sens@0.95",
        higher_is_better=False,
    ),
}
"""Every metric by name: the one list from which tables, frames and reports are made."""


def metric_named(name: str) -> Metric:
    """Returns the line of METRICS; raises InputError for a name that is not there."""
    if name not in METRICS:
        raise InputError(
            f"There is no metric {name!r}; known are {', '.join(METRICS)}.{nearest(name, METRICS)}"
        )
    return METRICS[name]
