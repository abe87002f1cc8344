"""Splits by folds: each fold tests once, or each fold validates once beside one fixed test."""

from collections.abc import Iterable

import numpy as np

from jaxfair.data.hashing import by_patient, hash_fraction

__all__ = ["split_in_folds", "split_validation_folds", "train_or_validation"]


def split_in_folds(patient_id: Iterable[str], *, folds: int, fold: int, salt: str) -> np.ndarray:
    """Fold number `fold` tests; of the other patients one in eight, by another hash, validates.

    Over all folds every image is tested once, as no patient's place depends on another.
    Arguments and value as of `splits.split_at_random`; `fold` counts from 0.
    """

    def place(name: str) -> str:
        if int(folds * hash_fraction(salt, name)) == fold:
            return "test"
        return train_or_validation(salt, name)

    return by_patient(patient_id, place)


def split_validation_folds(
    patient_id: Iterable[str], *, folds: int, fold: int, test_share: float, salt: str
) -> np.ndarray:
    """One fixed test set; of the others fold number `fold` validates and the rest train.

    FairREAD (arXiv 2412.16373) has a fixed tenth that tests and five folds of the rest: 72, 18
    and 10 %; it cuts rows of a table, and this rule patients. Whether somebody tests is a hash of
    his id and the salt alone, so the test set is the same in all folds, whatever their number;
    over all folds everybody else validates once. No patient's place depends on another.

    Args:
      patient_id: (n,) one id per image.
      folds: number of folds.
      fold: which of them, from 0, validates.
      test_share: share of patients who test.
      salt: public constant.

    Returns:
      (n,) object array of "train", "validation" or "test".
    """

    def place(name: str) -> str:
        if hash_fraction(f"{salt} test", name) < test_share:
            return "test"
        return "validation" if int(folds * hash_fraction(salt, name)) == fold else "train"

    return by_patient(patient_id, place)


def train_or_validation(salt: str, name: str) -> str:
    """Where a training patient goes if one in eight of them validates, by a hash of its own."""
    return "validation" if hash_fraction(f"{salt} validation", name) < 1 / 8 else "train"
