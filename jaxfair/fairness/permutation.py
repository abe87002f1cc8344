"""Patients exchanging groups: what gaps look like where groups make no difference.

Only patients who are alike in their labels (and in a control column) change places, so a
difference in prevalence stays a difference in prevalence (protocol S1).
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from jaxfair.fairness.values import checked_classes

__all__ = [
    "Switches",
    "can_change",
    "exchangeable",
    "own_groups",
    "patient_strata",
    "permuted_groups",
]

Ints = npt.NDArray[np.int64]


def own_groups(codes: Ints, patients: Ints) -> Ints | None:
    """Returns each patient's group, or None if some patient is in several.

    Args:
      codes: (n,) group codes of the rows.
      patients: (n,) patient codes 0..p-1 of the rows.
    """
    own = np.zeros(int(patients.max()) + 1, dtype=np.int64)
    own[patients] = codes
    return own if (own[patients] == codes).all() else None


def patient_strata(
    y_true: npt.NDArray[np.float64], patients: Ints, control: Ints | None = None
) -> Ints:
    """Returns (p,) codes of who may change places: same labels, same values of `control`.

    A patient with images of both labels, or both views, is alike only with another such.
    """
    n, y_true = int(patients.max()) + 1, checked_classes(y_true)
    marks = [np.bincount(patients[y_true == label], minlength=n) > 0 for label in (0, 1)]
    for value in [] if control is None else np.unique(control):
        marks.append(np.bincount(patients[control == value], minlength=n) > 0)
    return np.unique(np.stack(marks), axis=1, return_inverse=True)[1].astype(np.int64)


def can_change(one: Ints, other: Ints, share: float = 0.1) -> bool:
    """Returns True if a permutation moves at least this share of the smaller side to the other.

    Where (almost) nobody finds his like on the other side, a permutation changes nothing, and
    its p value of 1 would say "no difference" of what cannot be compared (protocol S12). Of a
    and b patients in a stratum, a b / (a + b) of either side are expected to change.

    Args:
      one, other: strata of the patients on either side, see `patient_strata`.
      share: one half where both sides are equally large and all alike.
    """
    small, large = sorted((one, other), key=len)
    if not len(small):
        return False
    size = int(max(small.max(), large.max())) + 1
    a, b = (np.bincount(side, minlength=size).astype(float) for side in (small, large))
    moved = (a * b / np.maximum(a + b, 1)).sum()
    return bool(moved >= share * len(small))


def exchangeable(y_true: npt.NDArray[np.float64], own: Ints, patients: Ints, strata: Ints) -> bool:
    """Returns True if every group's patients of either label find their like in other groups.

    Args:
      y_true, patients: (n,) of the rows; patient codes 0..p-1.
      own, strata: (p,) groups 0..k-1 and strata of the patients.
    """
    y_true = checked_classes(y_true)
    for label in (0, 1):
        has = np.bincount(patients[y_true == label], minlength=len(own)) > 0
        for g in range(int(own.max()) + 1):
            inside = own == g
            if not can_change(strata[has & inside], strata[has & ~inside]):
                return False
    return True


def permuted_groups(
    own: Ints, strata: Ints, n_sets: int, rng: np.random.Generator
) -> npt.NDArray[np.int16]:
    """Returns (n_sets, p) group codes, permuted within each stratum."""
    assigned = np.tile(own.astype(np.int16), (n_sets, 1))
    for stratum in range(int(strata.max()) + 1):
        members = np.flatnonzero(strata == stratum)
        assigned[:, members] = rng.permuted(assigned[:, members], axis=1)
    return assigned


def _by_size(strata: Ints, patients: Ints) -> Ints:
    """Strata of patients who also have about as many images: 1, 2 to 3, 4 to 7 and so on."""
    size = np.floor(np.log2(np.bincount(patients))).astype(np.int64)
    return np.unique(strata * (size.max() + 1) + size, return_inverse=True)[1].astype(np.int64)


class Switches(NamedTuple):
    """The patients of one split who may exchange groups.

    They also have about as many images, since what a group shows by chance depends on that.

    Attributes:
      own: (p,) their groups.
      strata: (p,) who may change places.
      moves: False where too few patients of a group find their like in others.
    """

    own: Ints
    strata: Ints
    moves: bool

    @classmethod
    def of(
        cls,
        y_true: npt.NDArray[np.float64],
        patients: Ints,
        codes: Ints,
        n_compared: int,
        control: Ints | None = None,
    ) -> "Switches | None":
        """Returns them for groups 0..n_compared-1; patients of other groups keep theirs.

        None where a patient is in several groups.
        """
        own = own_groups(codes, patients)
        if own is None:
            return None
        strata = _by_size(patient_strata(y_true, patients, control), patients)
        compared = own < n_compared
        use = compared[patients]
        among = np.unique(patients[use], return_inverse=True)[1]
        moves = exchangeable(y_true[use], own[compared], among, strata[compared])
        apart = np.where(compared, strata, strata.max() + 1 + own)
        return cls(own, np.unique(apart, return_inverse=True)[1].astype(np.int64), moves)

    def drawn(self, n_sets: int, rng: np.random.Generator) -> npt.NDArray[np.int16]:
        """Returns (n_sets, p) group codes after an exchange."""
        return permuted_groups(self.own, self.strata, n_sets, rng)
