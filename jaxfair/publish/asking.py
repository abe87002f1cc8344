"""From predictions to noisy histograms: which questions a release asks, in public words.

Names, shapes and groups follow from the flags and the labels of the run; bins and the threshold
from answers about validation patients. No question, and no shape of one, follows from the rows.
"""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from jaxfair.errors import InputError
from jaxfair.fairness.edges import (
    believed,
    best_edges,
    first_ends,
    off_line,
    on_line,
    refined,
    youden_bin,
)
from jaxfair.fairness.groups import OVERALL, group_labels
from jaxfair.fairness.histogram import binned
from jaxfair.fairness.predictions import patient_codes
from jaxfair.privacy.histogram import Answers, People
from jaxfair.schema import AGE_GROUPS, SEXES, UNKNOWN, VIEWS

__all__ = [
    "Asked", "Histogram", "asked_of", "group_codes", "groups_of", "people_of", "question",
    "questions",
]  # fmt: skip

OTHER = "other or unknown"
VALUES: dict[str, tuple[str, ...]] = {"sex": SEXES, "age_group": AGE_GROUPS, "view": VIEWS}
_CROSS = " x "
_ROUNDS = ("range 1", "range 2", "scores")
_TESTED = "{task}: {attribute}, fading sums of bins"
"""What is asked of the test patients: B h of `privacy/strategy.py`, h the counts of each group."""
_CELLS, _MOST = 16, 64


@dataclasses.dataclass(frozen=True)
class Asked:
    """What a release is asked for; all of it is public.

    Attributes:
      epsilon: of this release.
      bins: of the score in every table.
      attributes: whose groups are told, each in a histogram of its own.
      values: attribute -> the values that are groups, for those beyond sex, age_group and view; a
        value that is not named, or not known, counts as 'other or unknown'.
      low, high: where scores may lie; those outside count at the ends.
      minimum: noisy patients that a group needs to be shown.
      budget: epsilon of all releases under the ledger; `epsilon` where it is left out.
      public_size: declared size from which delta follows; the run's where it is left out.

    Raises InputError for numbers that are out of range, attributes whose values nobody named, and
    values that are named twice or for nothing.
    """

    epsilon: float
    bins: int = 5
    attributes: tuple[str, ...] = ("sex", "age_group")
    values: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    low: float = 0.0
    high: float = 1.0
    minimum: float = 50.0
    budget: float | None = None
    public_size: int | None = None

    def __post_init__(self) -> None:
        if not 3 <= self.bins <= _MOST:
            raise InputError(f"release.bins is {self.bins}; give 3 to {_MOST}.")
        if not -np.inf < self.low < self.high < np.inf:
            raise InputError(
                f"release.range is {self.low} to {self.high}; give two ascending numbers that you "
                "know without looking at these scores."
            )
        if not 1 <= self.minimum < np.inf:
            raise InputError(
                f"release.minimum is {self.minimum}; give a number of patients, 1 or more."
            )
        if self.budget is not None and not 0 < self.budget < np.inf:
            raise InputError(f"release.budget is {self.budget}; it must be positive and finite.")
        if self.public_size is not None and self.public_size < 1:
            raise InputError(
                f"release.public_size is {self.public_size}; give the declared number of patients, "
                "1 or more."
            )
        if OVERALL in self.attributes:
            raise InputError(f"release.attributes has {OVERALL!r}, which every release has.")
        if not self.attributes or len(set(self.attributes)) < len(self.attributes):
            raise InputError(f"release.attributes is {self.attributes}; name each attribute once.")
        for name in self.attributes:
            groups_of(self, name)
        _check_values(self)


class Histogram(NamedTuple):
    """A noisy histogram of one label and attribute.

    Attributes:
      counts: (k, 2, b).
      noise: (b, b) covariance of the noise on the b counts of each group and label.
      groups: k names.
      edges: b - 1 inner edges of the bins.
      at: first bin that the threshold calls positive.
    """

    counts: npt.NDArray[np.float64]
    noise: npt.NDArray[np.float64]
    groups: tuple[str, ...]
    edges: npt.NDArray[np.float64]
    at: int


def groups_of(asked: Asked, attribute: str) -> tuple[str, ...]:
    """Returns the groups of an attribute, or of several joined by ' x '; the last is all others.

    Raises InputError for an attribute whose values are no constants and were not named, and for two
    groups of one name.

    >>> groups_of(Asked(1.0), "sex")
    ('F', 'M', 'other or unknown')
    """
    known = VALUES | dict(asked.values)
    parts = attribute.split(_CROSS)
    for name in parts:
        if name not in known:
            raise InputError(
                f"Which values of {name!r} are groups? They may not be read from the patients: "
                f"name them as --release.values={name}=VALUE|VALUE."
            )
    groups = (*map(_CROSS.join, itertools.product(*(known[name] for name in parts))), OTHER)
    twice = [group for group in groups if groups.count(group) > 1]
    if twice or len(set(parts)) < len(parts):
        raise InputError(
            f"The groups of {attribute!r} have {(twice or parts)[0]!r} twice: name each attribute "
            f"and each of its values once; {OTHER!r} is always the last group."
        )
    return groups


def group_codes(asked: Asked, predictions: pd.DataFrame, attribute: str) -> npt.NDArray[np.int64]:
    """Returns (n,) the place of each row's group among `groups_of`; who is in none is in the last.

    Raises InputError as `groups.group_labels`, where the rows have no such attribute.
    """
    groups = groups_of(asked, attribute)
    place = {name: number for number, name in enumerate(groups)}
    labels = group_labels(predictions, attribute)
    return np.array([place.get(name, len(groups) - 1) for name in labels], np.int64)


def people_of(predictions: pd.DataFrame) -> People:
    """Returns whose rows they are; all are validation or test rows."""
    return People(patient_codes(predictions)[0], (predictions["split"] == "test").to_numpy())


def questions(asked: Asked, tasks: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Returns the names of all questions, by the part of the patients that is asked.

    >>> questions(Asked(1.0, attributes=("sex",)), ("a",))["tests"]
    ('a: sex, fading sums of bins',)
    """
    return {
        "validation": tuple(f"{t}: {name}" for t in tasks for name in _ROUNDS),
        "tests": tuple(
            question(task, attribute) for task in tasks for attribute in asked.attributes
        ),
    }


def question(task: str, attribute: str) -> str:
    """Returns the name of what the test patients are asked of a label and an attribute."""
    return _TESTED.format(task=task, attribute=attribute)


def asked_of(
    answers: Answers, asked: Asked, predictions: pd.DataFrame, task: str
) -> dict[str, Histogram]:
    """Returns attribute -> noisy histogram of the test patients, for one label.

    Args:
      predictions: validation and test rows, checked.
    """
    about = (predictions["task"] == task).to_numpy()
    scores, label = (predictions[n].to_numpy(float) for n in ("y_score", "y_true"))
    edges, at = _edges(answers, asked, task, about, scores, label.astype(np.int64))
    found, bins = {}, len(edges) + 1
    for attribute in asked.attributes:
        groups, group = groups_of(asked, attribute), group_codes(asked, predictions, attribute)
        cell = (2 * group + label.astype(np.int64)) * bins + binned(scores, edges)
        size = 2 * len(groups) * bins
        counts = answers.ask("tests", question(task, attribute), about, cell, size, bins)
        shaped = counts.reshape(len(groups), 2, bins)
        found[attribute] = Histogram(shaped, answers.noise("tests", bins), groups, edges, at)
    return found


def _edges(
    answers: Answers,
    asked: Asked,
    task: str,
    about: npt.NDArray[np.bool_],
    scores: npt.NDArray[np.float64],
    label: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.float64], int]:
    """Bins and the threshold among their edges, from noisy counts of validation patients alone."""
    low, high, sd = asked.low, asked.high, answers.noise_sd("validation")
    places, ends = on_line(scores, low, high), first_ends(low, high, _CELLS)
    for name in _ROUNDS:
        cell = label * _CELLS + binned(places, ends[1:-1])
        counts = answers.ask("validation", f"{task}: {name}", about, cell, 2 * _CELLS, bins=1)
        cells = believed(counts.reshape(2, _CELLS), sd, ends)
        ends = refined(cells)
    inner = best_edges(cells, asked.bins)
    edges, first = np.unique(off_line(inner, low, high), return_index=True)
    return edges, youden_bin(cells, inner[first])


def _check_values(asked: Asked) -> None:
    """Refuses values of attributes that are not told, and those that can be no group."""
    parts = {name for attribute in asked.attributes for name in attribute.split(_CROSS)}
    for name, values in asked.values.items():
        if name not in parts:
            raise InputError(
                f"release.values names groups of {name!r}, and release.attributes are "
                f"{', '.join(asked.attributes)}: add it there, or leave its values out."
            )
        for value in values:
            if value.strip().lower() in ("", UNKNOWN):
                raise InputError(
                    f"release.values of {name!r} has {value!r}, which is no group of its own: who "
                    f"has none of the named values counts as {OTHER!r}; leave it out."
                )
