"""How patients are divided into train, validation and test: the rules, and their options.

No rule but the thesis's lets one patient decide over another's place (protocol P4). That one is
in `splits_thesis`, those by folds are in `splits_folds`.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from jaxfair.data.checks import check_choice, check_rules
from jaxfair.data.hashing import by_patient, hash_fraction
from jaxfair.data.splits_folds import (
    split_in_folds,
    split_validation_folds,
    train_or_validation,
)
from jaxfair.data.splits_thesis import split_like_thesis
from jaxfair.errors import InputError
from jaxfair.schema import COUPLED, COUPLING, INDEPENDENT

__all__ = [
    "RULES",
    "SplitConfig",
    "assign",
    "hash_fraction",
    "refuse_image_units",
    "split_as_published",
    "split_at_random",
    "split_by_patient",
    "split_in_folds",
    "split_validation_folds",
]

OF_THESIS = ("protected_attr", "protected_attr_percent", "share_normals", "per_group", "split_seed")
RULES = {  # rule -> the options that decide with it
    "patient": ("split_salt",),
    "random": ("split_salt",),
    "folds": ("split_salt", "folds", "fold"),
    "validation_folds": ("split_salt", "folds", "fold", "test_share"),
    "source": ("split_salt", "carve_validation"),
    "thesis": OF_THESIS,
}


@dataclasses.dataclass(frozen=True)
class SplitConfig:
    """Which rule divides the patients, and its constants.

    Attributes:
      split: "patient" (anomaly detection: the sick never train), "random" (disease plays no
        role), "folds" (each fold tests once), "validation_folds" (each fold validates once, and
        one fixed set tests), "source" (as published) or "thesis" (by group share, `selection:
        coupled`); None is "patient" where a task is "anomaly" and "random" elsewhere.
      split_salt: public constant of the hash.
      folds: number of folds, at least 2, of the splits by folds.
      fold: which of them, from 0, is the test, or validates.
      test_share: of the patients who test in all folds alike, split "validation_folds".
      protected_attr: "sex" or "age", of the thesis's split.
      protected_attr_percent: share in [0, 1] of men or of the old in training, thesis's split.
      share_normals: the thesis's defect: validation and test share their normals.
      per_group: images per group, label and split that validate or test, thesis's split.
      split_seed: of the thesis's split.
      carve_validation: whether, in the split "source", one in eight of the training patients
        validates, by hash; None is what the source's publication needs. A constant, and not
        whether anybody validates already: one patient would decide over all others (P15).

    Raises InputError for a value outside these.
    """

    split: str | None = None
    split_salt: str = "jaxfair-1"
    folds: int = 5
    fold: int = 0
    test_share: float = 0.1
    protected_attr: str = "sex"
    protected_attr_percent: float = 0.5
    share_normals: bool = False
    per_group: int = 50
    split_seed: int = 42
    carve_validation: bool | None = None

    @property
    def selection(self) -> str:
        """INDEPENDENT, or COUPLED where the rule counts patients (protocol P4)."""
        return COUPLED if self.split == COUPLING["split"] else INDEPENDENT

    @property
    def rule(self) -> dict[str, Any]:
        """The options that decide, for the data card and the digest."""
        return {name: getattr(self, name) for name in ("split", *RULES[str(self.split)])}

    def settled(self, tasks: Iterable[str], *, carve: bool = False) -> "SplitConfig":
        """The rule of a source with these tasks, where none is named.

        Args:
          tasks: of the source.
          carve: what `carve_validation` is where it is not said.

        Raises InputError for a rule of anomaly detection where no task is "anomaly".
        """
        if self.carve_validation is None:
            return dataclasses.replace(self, carve_validation=carve).settled(tasks)
        if self.split is None:
            rule = "patient" if "anomaly" in tasks else "random"
            return dataclasses.replace(self, split=rule)
        if self.split in ("patient", "thesis") and "anomaly" not in tasks:
            raise InputError(
                f"data.split is {self.split!r}, a rule of anomaly detection, and this source has "
                "no task 'anomaly'; use 'random', 'folds', 'validation_folds' or 'source'."
            )
        return self

    def __post_init__(self) -> None:
        if self.split is not None:
            check_choice(self, "split", RULES)
        check_choice(self, "protected_attr", ("sex", "age"))
        check_rules(self, (
            (0 <= self.protected_attr_percent <= 1, "protected_attr_percent", "0 to 1"),
            (self.per_group >= 1, "per_group", "at least 1"),
            (self.folds >= 2, "folds", "at least 2"),
            (0 <= self.fold < self.folds, "fold", "0 to data.folds - 1"),
            (0 < self.test_share < 1, "test_share", "above 0 and below 1"),
            (not self.share_normals or self.split == "thesis", "share_normals",
             "False unless data.split is 'thesis'"),
        ))  # fmt: skip


def assign(table: pd.DataFrame, how: SplitConfig) -> tuple[np.ndarray, np.ndarray]:
    """Divides the rows of a prepared table by the rule that `how` names.

    Args:
      table: with patient_id; for anomaly detection label_anomaly and patient_abnormal too, for
        the thesis's rule sex and age, for the published one source_split.
      how: settled, so that its `split` is a rule.

    Returns:
      (n,) "train", "validation", "test" or "", and (n,) bool, True for the validation images
      that also count as test (the thesis's rule with `share_normals`).

    Raises:
      InputError: the rule cannot be applied to this table.
    """
    patient, salt = table["patient_id"], how.split_salt
    if how.split == "thesis":
        return split_like_thesis(
            table,
            attribute=how.protected_attr,
            share=how.protected_attr_percent,
            share_normals=how.share_normals,
            per_group=how.per_group,
            seed=how.split_seed,
        )
    if how.split == "patient":
        abnormal, label = table["patient_abnormal"], table["label_anomaly"]
        split = split_by_patient(patient, abnormal, label, salt=salt)
    elif how.split == "random":
        split = split_at_random(patient, salt=salt)
    elif how.split == "folds":
        split = split_in_folds(patient, folds=how.folds, fold=how.fold, salt=salt)
    elif how.split == "validation_folds":
        split = split_validation_folds(
            patient, folds=how.folds, fold=how.fold, test_share=how.test_share, salt=salt
        )
    else:
        published, carve = _published(table), bool(how.carve_validation)
        split = split_as_published(patient, published, salt=salt, carve=carve)
    return split, np.zeros(len(table), bool)


def refuse_image_units(rule: str, unit: str) -> None:
    """Refuses images as units where one decides over another of its patient (protocol P15).

    Args:
      rule: of the split.
      unit: what patient_id names, more than an image.

    Raises InputError for the rule of anomaly detection.
    """
    if rule == "patient":
        raise InputError(
            f"With data.split 'patient' an image trains only if no other image of its {unit} is "
            "abnormal, so images decide over each other and cannot be the units of privacy: use "
            f"dp.unit {unit!r}, or data.split 'random'."
        )


def split_by_patient(
    patient_id: Iterable[str], abnormal: Iterable[bool], label: Iterable[float], *, salt: str
) -> np.ndarray:
    """Patient-disjoint splits in which no patient's place depends on another (P4, P5).

    A patient with any abnormal image goes to validation (1/3) or test (2/3), every other to
    train (70 %), validation (10 %) or test (20 %), by a hash of the salt and the patient id.

    Args:
      patient_id: (n,) one id per image.
      abnormal: (n,) bool, True for every image that is not normal, also those without a label.
      label: (n,) 0, 1 or NaN; an image whose label is NaN gets the split "".
      salt: public constant.

    Returns:
      (n,) object array of "train", "validation", "test" or "".
    """
    frame = pd.DataFrame({"patient": list(patient_id), "abnormal": list(abnormal)})
    sick = frame.groupby("patient", sort=False)["abnormal"].any()
    place = {str(name): _place(hash_fraction(salt, str(name)), ill) for name, ill in sick.items()}
    split = frame["patient"].astype(str).map(place).to_numpy(object)
    return np.where(np.isnan(np.asarray(list(label), float)), "", split)


def split_at_random(patient_id: Iterable[str], *, salt: str) -> np.ndarray:
    """Splits in which disease plays no role: train 70 %, validation 10 %, test 20 % of patients.

    Args:
      patient_id: (n,) one id per image.
      salt: public constant.

    Returns:
      (n,) object array of "train", "validation" or "test".
    """
    return by_patient(patient_id, lambda name: _place(hash_fraction(salt, name), ill=False))


def split_as_published(
    patient_id: Iterable[str], published: Iterable[str], *, salt: str, carve: bool
) -> np.ndarray:
    """The split that the source publishes.

    Args:
      patient_id: (n,) one id per image.
      published: (n,) train, validation, test or "".
      salt: public constant.
      carve: whether one in eight training patients validates, by hash; a public constant.

    Returns:
      (n,) object array of the same words; a patient may be in two (`check` refuses it).
    """
    split = np.asarray(list(published), object)
    if not carve:
        return split
    carved = by_patient(patient_id, lambda name: train_or_validation(salt, name))
    return np.where(split == "train", carved, split)


def _published(table: pd.DataFrame) -> "pd.Series[str]":
    if "source_split" not in table:
        raise InputError(
            "data.split is 'source', and this prepared set holds no published split "
            "(data.table.split names the column of a table); use 'random' or 'folds'."
        )
    return table["source_split"]


def _place(fraction: float, ill: bool) -> str:
    if ill:
        return "validation" if fraction < 1 / 3 else "test"
    return "train" if fraction < 0.7 else "validation" if fraction < 0.8 else "test"
