"""Who is asked when an attribute is read within a label value, and who could change places.

A cell is the rows of one label value (or of all): validation rows to fit on, test rows to score,
and the values of the attribute that have enough patients in both.
"""

import functools
import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.stats

from jaxfair.fairness.frame import MIN_LABEL, MIN_PATIENTS
from jaxfair.fairness.groups import group_labels
from jaxfair.schema import UNKNOWN

__all__ = [
    "ALL",
    "BASELINE",
    "COLUMNS",
    "GRID",
    "MEAN",
    "MODEL",
    "MOST_IMAGES",
    "NUMBERS",
    "PIXELS",
    "WITHIN",
    "Cell",
    "Question",
    "questions",
    "thinned",
]

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

COLUMNS = (
    "attribute", "value", "source", "run", "embedding", "probe", "task", "label", "auroc",
    "ci_low", "ci_high", "chance", "chance_95", "n", "n_images", "n_fitted", "why",
)  # fmt: skip
"""Of the table. `value` is empty in the row of a whole attribute: of two values the one against the
other, of more the mean over all. `label` is "0", "1", WITHIN (the mean of both) or ALL."""

NUMBERS = (
    "auroc", "ci_low", "ci_high", "chance", "chance_95", "n", "n_images", "n_fitted",
)  # fmt: skip
"""Those of COLUMNS that hold numbers."""

WITHIN, ALL = "within", "all"
"""The mean over both label values; the cell that holds every row, whatever its label."""
MODEL, BASELINE, PIXELS = "model", "baseline", "pixels"
"""What `source` may be."""
MEAN, GRID = "mean", "grid"
"""The embeddings of PIXELS: the mean intensity, and means over 8 parts of each axis."""

MOST_IMAGES = {"validation": 6_000, "test": 12_000}
"""How many images of each split are probed; `thinned` leaves out the others' patients."""


class Cell(NamedTuple):
    """Rows of one label value.

    Attributes:
      label: "0", "1" or ALL.
      kept: codes of the values that are asked, ascending; at least two, or none.
      fit, test: rows of the people that have these values.
      why: values that are not asked (with patients to fit and to score), or why nothing is asked;
        "" where all are.
    """

    label: str
    kept: Ints
    fit: Ints
    test: Ints
    why: str


class Question(NamedTuple):
    """An attribute asked within the values of one task, or of all rows.

    Attributes:
      task: "" for all rows.
      values: of the attribute, sorted.
      codes: (n,) place of each row's value, -1 unknown.
      patients: (n,) codes of patients, 0..n_patients-1.
      n_patients: how many there are.
      cells: label 0 and label 1, or ALL.
      draws: (r, b) codes of b blocks of test rows in r exchanges (`_exchanges`).
      block: (n,) the block of a row, -1 for none.
    """

    task: str
    values: tuple[str, ...]
    codes: Ints
    patients: Ints
    n_patients: int
    cells: tuple[Cell, ...]
    draws: npt.NDArray[np.int16]
    block: Ints

    def count(self, rows: Ints) -> int:
        """How many patients have these rows."""
        return len(np.unique(self.patients[rows]))

    def aurocs(self, cell: Cell, scores: npt.ArrayLike, value: int) -> Array:
        """Returns (r,) AUROCs of `scores` of the cell's test rows for a value, when exchanged.

        NaN for a draw in which everybody or nobody has the value.
        """
        block, size = self.block[cell.test], self.draws.shape[1]
        ranks = scipy.stats.rankdata(np.asarray(scores, dtype=float))
        sums = np.stack([np.bincount(block, w, minlength=size) for w in (ranks, 0 * ranks + 1)], 1)
        won, n = ((self.draws == value) @ sums).T
        rest = len(ranks) - n
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((won - n * (n + 1) / 2) / (n * rest))

    def exchanged(self, cell: Cell, rng: np.random.Generator) -> tuple[Ints, Ints]:
        """Returns codes of the cell's fit and test rows, exchanged among patients."""
        pairs = _pairs(self.patients[cell.fit], self.codes[cell.fit])
        fitted = rng.permutation(pairs.codes)[pairs.place]
        return fitted, self.draws[0, self.block[cell.test]].astype(np.int64)


def questions(
    people: pd.DataFrame, attribute: str, tasks: Sequence[str], *, seed: int, n_draws: int
) -> list[Question]:
    """Returns what is asked about an attribute: each task within its label values, then all.

    Args:
      people: see `leakage.leakage_table`.
    """
    names = group_labels(people, attribute)
    values = tuple(sorted(set(map(str, names)) - {UNKNOWN}))
    codes = np.array([values.index(v) if v in values else -1 for v in names], dtype=np.int64)
    patients, ids = pd.factorize(people["patient_id"])
    split = people["split"].to_numpy()
    test = split == "test"
    fit = (split == "validation") & ~np.isin(patients, patients[test])
    make = functools.partial(_cell, attribute, values, codes, patients, fit, test)
    asked: list[tuple[str, tuple[Cell, ...]]] = []
    for task in tasks:
        label = people[f"label_{task}"].to_numpy(dtype=float)
        asked.append((task, (make("0", label == 0), make("1", label == 1))))
    asked.append(("", (make(ALL, np.ones(len(people), dtype=bool)),)))
    found = []
    for place, (task, cells) in enumerate(asked):
        rng = np.random.default_rng([seed, place])
        draws, block = _exchanges(cells, patients, codes, n_draws, rng)
        found.append(Question(task, values, codes, patients, len(ids), cells, draws, block))
    return found


def _cell(
    attribute: str,
    values: tuple[str, ...],
    codes: Ints,
    patients: Ints,
    fit: Bools,
    test: Bools,
    label: str,
    inside: Bools,
) -> Cell:
    sides = [np.flatnonzero(side & inside) for side in (fit, test)]
    counts = np.array([[len(np.unique(patients[s][codes[s] == v])) for s in sides]
                       for v in range(len(values))]).reshape(-1, 2)  # fmt: skip
    there = counts.any(axis=1)
    kept = np.flatnonzero((counts >= MIN_LABEL).all(axis=1))
    few = [f"{values[v]} ({counts[v, 0]}, {counts[v, 1]})"
           for v in np.flatnonzero(there) if v not in kept]  # fmt: skip
    fitted, tested = (s[np.isin(codes[s], kept)] for s in sides)
    whole = len(np.unique(patients[tested]))
    why = f"too few patients: {', '.join(few)}" if few else ""
    if not there.any():
        kept, why = kept[:0], f"{attribute} is not known of anybody"
    elif there.sum() == 1:
        kept, why = kept[:0], f"everybody is {values[int(there.argmax())]}"
    elif len(kept) >= 2 and whole < MIN_PATIENTS:
        kept, why = kept[:0], f"too few patients to score: {whole}"
    if len(kept) < 2:
        nobody = kept[:0]
        return Cell(label, nobody, nobody, nobody, why)
    return Cell(label, kept, fitted, tested, why)


def thinned(people: pd.DataFrame, most: Mapping[str, int] = MOST_IMAGES) -> Ints:
    """Returns ascending places of the rows that are probed: whole patients, the first by hash.

    Args:
      people: `patient_id` and `split` of each row.
      most: split -> how many images at most (one patient is always kept).
    """
    kept = []
    for split, number in most.items():
        rows = np.flatnonzero(people["split"] == split)
        codes, ids = pd.factorize(people["patient_id"].to_numpy()[rows])
        hashes = [hashlib.sha256(f"leakage\0{name}".encode()).digest() for name in ids]
        order = sorted(range(len(ids)), key=hashes.__getitem__)
        images = np.bincount(codes, minlength=len(ids))[order].cumsum()
        fits = max(int((images <= number).sum()), 1)
        kept.append(rows[np.isin(codes, order[:fits])])
    return np.sort(np.concatenate(kept))


class _Pairs(NamedTuple):
    """Patients with their value: the codes of each pair, and the pair of each row."""

    codes: Ints
    place: Ints


def _pairs(patients: Ints, codes: Ints) -> _Pairs:
    base = int(codes.max(initial=0)) + 1
    keys, place = np.unique(patients * base + codes, return_inverse=True)
    return _Pairs(keys % base, place)


def _exchanges(
    cells: Sequence[Cell], patients: Ints, codes: Ints, n_draws: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.int16], Ints]:
    """Exchanges values among test patients who are in the same cells.

    A patient keeps one value for all images; where an attribute differs between the images of one
    patient, those of each value move together.

    Returns:
      (r, b) codes by draw and block, and (n,) the block of each row, -1 where it is in no cell.
    """
    rows = np.unique(np.concatenate([c.test for c in cells if len(c.kept)] or [np.arange(0)]))
    pairs = _pairs(patients[rows], codes[rows])
    block = np.full(len(codes), -1, dtype=np.int64)
    block[rows] = pairs.place
    pattern = np.zeros(len(pairs.codes), dtype=np.int64)
    for bit, cell in enumerate(c for c in cells if len(c.kept)):
        pattern[np.unique(block[cell.test])] += 1 << bit
    draws = np.tile(pairs.codes.astype(np.int16), (n_draws, 1))
    for kind in np.unique(pattern):
        places = np.flatnonzero(pattern == kind)
        draws[:, places] = rng.permuted(draws[:, places], axis=1)
    return draws, block
