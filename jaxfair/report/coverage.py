"""What the intervals of a report cover, in words."""

import pandas as pd

from jaxfair.fairness.table import NOMINAL, REALISED

__all__ = ["coverage_words"]

_RATES = {
    NOMINAL: (
        "Intervals of rates cover the nominal rate, that of the threshold which endless validation"
        " patients would give: thresholds are fitted again on resampled validation patients. The"
        " realised rate of this very threshold may lie elsewhere."
    ),
    REALISED: (
        "Intervals of rates cover the realised rate, that of this very threshold among all such"
        " patients; the chance in the threshold itself is no part of them."
    ),
}
_EDGES = (
    "Rates have exact (Clopper-Pearson) intervals at the number of images that the patients are"
    " worth. At an AUROC of exactly 0 or 1 no spread is left to measure: its interval is a bound,"
    " the values under which so many pairs of patients would all be in one order in 2.5 % at least."
    " Scores that all tie leave an AUROC undefined."
)


def coverage_words(fairness: pd.DataFrame) -> str:
    """Returns what the intervals of one task's table cover: realised or nominal rates.

    Args:
      fairness: the rows of fairness.csv; a table of an older version has no column `covers`.
    """
    told = set(fairness["covers"].dropna()) if "covers" in fairness else set()
    return " ".join([*(words for key, words in _RATES.items() if key in told), _EDGES])
