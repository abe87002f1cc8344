"""Choice among models on validation rows: worst group, Pareto front, distance to the ideal.

The choice looks at private validation data; a report says so. The whole front is listed, and
no rule names one winner for all purposes.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from jaxfair.fairness import metrics
from jaxfair.fairness.agreement import check_images
from jaxfair.fairness.frame import GroupFrame
from jaxfair.fairness.predictions import checked

__all__ = ["candidates", "distance_to_ideal", "minimax", "pareto"]


def candidates(
    models: Mapping[str, tuple[pd.DataFrame, float | None]], attribute: str
) -> pd.DataFrame:
    """Returns overall and worst-group AUROC of each model on its validation rows.

    Args:
      models: predictions of one task and epsilon (None without DP), by name.
      attribute: whose groups count.

    Returns:
      Index model; columns overall, worst, worst_group, epsilon (infinite without DP).

    Raises:
      InputError: if two models' rows contradict each other.
    """
    check_images([checked(rows) for rows, _ in models.values()], list(models))
    rows = {}
    for name, (predictions, epsilon) in models.items():
        frame = GroupFrame(predictions, attribute, split="validation")
        group, worst = frame.worst(metrics.auroc)
        rows[name] = {
            "overall": frame.overall(metrics.auroc),
            "worst": worst,
            "worst_group": group,
            "epsilon": np.inf if epsilon is None else float(epsilon),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("model")


def minimax(table: pd.DataFrame) -> str:
    """Returns the model with the best worst group; ties go to the better overall, then name.

    '' if no model's worst group is defined.
    """
    known = table.dropna(subset=["worst"]).sort_index()
    if known.empty:
        return ""
    order = known.sort_values(["worst", "overall"], ascending=False, kind="stable")
    return str(order.index[0])


def pareto(table: pd.DataFrame) -> list[str]:
    """Returns the models that no other beats in one of overall, worst and -epsilon for free."""
    known = table.dropna(subset=["overall", "worst"])
    values = known[["overall", "worst"]].assign(private=-known["epsilon"]).to_numpy(dtype=float)
    front = []
    for i, name in enumerate(known.index):
        better = (values >= values[i]).all(axis=1) & (values > values[i]).any(axis=1)
        if not better.any():
            front.append(str(name))
    return front


def distance_to_ideal(table: pd.DataFrame) -> pd.Series:
    """Returns each model's distance to (best overall, best worst group), in AUROC.

    The ideal takes each column's best value (MEDFAIR's DTO); epsilon is no part of it, since a
    distance in epsilon has no unit in common with one in AUROC.
    """
    values = table[["overall", "worst"]]
    missing = values.max() - values
    return np.sqrt((missing**2).sum(axis=1, skipna=False))
