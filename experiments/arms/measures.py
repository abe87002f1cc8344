"""The measures of one run on one test set: what the published tables hold, beside their nulls.

Thresholds are fitted on the run's validation images, by each rule, one for all and one per group
(protocol S6); nothing is fitted on a test set. All are computed by `jaxfair.fairness`.
"""

import pathlib
from collections.abc import Iterator

import numpy as np
import pandas as pd

from experiments.arms.cells import Cell, Data
from experiments.arms.train import CORRELATED, INDEPENDENT, predictions_of, predictions_path
from jaxfair import files
from jaxfair.fairness.areas import auroc_levels
from jaxfair.fairness.gaps import max_min_gap
from jaxfair.fairness.groups import group_labels
from jaxfair.fairness.levels import Levels, Spread, spreads, with_null
from jaxfair.fairness.miscalibration import calibration_levels
from jaxfair.fairness.odds import decisions
from jaxfair.fairness.resamples import Resamples

__all__ = ["NAMES", "NO_RULE", "RULES", "measured", "measures_of"]

RULES = ("min_gap", "youden", "g_means", "fixed@0.5")
"""Rules of thresholds, those of FairREAD's table 3."""

NO_RULE = ""
"""The rule of a measure that no threshold is part of; tables show it beside every rule."""

NAMES = {
    "delta-AUC": "delta-AUC",
    "delta-EO, worst case": "delta-EO",
    "delta-EO, mean": "delta-EO, mean",
    "EOpp1 (TPR gap)": "EOpp1",
    "EOpp0 (TNR gap)": "EOpp0",
    "calibration: ECE, 15 bins": "calibration",
    "calibration: squared error, debiased": "calibration, debiased",
}
"""What the library calls a gap -> the measure's name in tables."""

_DRAWS, _PERMUTATIONS = 99, 99


def measures_of(folder: pathlib.Path, data: Data) -> pd.DataFrame:
    """Returns the measures of a run on every test set that it was scored on, and keeps them.

    Columns: those of the cell that the folder is named after, attribute, on, rule, per_group,
    measure, value, ci_low, ci_high, null_mean, null_95, p_value and smallest (the fewest positives
    of a group).
    """
    kept = folder / "measures.csv"
    if not kept.is_file():
        there = [w for w in (CORRELATED, INDEPENDENT) if predictions_path(folder, w).is_file()]
        found = []
        for on in there:
            rows = predictions_of(folder, on)
            rows = rows[rows["task"] == data.task]
            for name in data.attributes:
                found.append(measured(rows, name).assign(on=on, attribute=name))
        files.write_table(kept, pd.concat(found, ignore_index=True))
    table = pd.read_csv(kept, keep_default_na=False, na_values=[""])
    table["rule"] = table["rule"].fillna(NO_RULE)
    return table.assign(**Cell.named(folder.name)._asdict())


def measured(predictions: pd.DataFrame, attribute: str) -> pd.DataFrame:
    """Returns the measures of one task's predictions, a row for each, as `measures_of`."""
    resamples = Resamples(predictions, seed=0, n_draws=_DRAWS)
    rows = [*_ranked(resamples, attribute), *_calibrated(resamples, attribute)]
    for rule in RULES:
        for per_group in (False, True):
            levels = decisions(
                resamples,
                attribute,
                rule=rule,
                per_group=per_group,
                control="view",
                n_permutations=_PERMUTATIONS,
            ).levels
            mark = {"rule": rule, "per_group": per_group}
            rows.append({**_plain("accuracy", levels.overall), **mark, "smallest": levels.smallest})
            rows += [{**row, **mark} for row in _gaps(levels)]
    return pd.DataFrame(rows)


def _ranked(resamples: Resamples, attribute: str) -> Iterator[dict]:
    """AUROC and its gap, with the null of exchanged patients."""
    table = resamples.test.table
    groups = resamples.compared(attribute)
    levels = auroc_levels(resamples, attribute, groups)
    yield _plain("AUROC", levels.overall) | {"smallest": levels.smallest}
    labels = group_labels(table, attribute)
    kept = np.isin(labels, groups)
    gap = max_min_gap(
        table["y_true"][kept], table["y_score"][kept], labels[kept], table["patient_id"][kept],
        seed=0, n_replicates=_PERMUTATIONS,
    )  # fmt: skip
    for name, spread in spreads(levels).items():
        yield _gap(name, with_null(spread, gap), levels)


def _calibrated(resamples: Resamples, attribute: str) -> list[dict]:
    """The calibration's gaps; a score is taken for the probability that it is."""
    scores = resamples.test.table["y_score"].to_numpy()
    back = np.empty_like(scores)
    back[resamples.test.order] = scores
    levels = calibration_levels(resamples, attribute, back, n_permutations=_PERMUTATIONS)
    return list(_gaps(levels))


def _gaps(levels: Levels) -> Iterator[dict]:
    for name, spread in spreads(levels).items():
        yield _gap(name, spread, levels)


def _gap(name: str, spread: Spread, levels: Levels) -> dict:
    named = {k: getattr(spread, k) for k in ("value", "ci_low", "ci_high", "null_mean", "null_95",
                                            "p_value")}  # fmt: skip
    return {"measure": NAMES[name], "rule": NO_RULE, "per_group": False, **named,
            "smallest": levels.smallest}  # fmt: skip


def _plain(name: str, value: float) -> dict:
    nothing = dict.fromkeys(("ci_low", "ci_high", "null_mean", "null_95", "p_value"), np.nan)
    return {"measure": name, "rule": NO_RULE, "per_group": False, "value": value, **nothing}
