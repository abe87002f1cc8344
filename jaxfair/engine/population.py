"""Who may be drawn, and what a claim says about them; made in one piece, so that it agrees."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from jaxfair.errors import InputError
from jaxfair.privacy import release, wiring
from jaxfair.privacy.plan import PrivacyPlan
from jaxfair.tables import look_alikes
from jaxfair.tables.values import text_of

__all__ = [
    "Population",
    "check_population",
    "make_population",
    "population_from_ids",
    "size_remark",
]

TOLERATED = 0.25
"""How far the declared size may be from the count, as a share of it, without a remark."""


class Population(NamedTuple):
    """The units that may be drawn; private, written nowhere, but for the words of the claim.

    Attributes:
      rows: store rows of each unit, at least one.
      ids: uint32 (n,), a hash of each unit's id: the same whoever else takes part.
      groups: int (n,), the code of each unit's group for group-wise sampling; -1 unknown.
      unit: what a unit is and who is protected: "patient", "lesion" or "image".
      name: who the people are, for the ledger, e.g. "nih-chestxray14".
      data: "real" or "phantom".
      selection: "independent", or "coupled" where patients decided over each other's place.
      digest: SHA-256 of the data, for the fingerprint of the run; stays in the run folder. Left
        out, a private run reads all rows once for it.
    """

    rows: list[np.ndarray]
    ids: np.ndarray
    groups: np.ndarray
    unit: str = "image"
    name: str = "unnamed"
    data: str = "real"
    selection: str = "independent"
    digest: str = ""

    @property
    def all_rows(self) -> np.ndarray:
        """Returns the store rows of all units, int64."""
        return np.concatenate([np.empty(0, np.int64), *self.rows])

    @property
    def facts(self) -> dict[str, str]:
        """Returns what a claim says about the people, by its name in privacy.json."""
        return {
            "unit": self.unit,
            "population": self.name,
            "data": self.data,
            "selection": self.selection,
        }


def check_population(people: Population, plan: PrivacyPlan) -> None:
    """Raises InputError where a claim cannot be made about these units, or a plan not draw them."""
    for name, value in people.facts.items():
        if not release.fits_schema(name, value, plain=False):
            raise InputError(
                f"A population has {value!r} for {name!r}, which privacy.json cannot say: it is "
                f"to be {_rule(name)}."
            )
    count = len(people.rows)
    for what, found in (("ids", people.ids), ("group codes", people.groups)):
        if len(found) != count:
            raise InputError(f"A population has {len(found)} {what} for {count} units.")
    wiring.check_groups(people.groups, len(plan.group_probs))
    if not all(len(rows) for rows in people.rows):
        raise InputError("A population has a unit without a row; leave such units out.")
    if people.unit == "image" and any(len(rows) > 1 for rows in people.rows):
        raise InputError(
            "A population has units of several rows and its unit is 'image': a guarantee for each "
            "image needs one row a unit, and one for all rows of an id is named after what the id "
            "is, as unit='patient'."
        )


def size_remark(people: Population, plan: PrivacyPlan) -> list[str]:
    """Says that the declared size of a private run is far from how many units there are.

    The rate of the draws follows from `public_size`, not from the data (protocol P3): fewer units
    than declared make smaller draws, more units larger ones.

    Returns:
      One sentence where they differ by more than a quarter, else nothing. It holds a count of
      patients: for the terminal of whoever holds the data, and for no file.
    """
    count = len(people.rows)
    if not plan.private or abs(count - plan.public_size) <= TOLERATED * plan.public_size:
        return []
    drawn = plan.expected_batch_size * count / plan.public_size
    return [
        f"public_size is {plan.public_size:,} and {count:,} {people.unit}s train: a step draws "
        f"{drawn:.3g} of them on average, not {plan.expected_batch_size:,}, and the noise is that "
        "of the declared numbers. If you know about how many there are without counting these, "
        "declare that."
    ]


def make_population(
    ids: Sequence[str],
    rows: Sequence[np.ndarray],
    *,
    groups: np.ndarray | None = None,
    **facts: str,
) -> Population:
    """Returns the population of units with these ids and store rows; an id occurs once.

    Args:
      groups: (n,) int codes; None for all unknown.
      facts: the further attributes of `Population`.
    """
    if len(set(ids)) < len(ids):
        raise ValueError(f"{len(ids) - len(set(ids))} units occur twice: each may be drawn once.")
    hashes = [hashlib.sha256(name.encode()).digest()[:4] for name in ids]
    hashed = np.frombuffer(b"".join(hashes), np.uint32)
    groups = np.full(len(ids), -1) if groups is None else np.asarray(groups)
    return Population(list(rows), hashed, groups, **facts)


def population_from_ids(ids: Iterable[object], **facts: str) -> Population:
    """Returns the population in which the rows with one id are one unit.

    Args:
      ids: (rows,) the id of each row, a text or a number; read as text (`tables.values.text_of`),
        so that a whole number is alike whether it is 7 or 7.0.
      facts: the further attributes of `Population`.

    Raises InputError for an id that is missing, and for several rows of one image.
    """
    rows: dict[str, list[int]] = {}
    for row, given in enumerate(ids):
        rows.setdefault(_id_text(row, given), []).append(row)
    names = sorted(rows)
    alike = look_alikes(pd.Series(names, dtype=object))
    if alike:
        raise InputError(
            f"The ids {alike[0][0]!r} and {alike[0][1]!r} look like one ({len(alike)} such): write "
            "the ids of one unit alike, or number the units if they are several."
        )
    units = [np.asarray(rows[name], np.int64) for name in names]
    return make_population(names, units, groups=None, **facts)


def _id_text(row: int, given: object) -> str:
    if np.ndim(given) or isinstance(given, list | tuple | dict | set):  # type: ignore[arg-type]
        raise InputError(f"Row {row} has the id {given!r}; an id is one number or one text.")
    name = text_of(given.decode() if isinstance(given, bytes) else given)
    if not name:
        raise InputError(
            f"Row {row} has the id {given!r}; every row needs one, since the guarantee is "
            "for all rows of one id together. Leave rows without an id out."
        )
    return name


def _rule(name: str) -> str:
    rule = release.SCHEMA[name]
    return "a text" if rule is str else f"one of {', '.join(rule)}"
