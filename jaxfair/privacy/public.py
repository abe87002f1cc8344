"""What follows from the declared size of the population, and what that size refuses."""

import operator

from jaxfair.errors import InputError

__all__ = ["check_sizes", "chosen_delta", "delta_from_public_size", "whole"]


def whole(name: str, value: object) -> int:
    """Returns `value` as an int; raises InputError unless it is a whole number above zero.

    >>> whole("train.steps", 5)
    5
    """
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = 0
    if number < 1 or isinstance(value, bool):
        raise InputError(f"{name} is {value!r}; it must be a whole number, 1 or more.")
    return int(number)


def check_sizes(public_size: int | None, expected_batch_size: int) -> int:
    """Returns the public size; raises InputError where it is missing or the batch does not fit."""
    if public_size is None or public_size < 1:
        raise InputError(
            f"data.public_size is {public_size}: declare the size of the training population as "
            "a public constant (a round figure from the data set's publication will do)."
        )
    if not 0 < expected_batch_size <= public_size:
        raise InputError(
            f"train.expected_batch_size is {expected_batch_size} but data.public_size is "
            f"{public_size}: a batch must be between 1 and the public size."
        )
    return public_size


def delta_from_public_size(public_size: int) -> float:
    """Returns min(1e-5, 0.1 / public_size) (protocol P3)."""
    return min(1e-5, 0.1 / public_size)


def chosen_delta(delta: float | None, public_size: int) -> float:
    """Returns the delta that was asked for, or the default; raises InputError if too large."""
    if delta is None:
        return delta_from_public_size(public_size)
    if delta > 0.1 / public_size:
        raise InputError(
            f"dp.delta is {delta}, above 0.1 / public_size = {0.1 / public_size:.2g}: such a "
            "guarantee would allow publishing a person outright. Leave it out for "
            f"{delta_from_public_size(public_size):.2g}."
        )
    return delta
