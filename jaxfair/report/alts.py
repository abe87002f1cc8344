"""What a figure shows, in words, for those who do not see it."""

import numpy as np
import pandas as pd

from jaxfair.fairness.groups import OVERALL
from jaxfair.report.cells import number
from jaxfair.report.statement import of_number

__all__ = ["epsilon_alt", "gap_alt", "heat_alt", "reliability_alt", "roc_alt", "scores_alt"]


def roc_alt(headline: pd.DataFrame, attribute: str) -> str:
    """Returns what the ROC curves show: from which group's AUROC to which."""
    return f"ROC curves by {attribute}. {_range(headline, attribute, 'auroc', 'AUROC')}"


def scores_alt(headline: pd.DataFrame, attribute: str) -> str:
    """Returns what the histograms show: how many abnormal images lie above the threshold."""
    told = _range(headline, attribute, "sensitivity", "Abnormal images above the threshold")
    return f"Scores of normal and abnormal images by {attribute}. {told}"


def heat_alt(headline: pd.DataFrame, attribute: str) -> str:
    """Returns what the heat map of an intersection shows."""
    told = _range(headline, attribute, "auroc", "AUROC")
    return f"AUROC of each cell of {attribute}. {told}"


def reliability_alt(calibration: pd.DataFrame) -> str:
    """Returns what the calibration curves show: the expected error of all, and the largest."""
    whole = calibration.loc[calibration["attribute"] == OVERALL, "ece"].iloc[0]
    groups = calibration[(calibration["attribute"] != OVERALL) & calibration["ece"].notna()]
    words = f"Calibration curves: observed share against probability. ECE of all {number(whole)}"
    if not len(groups):
        return words
    top = groups.iloc[int(groups["ece"].argmax())]
    return f"{words}, largest {top['attribute']}: {top['group']} {number(top['ece'])}"


def epsilon_alt(points: pd.DataFrame) -> str:
    """Returns what AUROC against epsilon shows, of everybody."""
    rows = points[points["attribute"] == OVERALL].groupby("epsilon")["value"].mean()
    told = ", ".join(f"{number(value)} {_at(float(str(e)))}" for e, value in rows.items())
    return f"AUROC against epsilon by group, bands 95 %. All: {told}"


def gap_alt(points: pd.DataFrame) -> str:
    """Returns what the gaps against epsilon show: the largest, and what chance alone gives."""
    known = points[points["value"].notna()]
    words = "Max-min gap of the AUROC against epsilon by attribute, dashed: 95 % of chance alone"
    if not len(known):
        return f"{words}. No gap is defined"
    top = known.iloc[int(known["value"].argmax())]
    return (
        f"{words}. Largest: {top['attribute']} {number(top['value'])} {_at(top['epsilon'])}, where"
        f" chance alone stays below {number(top['null_95'])}"
    )


def _at(epsilon: float) -> str:
    return "without privacy" if np.isinf(epsilon) else f"at epsilon {of_number(epsilon)}"


def _range(headline: pd.DataFrame, attribute: str, column: str, what: str) -> str:
    rows = headline[headline["attribute"] == attribute]
    rows = rows[rows[column].notna()] if column in rows else rows[:0]
    if not len(rows):
        return f"{what}: no group has enough patients"
    low, high = (rows.iloc[int(i)] for i in (rows[column].argmin(), rows[column].argmax()))
    if len(rows) == 1:
        return (
            f"{what}: {number(low[column])} ({low['group']}), the only group with enough patients"
        )
    return (
        f"{what} from {number(low[column])} ({low['group']}) to {number(high[column])}"
        f" ({high['group']})"
    )
