"""Chance that is public and fixed: a number in [0, 1) from a salt and an id, and nobody else."""

import hashlib
from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd

__all__ = ["by_patient", "hash_fraction", "hash_fractions"]


def hash_fraction(salt: str, name: str) -> float:
    """A number in [0, 1) that depends on nothing but a public salt and an id (SHA-256)."""
    digest = hashlib.sha256(f"{salt}\0{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2.0**64


def hash_fractions(salt: str, names: Iterable[str]) -> np.ndarray:
    """The same of many ids: (n,) float64."""
    return np.array([hash_fraction(salt, str(name)) for name in names], np.float64)


def by_patient(patient_id: Iterable[str], place: Callable[[str], str]) -> np.ndarray:
    """Gives each image the place of its patient: (n,) ids -> (n,) objects, `place` asked once."""
    names = pd.Series([str(name) for name in patient_id], dtype=object)
    return names.map({name: place(name) for name in names.unique()}).to_numpy(object)
