"""One check of labels, scores and probabilities, which every function that takes them calls."""

import numpy as np
import numpy.typing as npt

from jaxfair.errors import InputError

__all__ = ["checked_classes", "checked_pair", "checked_probabilities", "checked_scores"]

Array = npt.NDArray[np.float64]


def checked_scores(scores: npt.ArrayLike, name: str = "y_score") -> Array:
    """Returns (n,) floats, or raises InputError if they are not one line of finite numbers."""
    s = _line(scores, name)
    odd = np.flatnonzero(~np.isfinite(s))
    if len(odd):
        raise InputError(
            f"{name} is {s[odd[0]]} in row {odd[0]} ({len(odd)} of {len(s)} rows are not finite);"
            " score these rows again or drop them."
        )
    return s


def checked_pair(
    y_true: npt.ArrayLike, y_score: npt.ArrayLike, name: str = "y_score"
) -> tuple[Array, Array]:
    """Returns labels and scores, two (n,) floats.

    Raises:
      InputError: in one sentence, if they differ in length, a label is neither 0 nor 1, or a
        score is not finite.
    """
    y, s = checked_classes(y_true), checked_scores(y_score, name)
    if len(y) != len(s):
        raise InputError(f"y_true has {len(y)} rows and {name} has {len(s)}; give one for each.")
    return y, s


def checked_classes(y_true: npt.ArrayLike) -> Array:
    """Returns (n,) floats, or raises InputError if one is neither 0 nor 1."""
    y = _line(y_true, "y_true")
    odd = np.flatnonzero((y != 0) & (y != 1))
    if len(odd):
        raise InputError(
            f"y_true is {y[odd[0]]:g} in row {odd[0]}; labels are 0 (normal) or 1 (abnormal), so"
            " code other labels so, and drop the rows without one."
        )
    return y


def checked_probabilities(probabilities: npt.ArrayLike) -> Array:
    """Returns (n,) floats, or raises InputError if one is outside [0, 1]."""
    p = checked_scores(probabilities, "probabilities")
    if len(p) and not (p.min() >= 0 and p.max() <= 1):
        raise InputError(
            f"Probabilities lie in [0, 1], got {p.min():.3g} to {p.max():.3g}; fit `platt` on"
            " validation rows to turn scores into probabilities."
        )
    return p


def _line(values: npt.ArrayLike, name: str) -> Array:
    try:
        line = np.asarray(values, dtype=float)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} is not made of numbers ({error}); give (n,) numbers.") from error
    if line.ndim != 1:
        raise InputError(f"{name} has shape {line.shape}; give one line of numbers, (n,).")
    return line
