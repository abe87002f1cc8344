"""Anomaly scores brought to one scale for all groups, by the scores of normal validation images.

An anomaly detector may give a whole group higher scores, sick or not; one threshold then raises
more false alarms there. Here each group's scores go through the quantiles of its own normal images
to those of all: afterwards a normal image of any group stands as high. Within a group the order
stays, so its AUROC does; what changes are false alarms at one threshold, and sAUROC. Whoever uses
it has to know a patient's group at test time.

It is post-processing of a model that was released, and reads validation patients, whom the
guarantee of training does not cover (protocol P7): what is published of it is published of them.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from jaxfair import files
from jaxfair.errors import InputError
from jaxfair.fairness.groups import group_labels
from jaxfair.fairness.predictions import checked
from jaxfair.fairness.rules import MIN_CASES

__all__ = ["LEVELS", "fit_scales", "on_one_scale", "write_scales"]

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Quantiles of normal scores between which the map is a straight line."""

Array = npt.NDArray[np.float64]


def fit_scales(
    predictions: pd.DataFrame, attribute: str, *, min_cases: int = MIN_CASES
) -> dict[str, dict[str, Any]]:
    """Returns the quantiles of normal scores, of all and of each group, from validation rows alone.

    Args:
      predictions: rows as in docs/contracts.md (see `predictions.checked`).
      attribute: a column or an intersection.
      min_cases: normal rows below which a group keeps its scores (protocol S6).

    Returns:
      `{task: {"attribute", "all": [quantiles at LEVELS] or None, "groups": {group: {"quantiles":
      [...], "own": bool, "n": normal rows}}}}`; a group that is not `own` has the quantiles of
      all. None where there are too few normal rows in all, or they tie.
    """
    fitted = {}
    for task, rows in checked(predictions).groupby("task", sort=True):
        rows = rows[(rows["split"] == "validation") & (rows["y_true"] == 0)]
        labels = group_labels(rows, attribute) if len(rows) else np.array([])
        scores = rows["y_score"].to_numpy(float)
        pooled = _quantiles(scores, min_cases)
        groups = {}
        for group in sorted(set(labels)):
            inside = scores[labels == group]
            own = _quantiles(inside, min_cases)
            kept = own if own is not None and pooled is not None else pooled
            groups[group] = {"quantiles": kept, "own": kept is not pooled, "n": len(inside)}
        fitted[str(task)] = {"attribute": attribute, "all": pooled, "groups": groups}
    return fitted


def on_one_scale(
    predictions: pd.DataFrame, fitted: Mapping[str, Mapping[str, Any]]
) -> pd.DataFrame:
    """Returns the predictions with each `y_score` on the scale of all groups.

    Between the quantiles of a group the map is the line from its own to those of all, beyond them
    a shift; so it rises strictly. Rows of a group without quantiles of its own stay as they are.

    Args:
      predictions: rows of every split.
      fitted: of `fit_scales`.

    Raises:
      InputError: for a task that was not fitted.
    """
    checked(predictions)
    found = predictions.copy()
    scores = found["y_score"].to_numpy(float, copy=True)
    for task in found["task"].unique():
        if str(task) not in fitted:
            raise InputError(
                f"Scores of {task!r} have no scale; fitted are {', '.join(fitted) or 'none'}. "
                "Fit them with fit_scales on predictions that hold this task."
            )
        here = (found["task"] == task).to_numpy()
        told = fitted[str(task)]
        labels = group_labels(found[here], told["attribute"])
        part = scores[here]
        for group, known in told["groups"].items():
            if known["own"]:
                inside = labels == group
                part[inside] = _moved(part[inside], known["quantiles"], told["all"])
        scores[here] = part
    found["y_score"] = scores
    return found


def write_scales(
    predictions: pd.DataFrame,
    fitted: Mapping[str, Any],
    scales: pathlib.Path,
    calibrated: pathlib.Path,
) -> None:
    """Writes scales, and the predictions on them; removes older ones where nothing was fitted.

    Args:
      predictions: rows of every split.
      fitted: of `fit_scales`; {} for none.
      scales, calibrated: where they go, JSON and a table.
    """
    if fitted:
        files.write_json(scales, dict(fitted))
        files.write_table(calibrated, on_one_scale(predictions, fitted))
    else:
        scales.unlink(missing_ok=True)
        calibrated.unlink(missing_ok=True)


def _quantiles(scores: Array, min_cases: int) -> list[float] | None:
    """The quantiles at LEVELS; None of too few scores, and where two of them tie."""
    if len(scores) < max(min_cases, 2):
        return None
    found = np.quantile(scores, LEVELS)
    return None if np.any(np.diff(found) <= 0) else [float(value) for value in found]


def _moved(scores: Array, own: list[float], everybodys: list[float]) -> Array:
    inner = np.interp(scores, own, everybodys)
    beyond = np.minimum(scores - own[0], 0) + np.maximum(scores - own[-1], 0)
    return inner + beyond
