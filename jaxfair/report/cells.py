"""Numbers, names and p values as people read them."""

import numpy as np
import pandas as pd

from jaxfair.fairness.groups import OVERALL

__all__ = ["cells", "name", "number", "p_text", "with_interval"]


def name(attribute: str, group: str) -> str:
    """'sex: F', or 'all'."""
    return "all" if attribute == OVERALL else f"{attribute}: {group}"


def number(value: float, digits: int = 3) -> str:
    """A number for people; 'undefined' for NaN."""
    return "undefined" if pd.isna(value) else f"{value:.{digits}f}"


def p_text(p: float) -> str:
    """A p value for people; empty for NaN."""
    return "" if pd.isna(p) else "< .001" if p < 0.001 else f"{p:.3f}".lstrip("0")


def cells(
    table: pd.DataFrame,
    metric: str,
    *,
    interval: bool = False,
    digits: int = 3,
    missing: str = "undefined",
) -> list[str]:
    """A column as text, with [low, high] from `<metric>_ci_low` or `<metric>_low` if asked.

    The ends get as many digits as keep them apart, and a value whose interval is asked for and
    undefined says so.
    """
    found = []
    for _, row in table.iterrows():
        value = row.get(metric, np.nan)
        low = row.get(f"{metric}_low", row.get(f"{metric}_ci_low", np.nan))
        high = row.get(f"{metric}_high", row.get(f"{metric}_ci_high", np.nan))
        hidden = "too few" if row["too_few"] else missing
        text = with_interval(value, low, high, digits) if interval else number(value, digits)
        found.append(hidden if np.isnan(value) else text)
    return found


def with_interval(value: float, low: float, high: float, digits: int = 3) -> str:
    """'0.912 [0.871, 0.941]', or '0.912 [no interval]'; the ends never read the same."""
    if not np.isfinite([low, high]).all() or not low < high:
        return f"{number(value, digits)} [no interval]"
    while f"{low:.{digits}f}" == f"{high:.{digits}f}":
        digits += 1
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
