"""Who of the training split stays: shares by group, a part of all, a public list.

Each rule but one asks an image's own patient, its own groups and public constants, so nobody
decides over anybody else (protocol P4, P15): the guarantee is as without it. `keep_balanced`
counts, and a run with it is `selection: coupled`. Validation and test stay as they are.
"""

import dataclasses
import hashlib
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from jaxfair.data.checks import as_tuples, check_rules
from jaxfair.data.hashing import hash_fractions
from jaxfair.errors import InputError, nearest
from jaxfair.schema import COUPLED, INDEPENDENT, UNKNOWN

__all__ = ["ComposeConfig", "check_compose", "composed"]

Values = Mapping[str, Sequence[str]]


@dataclasses.dataclass(frozen=True)
class ComposeConfig:
    """Which training images stay; validation and test are left alone.

    Attributes:
      keep_by: attributes whose values, crossed, make the groups of `keep` and `keep_balanced`.
      keep: public probability in [0, 1] with which a patient of each group stays, by a hash of
        his id; smaller ones keep a part of who larger ones keep. Unknown groups stay. () for all.
      keep_balanced: patients leave the larger groups until all have as many as the smallest that
        is not empty; this counts patients (`selection: coupled`).
      keep_portion: public part of all patients that stays, by another hash, in (0, 1].
      keep_where: of what an image is itself, as ("view=PA", "sex=F"): other images leave. Several
        values of one attribute are alternatives.
      keep_ids: file of a public list of patients or images, one id a line: all others leave.
      keep_salt: public constant of the hashes.

    Raises InputError for a value outside these.
    """

    keep_by: tuple[str, ...] = ()
    keep: tuple[float, ...] = ()
    keep_balanced: bool = False
    keep_portion: float = 1.0
    keep_where: tuple[str, ...] = ()
    keep_ids: str | None = None
    keep_salt: str = "jaxfair-composition-1"

    @property
    def selection(self) -> str:
        """INDEPENDENT, or COUPLED where patients are counted (protocol P4)."""
        return COUPLED if self.keep_balanced else INDEPENDENT

    @property
    def rule(self) -> dict[str, Any]:
        """What decides, for the data card and the digest; {} where everybody stays.

        A list of ids stands there by its SHA-256.
        """
        fields = {f.name: (f.default, getattr(self, f.name)) for f in dataclasses.fields(self)}
        chosen = {name: value for name, (default, value) in fields.items() if value != default}
        if self.keep_ids is not None:
            chosen["keep_ids"] = hashlib.sha256(_text_of(self.keep_ids).encode()).hexdigest()
        return {name: list(v) if isinstance(v, tuple) else v for name, v in chosen.items()}

    def __post_init__(self) -> None:
        as_tuples(self, "keep_by", "keep", "keep_where")
        chances = all(0 <= share <= 1 for share in self.keep)
        grouped = bool(self.keep) or self.keep_balanced
        check_rules(self, (
            (chances and (not self.keep or any(self.keep)), "keep",
             "probabilities in [0, 1], not all of them 0"),
            (grouped == bool(self.keep_by), "keep_by",
             "the attributes of data.keep or data.keep_balanced, and empty without these"),
            (not (self.keep and self.keep_balanced), "keep_balanced",
             "False where data.keep is set"),
            (0 < self.keep_portion <= 1, "keep_portion", "above 0 and at most 1"),
            (all(text.count("=") == 1 for text in self.keep_where), "keep_where",
             "texts such as 'view=PA'"),
        ))  # fmt: skip


def check_compose(how: ComposeConfig, values: Values, attributes: Sequence[str]) -> None:
    """Raises InputError where a composition names what there is not, or a number too few.

    Args:
      how: the rule.
      values: attribute -> its public values.
      attributes: all columns by which people are grouped.
    """
    for name in (*how.keep_by, *_wanted(how)):
        if name not in attributes or name not in values:
            raise InputError(
                f"A composition of the data asks for {name!r}; attributes with declared values are "
                f"{', '.join(n for n in attributes if n in values)}.{nearest(name, values)}"
            )
    for name, asked in _wanted(how).items():
        for value in asked:
            if value not in values[name]:
                raise InputError(
                    f"data.keep_where has {name}={value}; the values are "
                    f"{', '.join(values[name])}.{nearest(value, values[name])}"
                )
    groups = math.prod(len(values[name]) for name in how.keep_by)
    if how.keep and len(how.keep) != groups:
        raise InputError(
            f"data.keep has {len(how.keep)} numbers for the {groups} groups by "
            f"{' and '.join(how.keep_by)}; give one for each."
        )


def composed(
    table: pd.DataFrame, split: np.ndarray, how: ComposeConfig, values: Values
) -> np.ndarray:
    """Takes the training split from images that the rule drops.

    Guarantee: but for `keep_balanced`, whether an image stays follows from its own patient's id,
    its own id, its own groups and public constants; so one unit more or less changes nobody else's
    place, whether units are patients or images.

    Args:
      table: n rows with image_id, patient_id and the attributes that the rule names.
      split: (n,) "train", "validation", "test" or "".
      how: the rule.
      values: attribute -> its public values; groups are counted with the first of `keep_by`
        changing slowest.

    Returns:
      (n,) the same with "" for training images that go.
    """
    training = np.flatnonzero(split == "train")
    rows = table.iloc[training]
    stays = _listed(rows, how) & _asked(rows, how)
    stays &= hash_fractions(f"{how.keep_salt} portion", rows["patient_id"]) < how.keep_portion
    if how.keep_by:
        group, place = _groups(rows, how, values), hash_fractions(how.keep_salt, rows["patient_id"])
        if how.keep_balanced:
            stays &= _balanced(rows["patient_id"].to_numpy(object), group, place, stays)
        else:
            stays &= place < np.array([*how.keep, 1.0])[group]
    split = split.copy()
    split[training[~stays]] = ""
    return split


def _groups(rows: pd.DataFrame, how: ComposeConfig, values: Values) -> np.ndarray:
    """(n,) the number of each image's group; the last, for the unknown, is -1."""
    found, known = np.zeros(len(rows), int), np.ones(len(rows), bool)
    for name in how.keep_by:
        code = rows[name].map({value: i for i, value in enumerate(values[name])})
        known &= code.notna().to_numpy()
        found = found * len(values[name]) + code.fillna(0).to_numpy(int)
    return np.where(known, found, -1)


def _balanced(
    patient: np.ndarray, group: np.ndarray, place: np.ndarray, there: np.ndarray
) -> np.ndarray:
    """Whether each image stays where every group keeps as many patients as the smallest has."""
    people = pd.DataFrame({"patient": patient, "group": group, "place": place})[
        there & (group >= 0)
    ]
    people = people.drop_duplicates(["group", "patient"]).sort_values(["group", "place"])
    fewest = people.groupby("group").size().min() if len(people) else 0
    kept = people[people.groupby("group").cumcount() < fewest]
    names = set(zip(kept["group"], kept["patient"]))
    return np.array([g < 0 or (g, p) in names for g, p in zip(group, patient)], bool)


def _wanted(how: ComposeConfig) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for text in how.keep_where:
        name, _, value = text.partition("=")
        found.setdefault(name.strip(), []).append(value.strip())
    return found


def _asked(rows: pd.DataFrame, how: ComposeConfig) -> np.ndarray:
    found = np.ones(len(rows), bool)
    for name, asked in _wanted(how).items():
        found &= (rows[name].isin(asked) & (rows[name] != UNKNOWN)).to_numpy()
    return found


def _listed(rows: pd.DataFrame, how: ComposeConfig) -> np.ndarray:
    if how.keep_ids is None:
        return np.ones(len(rows), bool)
    names = {line.strip() for line in _text_of(how.keep_ids).splitlines()} - {""}
    own = [rows[column].astype(str).isin(names) for column in ("patient_id", "image_id")]
    return (own[0] | own[1]).to_numpy()


def _text_of(path: str) -> str:
    try:
        return pathlib.Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"data.keep_ids is {path}, which cannot be read as a list of ids, one a line "
            f"({type(error).__name__}): give a text file."
        ) from error
