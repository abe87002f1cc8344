"""A disparity made larger on purpose: which images of a table stay, by label and group.

Fairness is studied where groups differ. FCRO (arXiv 2301.01481) and FairREAD (arXiv 2412.16373)
therefore drop images of CheXpert until a finding is more frequent in some groups than in others by
a chosen gap; neither publishes how. Here are two rules, both seeded by a public salt:

- "public": an image stays with a public probability of its own label and groups. Nobody decides
  over anybody else (protocol P4, P15), and the gap comes out about right.
- "counted": images leave until each attribute's gap is reached. Rates are counted for it, so a run
  is `selection: coupled`: its guarantee is for the selected table only.

FairREAD's groups are sex, race (white or not) and age (60 and over; age groups here part at 61),
its gaps .16 (cardiomegaly, effusion) and .10 (pneumonia, fracture), and it dropped test images too.
By default neither rule touches the test set, so that scores are of the distribution that there is.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from jaxfair.data.checks import as_tuples, check_choice, check_rules
from jaxfair.data.hashing import hash_fractions
from jaxfair.errors import InputError
from jaxfair.schema import COUPLED, COUPLING, INDEPENDENT, SPLITS, UNKNOWN

__all__ = ["CurationConfig", "curated", "keep_for_gap", "positive_rates"]

RULES = ("", "public", "counted")
SPARE = 4.0
"""Images by which the search aims beyond a gap, which whole images would else just miss."""
REST, TOWARD, NEITHER = 0, 1, -1
"""Sides of an attribute; NEITHER where the group is not known, which moves nothing."""


@dataclasses.dataclass(frozen=True)
class CurationConfig:
    """Which images stay, so that a label becomes more frequent in some groups than in others.

    Attributes:
      curate: "" keeps all; "public" keeps each image with a public probability; "counted" drops
        images until every gap is `curate_gap`, which counts patients (`selection: coupled`).
      curate_label: the label whose positive rates are moved.
      curate_toward: attribute -> those of its values in which the label becomes more frequent;
        all its other known values are the rest.
      curate_keep: of "public": attribute -> probability with which a negative of `curate_toward`,
        and a positive of the rest, stays; several attributes multiply. `keep_for_gap` finds it.
      curate_gap: of "counted": the positive rate in `curate_toward` less that in the rest.
      curate_splits: the splits in which images are dropped.
      curate_salt: public constant of the hash that says which images go first.

    Raises InputError for a value outside these.
    """

    curate: str = ""
    curate_label: str = ""
    curate_toward: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    curate_keep: Mapping[str, float] = dataclasses.field(default_factory=dict)
    curate_gap: float = 0.16
    curate_splits: tuple[str, ...] = ("train", "validation")
    curate_salt: str = "jaxfair-curation-1"

    @property
    def selection(self) -> str:
        """INDEPENDENT, or COUPLED where the rule counts patients (protocol P4)."""
        return COUPLED if self.curate == COUPLING["curate"] else INDEPENDENT

    @property
    def rule(self) -> dict[str, Any]:
        """What decides, for the data card and the digest; {} where nothing is dropped."""
        if not self.curate:
            return {}
        fields = dataclasses.asdict(self)
        del fields["curate_keep" if self.curate == "counted" else "curate_gap"]
        return {name: list(v) if isinstance(v, tuple) else v for name, v in fields.items()}

    def __post_init__(self) -> None:
        as_tuples(self, "curate_splits")
        check_rules(self, (
            (_is_mapping(self.curate_toward, str, tuple, list), "curate_toward",
             "attribute -> some of its values"),
            (_is_mapping(self.curate_keep, int, float), "curate_keep", "attribute -> probability"),
        ))  # fmt: skip
        toward = {n: (v,) if isinstance(v, str) else tuple(v) for n, v in
                  self.curate_toward.items()}  # fmt: skip
        object.__setattr__(self, "curate_toward", toward)
        object.__setattr__(self, "curate_keep", dict(self.curate_keep))
        check_choice(self, "curate", RULES)
        named, public = bool(self.curate), self.curate == "public"
        shares = [q for q in self.curate_keep.values() if not 0 < q <= 1]
        check_rules(self, (
            (not named or bool(self.curate_label), "curate_label", "one of the labels"),
            (not named or (bool(toward) and all(toward.values())), "curate_toward",
             "attribute -> at least one of its values"),
            (not public or self.curate_keep.keys() == toward.keys(), "curate_keep",
             "one probability for each attribute of data.curate_toward"),
            (not shares, "curate_keep", "above 0 and at most 1"),
            (0 < self.curate_gap < 1, "curate_gap", "above 0 and below 1"),
            (bool(self.curate_splits) and {*self.curate_splits} <= {*SPLITS}, "curate_splits",
             f"some of {', '.join(SPLITS)}"),
        ))  # fmt: skip


def _is_mapping(value: Any, *kinds: type) -> bool:
    return isinstance(value, Mapping) and all(isinstance(v, kinds) for v in value.values())


def keep_for_gap(toward: float, rest: float, gap: float) -> float:
    """The probability of `curate_keep` by which one attribute's gap becomes `gap` on average.

    Dropping negatives on one side and positives on the other multiplies the odds by 1 / keep and
    by keep. Several attributes that run together move each other's gap beyond that.

    Args:
      toward, rest: positive rates of both sides as they are known in public, within (0, 1).
      gap: wanted, below 1.

    Returns:
      The probability; 1.0 where the gap is as large already.

    Raises:
      InputError: a rate or the gap is not within (0, 1).

    >>> round(keep_for_gap(0.2, 0.2, 0.16), 3)
    0.607
    """
    for name, value in (("toward", toward), ("rest", rest), ("gap", gap)):
        if not 0 < value < 1:
            raise InputError(f"{name} is {value}; it must be above 0 and below 1.")

    def reached(keep: float) -> float:
        high, low = toward / (1 - toward) / keep, rest / (1 - rest) * keep
        return high / (1 + high) - low / (1 + low)

    low, high = 0.0, 1.0
    if reached(high) >= gap:
        return 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if reached(middle) >= gap else (low, middle)
    return low


def curated(table: pd.DataFrame, split: np.ndarray, how: CurationConfig) -> np.ndarray:
    """Takes the split from images that the rule drops.

    Guarantee of "public": whether an image stays follows from its own id, label and groups and
    from public constants, so one unit more or less changes nobody else's place (protocol P15),
    whether units are patients or images.

    Args:
      table: n rows with image_id, `label_<curate_label>` and the attributes of `curate_toward`.
      split: (n,) "train", "validation", "test" or "".
      how: the rule.

    Returns:
      (n,) the same with "" for images that go. Images whose label was not asked stay.

    Raises:
      InputError: under "counted", the gap cannot be reached with the images that there are.
    """
    if not how.curate:
        return split
    inside = np.flatnonzero(np.isin(split, how.curate_splits))
    rows = table.iloc[inside]
    label = rows[f"label_{how.curate_label}"].to_numpy(float)
    place = hash_fractions(how.curate_salt, rows["image_id"])
    sides = _sides(rows, how)
    stays = np.ones(len(rows), bool)
    if how.curate == "public":
        keep = [how.curate_keep[attribute] for attribute in how.curate_toward]
        stays = place < _probabilities(label, sides, keep)
    else:
        asked = ~np.isnan(label)
        stays[asked] = _counted(label[asked], sides[asked], place[asked], how)
    split = split.copy()
    split[inside[~stays]] = ""
    return split


def positive_rates(table: pd.DataFrame, how: CurationConfig) -> list[dict[str, Any]]:
    """The rates that a rule moves, for the data card: a line for each split and attribute.

    Args:
      table: as of `curated`, with the column split.
      how: the rule.

    Returns:
      Dicts with split, attribute, toward and rest (positive rates), gap, images (with a label);
      None for what is undefined.
    """
    lines, all_sides = [], _sides(table, how)
    label = table[f"label_{how.curate_label}"].to_numpy(float)
    for name in SPLITS:
        inside = (table["split"] == name).to_numpy() & ~np.isnan(label)
        for column, attribute in enumerate(how.curate_toward):
            side = all_sides[inside, column]
            high, low = (_mean(label[inside][side == s]) for s in (TOWARD, REST))
            known = high is not None and low is not None
            rates = {"toward": high, "rest": low, "gap": high - low if known else None}
            line = {"split": name, "attribute": attribute, "images": int(inside.sum())}
            lines.append(line | rates)
    return lines


def _mean(values: np.ndarray) -> Any:
    return float(values.mean()) if len(values) else None


def _sides(rows: pd.DataFrame, how: CurationConfig) -> np.ndarray:
    """(n, k) the side of each image in each attribute."""
    found = np.full((len(rows), len(how.curate_toward)), NEITHER, np.int8)
    for column, (attribute, values) in enumerate(how.curate_toward.items()):
        group = rows[attribute]
        known = (group != UNKNOWN).to_numpy()
        found[known, column] = group.isin(values).to_numpy()[known]
    return found


def _probabilities(label: np.ndarray, sides: np.ndarray, keep: list[float]) -> np.ndarray:
    """(n,) with which each image stays: against the disparity with `keep`, along it always."""
    against = ((label == 0)[:, None] & (sides == TOWARD)) | (
        (label == 1)[:, None] & (sides == REST)
    )
    return np.where(against, keep, 1.0).prod(axis=1)


def _counted(
    label: np.ndarray, sides: np.ndarray, place: np.ndarray, how: CurationConfig
) -> np.ndarray:
    """Whether each image stays: those of a cell of label and groups go by descending `place`."""
    cells, cell = np.unique(np.column_stack([label, sides]), axis=0, return_inverse=True)
    cell = cell.ravel()
    left = _counts_with_gap(np.bincount(cell, minlength=len(cells)), cells, how)
    order = np.lexsort((place, cell))
    first = np.searchsorted(cell[order], np.arange(len(cells)))
    stays = np.empty(len(label), bool)
    stays[order] = np.arange(len(label)) - first[cell[order]] < left[cell[order]]
    return stays


def _counts_with_gap(count: np.ndarray, cells: np.ndarray, how: CurationConfig) -> np.ndarray:
    """Takes images from the cell where it helps all gaps most, until each is reached."""
    while True:
        reached = _gaps(count[None], cells)[0]
        short = how.curate_gap - np.where(np.isnan(reached), -1.0, reached)
        if (short <= 0).all():
            return count
        step = max(1, int(0.02 * short.max() * count.sum()))
        better = _best_drop(count, cells, step, reached, how.curate_gap)
        if better is None:
            names = ", ".join(how.curate_toward)
            raise InputError(
                f"data.curate_gap {how.curate_gap} cannot be reached in {names} by dropping images "
                f"by {how.curate_label!r}: both sides need images with and without it; lower the "
                "gap, or name other values in data.curate_toward."
            )
        count = better


def _best_drop(
    count: np.ndarray, cells: np.ndarray, step: int, reached: np.ndarray, gap: float
) -> np.ndarray | None:
    """The counts after `step` images of the best cell went; None where that helps no gap.

    Best is the smallest sum of squared distances to the gap, and a little beyond it: where one
    attribute is there already, a drop that takes little from it and helps another still counts.
    """
    trials = np.maximum(count - step * np.eye(len(cells), dtype=int), 0)
    goal = gap + SPARE / count.sum()
    wanting = lambda gaps: (np.maximum(goal - gaps, 0) ** 2).sum(axis=-1)
    left = np.nan_to_num(wanting(_gaps(trials, cells)), nan=np.inf)
    left = np.where(count == 0, np.inf, left)
    best = int(left.argmin())
    return trials[best] if left[best] < wanting(reached) else None


def _gaps(count: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """(t, c) counts by cell -> (t, k) difference of the positive rates of both sides."""
    positive, gaps = cells[:, 0] == 1, []
    for side in cells[:, 1:].T:
        with np.errstate(invalid="ignore"):
            high, low = (
                count[:, (side == s) & positive].sum(axis=1) / count[:, side == s].sum(axis=1)
                for s in (TOWARD, REST)
            )
        gaps.append(high - low)
    return np.stack(gaps, axis=1)
