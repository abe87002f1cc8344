"""Who may be drawn, and what a claim says about them; made in one piece, so that it agrees."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from jaxfair.errors import InputError

__all__ = ["Population", "make_population", "population_from_ids"]


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
      digest: SHA-256 of the data, for the fingerprint of the run; stays in the run folder.
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
      ids: (rows,) the id of each row, read as text without blanks around it.
      facts: the further attributes of `Population`.

    Raises InputError for an id that is missing.
    """
    rows: dict[str, list[int]] = {}
    for row, given in enumerate(ids):
        name = str(given).strip()
        if given is None or given != given or not name:
            raise InputError(
                f"Row {row} has the id {given!r}; every row needs one, since the guarantee is "
                "for all rows of one id together. Leave rows without an id out."
            )
        rows.setdefault(name, []).append(row)
    names = sorted(rows)
    units = [np.asarray(rows[name], np.int64) for name in names]
    return make_population(names, units, groups=None, **facts)
