"""The table of every run: metrics by group with patient-level intervals (fairness.csv)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from jaxfair.fairness import metrics
from jaxfair.fairness.bootstrap import Replicate, TableBootstrap, percentile_interval
from jaxfair.fairness.catalog import METRICS, Metric
from jaxfair.fairness.delong import logit_interval, mann_whitney_estimate
from jaxfair.fairness.groups import OVERALL, attribute_names, group_labels
from jaxfair.fairness.influence import Estimate
from jaxfair.fairness.predictions import ATTRIBUTES, checked, patient_codes
from jaxfair.fairness.rates import rate_estimate
from jaxfair.fairness.thresholds import RULES, fit_thresholds

__all__ = ["COLUMNS", "NOMINAL", "REALISED", "fairness_table", "fit_thresholds"]

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
    "covers",
)

NOMINAL, REALISED = "nominal", "realised"
"""What the interval of a rate at a threshold covers (protocol S16). Nominal: the rate at the
threshold that endless validation patients would give; so it holds the chance in the threshold.
Realised: the rate that this very threshold has among all patients."""

_RANKED = {metrics.auroc: "auroc", metrics.sauroc: "sauroc", metrics.bpsn: "bpsn"}
"""Functions that compare two sides, with Obuchowski's logit-t interval; the rest by bootstrap."""

_RATES = {getattr(metrics, name): name for name in metrics.RATES}
"""Functions that are shares of counts, with exact intervals (rates.py)."""

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
      'overall' and group 'all'. Undefined values and bounds are NaN, and no interval is without
      width. `covers` is NOMINAL or REALISED for metrics at a threshold, and '' for others.

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
    stored = thresholds.get(task, {})
    fixed = [np.nan if stored.get(rule) is None else float(stored[rule]) for rule in RULES]
    engine = _engine(test, rows[rows["split"] == "validation"], fixed)
    points, bounds, drawn = _bootstrapped(engine, n_bootstrap, seed)
    at_threshold = REALISED if drawn is None else NOMINAL
    records = []
    for index, attribute in enumerate(attributes):
        for g, group in enumerate(test.groups[index]):
            inside = test.codes[index] == g
            head = (task, "test", attribute, group)
            tail = _counts(test, inside)
            known = {**dict(_ranked(test, inside)), **dict(_rates(test, inside, fixed, drawn))}
            for name, metric in METRICS.items():
                if name not in known:
                    known[name] = (points[index][name][g], *bounds[index][name][:, g])
                covers = at_threshold if metric.needs == "decisions" else ""
                records.append((*head, name, *known[name], *tail, covers))
    return pd.DataFrame(records, columns=list(COLUMNS))


def _engine(test: _Test, validation: pd.DataFrame, fixed: Sequence[float]) -> TableBootstrap:
    both = validation["y_true"].nunique() == 2
    rows = (
        validation["y_true"].to_numpy(dtype=float),
        validation["y_score"].to_numpy(dtype=float),
        patient_codes(validation)[0],
    )
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
) -> tuple[list[dict[str, Array]], list[dict[str, Array]], Array | None]:
    """Values and bounds of the metrics that are resampled, and (draws, rules) of thresholds."""
    points = [_values(replicate) for replicate in engine.point()]
    drawn: list[dict[str, list[Array]]] = [{name: [] for name in p} for p in points]
    fitted = []
    for replicates, thresholds in engine.replicates(n_bootstrap, seed):
        fitted.append(thresholds)
        for store, replicate in zip(drawn, replicates, strict=True):
            for name, values in _values(replicate).items():
                store[name].append(values)
    bounds = [
        {name: _bounds(np.array(values)) for name, values in store.items()} for store in drawn
    ]
    return points, bounds, np.array(fitted) if engine.refits else None


def _values(replicate: Replicate) -> dict[str, Array]:
    """Returns {metric: (groups,)} of all metrics whose intervals are resampled."""
    precise = [n for n, m in METRICS.items() if m.function is metrics.average_precision]
    return {**replicate.others, **dict.fromkeys(precise, replicate.precision)}


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
            # Scores that all tie rank nobody: one half would be read as a result.
            tied = np.isnan(estimate.variance) and estimate.parts.any(axis=0).sum() == 0
            value = float("nan") if tied and estimate.value == 0.5 else estimate.value
            yield name, (value, *logit_interval(estimate))


def _rates(
    test: _Test, inside: npt.NDArray[np.bool_], fixed: Sequence[float], drawn: Array | None
) -> Iterator[tuple[str, tuple[float, float, float]]]:
    """Every share of counts with its exact interval, at thresholds by rule and their draws."""
    y, score, patients = test.y[inside], test.score[inside], test.patients[inside]
    for name, metric in METRICS.items():
        if metric.function not in _RATES:
            continue
        rate, at, draws = _RATES[metric.function], -np.inf, None
        if metric.needs == "decisions":
            rule = RULES.index(metric.rule)
            at, draws = fixed[rule], None if drawn is None else drawn[:, rule]
        if np.isnan(at):
            yield name, (np.nan, np.nan, np.nan)
            continue
        kind = 2 * (y == 0) + (score < at)  # true and false of the called, then of the others
        above, below = metrics.RATES[rate](metrics.Counts(*np.eye(4)))
        spread = 0.0 if draws is None else _variance_over(rate, y, score, draws) / metric.high**2
        found = rate_estimate(
            (above / metric.high)[kind], below[kind], patients, threshold_variance=spread
        )
        yield name, (found.value * metric.high, found.low * metric.high, found.high * metric.high)


def _variance_over(rate: str, y: Array, score: Array, thresholds: Array) -> float:
    """Variance of a rate of these rows over thresholds; NaN if a tenth of them is undefined."""
    called = [
        (y == label).sum() - np.searchsorted(np.sort(score[y == label]), thresholds)
        for label in (1, 0)
    ]
    counts = metrics.Counts(
        called[0], (y == 1).sum() - called[0], called[1], (y == 0).sum() - called[1]
    )
    values = metrics.rate_from_counts(rate, counts)
    values[np.isnan(thresholds)] = np.nan
    defined = values[np.isfinite(values)]
    return float(defined.var()) if len(defined) >= 0.9 * len(values) else float("nan")


def _counts(test: _Test, inside: npt.NDArray[np.bool_]) -> tuple[int, int, int]:
    patients = len(np.unique(test.patients[inside]))
    return patients, int(inside.sum()), int(test.y[inside].sum())
