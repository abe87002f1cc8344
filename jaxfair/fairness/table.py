"""The table of every run: metrics by group with patient-level intervals (fairness.csv)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from jaxfair.fairness import metrics
from jaxfair.fairness.bootstrap import TableBootstrap, percentile_interval
from jaxfair.fairness.delong import Estimate, logit_interval, mann_whitney_estimate
from jaxfair.fairness.groups import OVERALL, group_labels
from jaxfair.fairness.predictions import ATTRIBUTES, checked, patient_codes
from jaxfair.fairness.thresholds import RULES, fit_thresholds

__all__ = ["COLUMNS", "METRICS", "fairness_table", "fit_thresholds"]

COLUMNS = (
    "task",
    "split",
    "attribute",
    "group",
    "metric",
    "value",
    "ci_low",
    "ci_high",
    "n",
    "n_images",
    "n_positive",
)

_RANKED = ("auroc", "sauroc", "bpsn")
_AT_RULE = {
    "sensitivity": ("youden", "sensitivity"),
    "specificity": ("youden", "specificity"),
    "ppv": ("youden", "ppv"),
    "npv": ("youden", "npv"),
    "underdiagnosis": ("youden", "underdiagnosis"),
    "overdiagnosis": ("youden", "overdiagnosis"),
    "accuracy": ("youden", "accuracy"),
    "f1": ("youden", "f1"),
    "positive_rate": ("youden", "positive_rate"),
    "missed_per_1000": ("youden", "missed_per_1000"),
    "tpr_at_fpr_0.05": ("fpr@0.05", "sensitivity"),
    "fpr_at_tpr_0.95": ("sens@0.95", "fpr"),
}
METRICS = (*_RANKED, "average_precision", "prevalence", *_AT_RULE)
"""The metrics of the table: ranked by Obuchowski's logit-t interval, the rest by bootstrap."""

Array = npt.NDArray[np.float64]


def fairness_table(
    predictions: pd.DataFrame,
    *,
    thresholds: Mapping[str, Mapping[str, Any]] | None = None,
    attributes: Sequence[str] | None = None,
    seed: int = 0,
    n_bootstrap: int = 1000,
) -> pd.DataFrame:
    """Returns every metric of every group on the test rows, one row each.

    Args:
      predictions: rows as in docs/contracts.md (see `predictions.checked`).
      thresholds: as `fit_thresholds` returns; None fits them on the validation rows. Without
        validation rows and thresholds, all metrics at a threshold are undefined.
      attributes: columns or intersections; None takes those of ATTRIBUTES that are there.
      seed: of the bootstrap.
      n_bootstrap: resamples of patients; validation patients are drawn and thresholds
        fitted again in each (protocol S6).

    Returns:
      COLUMNS, where n counts patients and n_positive images. Overall rows have attribute
      'overall' and group 'all'. Undefined values and bounds are NaN.

    Raises:
      InputError: if the table is refused or an attribute's column is missing.
    """
    table = checked(predictions)
    if attributes is None:
        attributes = [a for a in ATTRIBUTES if set(a.split(" x ")) <= set(table.columns)]
    stored = fit_thresholds(table) if thresholds is None else thresholds
    tasks = [
        _task_table(str(task), rows, [OVERALL, *attributes], stored, seed, n_bootstrap)
        for task, rows in table.groupby("task", sort=True)
        if (rows["split"] == "test").any()
    ]
    if not tasks:
        return pd.DataFrame(columns=list(COLUMNS))
    return pd.concat(tasks, ignore_index=True)


class _Test:
    """The test rows of one task as arrays, with the groups of every attribute."""

    def __init__(self, rows: pd.DataFrame, attributes: Sequence[str]) -> None:
        self.attributes = attributes
        self.y = rows["y_true"].to_numpy(dtype=float)
        self.score = rows["y_score"].to_numpy(dtype=float)
        self.patients, self.n_patients = patient_codes(rows)
        factors = [pd.factorize(group_labels(rows, name), sort=True) for name in attributes]
        self.codes = [codes.astype(np.int64) for codes, _ in factors]
        self.groups = [[str(name) for name in names] for _, names in factors]


def _task_table(
    task: str,
    rows: pd.DataFrame,
    attributes: Sequence[str],
    thresholds: Mapping[str, Mapping[str, Any]],
    seed: int,
    n_bootstrap: int,
) -> pd.DataFrame:
    test = _Test(rows[rows["split"] == "test"], attributes)
    engine = _engine(test, rows[rows["split"] == "validation"], thresholds.get(task, {}))
    points, bounds = _bootstrapped(engine, n_bootstrap, seed)
    records = []
    for index, attribute in enumerate(attributes):
        for g, group in enumerate(test.groups[index]):
            inside = test.codes[index] == g
            head = (task, "test", attribute, group)
            tail = _counts(test, inside)
            for metric, value, low, high in _ranked(test, inside):
                records.append((*head, metric, value, low, high, *tail))
            for metric in METRICS[len(_RANKED) :]:
                value = points[index][metric][g]
                low, high = bounds[index][metric][:, g]
                records.append((*head, metric, value, low, high, *tail))
    return pd.DataFrame(records, columns=list(COLUMNS))


def _engine(test: _Test, validation: pd.DataFrame, stored: Mapping[str, Any]) -> TableBootstrap:
    both = validation["y_true"].nunique() == 2
    rows = (
        validation["y_true"].to_numpy(dtype=float),
        validation["y_score"].to_numpy(dtype=float),
        patient_codes(validation)[0],
    )
    fixed = [np.nan if stored.get(rule) is None else float(stored[rule]) for rule in RULES]
    return TableBootstrap(
        test.y,
        test.score,
        test.patients,
        test.codes,
        rules=RULES,
        validation=rows if both else None,
        fixed=fixed,
    )


def _bootstrapped(
    engine: TableBootstrap, n_bootstrap: int, seed: int
) -> tuple[list[dict[str, Array]], list[dict[str, Array]]]:
    points = [_metrics(*parts) for parts in zip(*engine.point(), strict=True)]
    drawn: list[dict[str, list[Array]]] = [{name: [] for name in p} for p in points]
    for replicate in engine.replicates(n_bootstrap, seed):
        for store, parts in zip(drawn, zip(*replicate, strict=True), strict=True):
            for name, values in _metrics(*parts).items():
                store[name].append(values)
    bounds = [
        {name: _bounds(np.array(values)) for name, values in store.items()} for store in drawn
    ]
    return points, bounds


def _metrics(precision: Array, counts: metrics.Counts) -> dict[str, Array]:
    found = {"average_precision": precision}
    found["prevalence"] = metrics.rate_from_counts(
        "ppv", metrics.Counts(*(part[-1] for part in counts))
    )
    for name, (rule, rate) in _AT_RULE.items():
        at = metrics.Counts(*(part[RULES.index(rule)] for part in counts))
        found[name] = metrics.rate_from_counts(rate, at)
    return found


def _bounds(replicates: Array) -> Array:
    return np.array([percentile_interval(column) for column in replicates.T]).T


def _ranked(
    test: _Test, inside: npt.NDArray[np.bool_]
) -> Iterator[tuple[str, float, float, float]]:
    positive, negative = test.y == 1, test.y == 0
    sides = {
        "auroc": (positive & inside, negative & inside),
        "sauroc": (positive, negative & inside),
        "bpsn": (positive & ~inside, negative & inside),
    }
    for name in _RANKED:
        estimate: Estimate = mann_whitney_estimate(
            test.score, *sides[name], test.patients, n_patients=test.n_patients
        )
        yield name, estimate.value, *logit_interval(estimate)


def _counts(test: _Test, inside: npt.NDArray[np.bool_]) -> tuple[int, int, int]:
    patients = len(np.unique(test.patients[inside]))
    return patients, int(inside.sum()), int(test.y[inside].sum())
