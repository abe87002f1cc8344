"""Choice among models on validation rows: worst group, Pareto front, distance to the ideal.

The choice looks at private validation data; a report says so. The whole front is listed, and
no rule names one winner for all purposes.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from jaxfair.fairness import metrics
from jaxfair.fairness.agreement import check_images
from jaxfair.fairness.frame import GroupFrame
from jaxfair.fairness.levels import Levels, overall_interval, spreads
from jaxfair.fairness.predictions import checked

__all__ = ["candidates", "distance_to_ideal", "front", "minimax", "pareto", "trade_off"]


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
    return [str(name) for name, best in zip(known.index, front(values), strict=True) if best]


def front(values: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Returns which of (n, d) points, larger is better, no other one beats for free, (n,).

    >>> front([[0.8, -0.1], [0.9, -0.2], [0.8, -0.3]]).tolist()
    [True, True, False]
    """
    points = np.asarray(values, dtype=float)
    beaten = [((points >= p).all(axis=1) & (points > p).any(axis=1)).any() for p in points]
    return ~np.array(beaten, dtype=bool)


def trade_off(
    utilities: Mapping[str, Levels], gaps: Mapping[str, Levels], gap: str
) -> pd.DataFrame:
    """Returns utility and gap of each model on its test rows, with intervals, and the front.

    It describes; to choose a model by it would be to choose by the test set.

    Args:
      utilities: levels whose `overall` is the utility: AUROC (areas.py) or accuracy (odds.py).
      gaps: levels of the same models.
      gap: key of GAPS of their kind.

    Returns:
      Index model; columns utility, utility_low, utility_high, gap, gap_low, gap_high, excess,
      on_front (of the values; an interval that holds another's value says how sure that is).
    """
    rows = {}
    for name, levels in utilities.items():
        low, high = overall_interval(levels)
        spread = spreads(gaps[name])[gap]
        rows[name] = (levels.overall, low, high, *spread[:3], spread.excess)
    names = ["utility", "utility_low", "utility_high", "gap", "gap_low", "gap_high", "excess"]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=names).rename_axis("model")
    known = table[["utility", "gap"]].notna().all(axis=1).to_numpy()
    best = np.zeros(len(table), dtype=bool)
    best[known] = front(table.loc[known, ["utility", "gap"]].to_numpy() * [1, -1])
    return table.assign(on_front=best)


def distance_to_ideal(table: pd.DataFrame) -> pd.Series:
    """Returns each model's distance to (best overall, best worst group), in AUROC.

    The ideal takes each column's best value (MEDFAIR's DTO); epsilon is no part of it, since a
    distance in epsilon has no unit in common with one in AUROC.
    """
    values = table[["overall", "worst"]]
    missing = values.max() - values
    return np.sqrt((missing**2).sum(axis=1, skipna=False))
