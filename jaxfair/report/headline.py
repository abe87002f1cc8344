"""The headline table, the first of every report: one row per group."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from jaxfair.fairness.catalog import METRICS
from jaxfair.fairness.groups import natural
from jaxfair.report.cells import Cell, Quiet, Word, cells, name, p_text
from jaxfair.report.verdict import TITLES, harm

__all__ = ["SHOWN", "headline_table", "shown_headline"]

SHOWN = {
    "prevalence": False,
    "auroc": True,
    "sensitivity": True,
    "specificity": True,
    "missed_per_1000": True,
    "ppv": True,
}
"""The metrics that readers see first, and whether with their interval; the file has them all."""

_KEYS = ["attribute", "group"]
_COUNTS = ["n", "n_images", "n_positive"]


def headline_table(
    fairness: pd.DataFrame,
    contrasts: pd.DataFrame,
    calibration: pd.DataFrame,
    small: Mapping[str, Sequence[str]],
) -> pd.DataFrame:
    """Returns one row per group, all metrics as columns, values of too small groups left out.

    Groups stand in natural order within their attribute.

    Args:
      fairness: the rows of fairness.csv of one task.
      contrasts: each group against the rest (fairness.contrasts).
      calibration: columns attribute, group, ece.
      small: the groups of each attribute with too few patients.
    """
    counts = fairness.drop_duplicates(_KEYS).set_index(_KEYS)[_COUNTS]
    wide = fairness.set_index([*_KEYS, "metric"])[["value", "ci_low", "ci_high"]].unstack("metric")
    ends = {"value": "", "ci_low": "_low", "ci_high": "_high"}
    wide = wide.set_axis([f"{key[1]}{ends[key[0]]}" for key in wide.columns.tolist()], axis=1)
    table = counts.join(wide).reset_index()
    ranked = contrasts[contrasts["statistic"] == "auroc"]
    kept = ranked[[*_KEYS, "difference", "p_corrected"]]
    bounds = ranked[["ci_low", "ci_high"]].add_prefix("difference_")
    table = table.merge(kept.join(bounds), on=_KEYS, how="left")
    table = table.merge(_harms(contrasts), on=_KEYS, how="left")
    table = table.merge(calibration[[*_KEYS, "ece"]], on=_KEYS, how="left")
    table = _in_order(table)
    hidden = [group in small.get(attribute, ()) for attribute, group in table[_KEYS].to_numpy()]
    values = [c for c in table.columns if c not in (*_KEYS, *_COUNTS, "flagged", "worse")]
    table.loc[hidden, values] = np.nan
    worse = table["worse"].fillna("")
    return table.assign(flagged=worse != "", worse=worse, too_few=hidden)


def _in_order(table: pd.DataFrame) -> pd.DataFrame:
    attributes = list(dict.fromkeys(table["attribute"]))
    keys = [(attributes.index(a), natural(str(g))) for a, g in table[_KEYS].to_numpy()]
    return table.iloc[sorted(range(len(keys)), key=keys.__getitem__)].reset_index(drop=True)


def shown_headline(table: pd.DataFrame) -> pd.DataFrame:
    """Returns the headline table as cells."""
    columns = {
        "group": [name(a, g) for a, g in table[_KEYS].to_numpy()],
        "patients": table["n"],
        "positives": table["n_positive"],
    }
    for key, interval in SHOWN.items():
        digits = 3 if METRICS[key].high <= 1 else 0
        columns[_title(key)] = cells(table, key, interval=interval, digits=digits)
    return pd.DataFrame(
        {
            **columns,
            "ECE": cells(table, "ece"),
            "AUROC minus rest": cells(table, "difference", interval=True, missing=""),
            "p, corrected": [p_text(p) for p in table["p_corrected"]],
            "note": _notes(table),
        }
    )


def _title(key: str) -> str:
    return f"{METRICS[key].title} [95 %]" if key == "auroc" else METRICS[key].title


def _harms(contrasts: pd.DataFrame) -> pd.DataFrame:
    """Columns attribute, group, worse: what is worse for the group, in the order of harm."""
    order = list(TITLES)
    rows = contrasts[contrasts["flagged"].astype(bool)]
    rows = rows.sort_values("statistic", key=lambda names: names.map(order.index), kind="stable")
    words = [harm(row) for _, row in rows.iterrows()]
    rows = rows[_KEYS].assign(worse=np.array(words, dtype=object))
    return rows.groupby(_KEYS)["worse"].agg(", ".join).reset_index()


def _notes(table: pd.DataFrame) -> list[Cell]:
    rows = zip(table["too_few"], table["worse"], strict=True)
    return [Quiet("too few") if small else Word(words, words != "") for small, words in rows]
