"""Names that more than one room reads or writes: columns, splits, groups, words of a statement.

Whoever needs one of them imports it from here; nothing here imports anything of jaxfair.
"""

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = [
    "AGE_EDGES",
    "AGE_GROUPS",
    "ATTRIBUTES",
    "CAUTION",
    "COLUMNS",
    "COUPLED",
    "COUPLING",
    "COUPLING_MITIGATION",
    "CROSSED",
    "INDEPENDENT",
    "INTERNAL_COLUMNS",
    "NOT_COVERED",
    "NOT_COVERED_IN_SHORT",
    "PHANTOM",
    "PHANTOM_MARKER",
    "PRECISIONS",
    "REAL",
    "SCORE_COLUMNS",
    "SEXES",
    "SPLITS",
    "THESIS_AGE_EDGES",
    "UNITS",
    "UNKNOWN",
    "VIEWS",
    "age_groups",
]

COLUMNS = ("image_id", "patient_id", "split", "sex", "age", "age_group", "view")
"""Columns of every manifest and of every table of predictions."""
SCORE_COLUMNS = ("task", "y_true", "y_score")
"""What predictions have beside those."""
INTERNAL_COLUMNS = (
    "also_test",
    "abnormal",
    "patient_abnormal",
    "source_split",
    "uncertain",
    "weight",
)
"""Columns of a manifest that group nobody; predictions leave them out, as all `label_<task>`."""

SPLITS = ("train", "validation", "test")
PRECISIONS = ("float32", "tf32", "bfloat16")
"""Formats to which the operands of a clipped sum may be rounded."""

UNITS = ("patient", "image", "lesion")
"""Who may be protected, and so what `patient_id` may name."""

PHANTOM, REAL = "phantom", "real"
"""What `data` may be, in a prepared set and in privacy.json: drawn by a program, or of patients."""
PHANTOM_MARKER = "phantom.json"
"""The file beside drawn images that says what they are; a folder without it holds patients."""
INDEPENDENT, COUPLED = "independent", "coupled"
"""How rows were selected: each patient by himself, or by a rule that counts patients."""
COUPLING: dict[str, str | bool] = {"split": "thesis", "curate": "counted", "keep_balanced": True}
"""Fields of the section data, and the values by which a selection is COUPLED (protocol P4)."""
COUPLING_MITIGATION: dict[str, str | bool] = {"counted": True}
"""The same of the section mitigation."""

UNKNOWN = "unknown"
"""The group of a missing value, never guessed and never dropped."""
SEXES = ("F", "M")
VIEWS = ("AP", "PA", "lateral")
ATTRIBUTES = ("sex", "age_group", "view")
CROSSED = "sex x age_group"
"""The intersection that every table of groups has."""

AGE_EDGES = (0, 18, 31, 46, 61, 76, 111)
"""Lower bounds in years of the age groups; the last one is where ages stop being believed."""
THESIS_AGE_EDGES = (0, 32, 61, 111)
"""Young (<= 31), middle, old (>= 61), as in the thesis that the anomaly detector comes from."""


def _names(edges: Sequence[int]) -> tuple[str, ...]:
    return tuple(f"{low}-{high - 1}" for low, high in itertools.pairwise(edges))


AGE_GROUPS = _names(AGE_EDGES)
"""'0-17', '18-30', '31-45', '46-60', '61-75', '76-110'."""


def age_groups(ages: npt.ArrayLike, edges: Sequence[int] = AGE_EDGES) -> npt.NDArray[np.object_]:
    """Returns the age group of each age; the edges are constants, never quantiles of the data.

    Args:
      ages: (n,) years; a fraction counts as the completed year, NaN as unknown.
      edges: ascending lower bounds; the last is the first age that is not believed.

    Returns:
      (n,) strings such as '18-30'; negative, impossible and missing ages are 'unknown'.

    >>> age_groups([0, 17.9, 18, 75, 110, 111, float("nan")]).tolist()
    ['0-17', '0-17', '18-30', '61-75', '76-110', 'unknown', 'unknown']
    """
    years = np.floor(np.asarray(ages, dtype=float))
    names = np.array([*_names(edges), UNKNOWN], dtype=object)
    bins = np.searchsorted(np.asarray(edges), years, side="right") - 1
    known = np.isfinite(years) & (bins >= 0) & (bins < len(edges) - 1)
    return names[np.where(known, bins, len(edges) - 1)]


CAUTION = "A research tool, not for diagnosis."
"""One line on whatever a trained model says of a patient."""

NOT_COVERED = [
    "validation and test patients: predictions, thresholds, tables, maps and the report",
    "data_card.json and rejected.csv, which are exact counts of all patients",
    "the choice of this config, if other runs on the same data were compared (see tuning)",
    "weights of a pretrained extractor, which are taken to be public",
]
"""What no guarantee of a training covers, as it stands in privacy.json."""
NOT_COVERED_IN_SHORT = (
    "validation and test patients, thresholds, tables and data_card are not covered"
)
"""The same for the first lines of a report."""
