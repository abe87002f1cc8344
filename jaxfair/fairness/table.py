"""The table of every run: metrics by group with patient-level intervals (fairness.csv)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from jaxfair.fairness import metrics
from jaxfair.fairness.bootstrap import Replicate, TableBootstrap, percentile_interval
from jaxfair.fairness.catalog import METRICS, Metric
from jaxfair.fairness.delong import Estimate, logit_interval, mann_whitney_estimate
from jaxfair.fairness.groups import OVERALL, attribute_names, group_labels
from jaxfair.fairness.predictions import ATTRIBUTES, checked, patient_codes
from jaxfair.fairness.thresholds import RULES, fit_thresholds

__all__ = ["COLUMNS", "fairness_table", "fit_thresholds"]

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

_RANKED = {metrics.auroc: "auroc", metrics.sauroc: "sauroc", metrics.bpsn: "bpsn"}
"""Functions that compare two sides, with Obuchowski's logit-t interval; the rest by bootstrap."""

_RATES = {getattr(metrics, name): name for name in metrics.RATES}
"""Functions that follow from counts, which the bootstrap has for all groups at once."""

Array = npt.NDArray[np.float64]


def fairness_table(
    predictions: pd.DataFrame,
    *,
    thresholds: Mapping[str, Mapping[str, Any]] | None = None,
    attributes: Sequence[str] | None = None,
    seed: int = 0,
    n_bootstrap: int = 1000,
) -> pd.DataFrame:
    """Returns every metric of METRICS for every group on the test rows, one row each.

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
    attributes = attribute_names(attributes, table)
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
            ranked = dict(_ranked(test, inside))
            for metric in METRICS:
                if metric in ranked:
                    value, low, high = ranked[metric]
                else:
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
        others={name: metric for name, metric in METRICS.items() if _is_other(metric)},
    )


def _is_other(metric: Metric) -> bool:
    """True for a metric without a fast way, which is called on the rows of every draw."""
    fast = {*_RANKED, *_RATES, metrics.average_precision}
    return metric.function not in fast


def _bootstrapped(
    engine: TableBootstrap, n_bootstrap: int, seed: int
) -> tuple[list[dict[str, Array]], list[dict[str, Array]]]:
    points = [_values(replicate) for replicate in engine.point()]
    drawn: list[dict[str, list[Array]]] = [{name: [] for name in p} for p in points]
    for replicates in engine.replicates(n_bootstrap, seed):
        for store, replicate in zip(drawn, replicates, strict=True):
            for name, values in _values(replicate).items():
                store[name].append(values)
    bounds = [
        {name: _bounds(np.array(values)) for name, values in store.items()} for store in drawn
    ]
    return points, bounds


def _values(replicate: Replicate) -> dict[str, Array]:
    """Returns {metric: (groups,)} of all metrics that the bootstrap gives intervals to."""
    found = dict(replicate.others)
    for name, metric in METRICS.items():
        if metric.function is metrics.average_precision:
            found[name] = replicate.precision
        if metric.function in _RATES:
            row = RULES.index(metric.rule) if metric.needs == "decisions" else -1
            counts = metrics.Counts(*(part[row] for part in replicate.counts))
            found[name] = metrics.rate_from_counts(_RATES[metric.function], counts)
    return found


def _bounds(replicates: Array) -> Array:
    return np.array([percentile_interval(column) for column in replicates.T]).T


def _ranked(
    test: _Test, inside: npt.NDArray[np.bool_]
) -> Iterator[tuple[str, tuple[float, float, float]]]:
    positive, negative = test.y == 1, test.y == 0
    sides = {
        "auroc": (positive & inside, negative & inside),
        "sauroc": (positive, negative & inside),
        "bpsn": (positive & ~inside, negative & inside),
    }
    for name, metric in METRICS.items():
        if metric.function in _RANKED:
            estimate: Estimate = mann_whitney_estimate(
                test.score,
                *sides[_RANKED[metric.function]],
                test.patients,
                n_patients=test.n_patients,
            )
            yield name, (estimate.value, *logit_interval(estimate))


def _counts(test: _Test, inside: npt.NDArray[np.bool_]) -> tuple[int, int, int]:
    patients = len(np.unique(test.patients[inside]))
    return patients, int(inside.sum()), int(test.y[inside].sum())
