"""What `fit_private` is given: refused in one sentence where it is of a wrong kind."""

import inspect
import numbers
import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxfair.errors import InputError
from jaxfair.methods.base import PyTree

__all__ = ["check_objects", "columns", "number", "parameters"]


def check_objects(loss_fn: Any, optimizer: Any, folder: Any) -> None:
    """Refuses what is no function, no optimiser, no folder."""
    if not callable(loss_fn) or not _takes_three(loss_fn):
        raise InputError(
            f"loss_fn is {loss_fn!r}; it must be a function of (params, example, key), in this "
            "order; write `lambda params, example, key: ...` around it."
        )
    if not callable(getattr(optimizer, "init", None)):
        raise InputError(
            f"optimizer is {optimizer!r}; it must be an optax transformation, such as "
            "optax.adam(1e-3)."
        )
    if not isinstance(folder, str | os.PathLike) or os.path.isfile(folder):
        raise InputError(f"folder is {folder!r}; it must be the path of a folder, new or begun.")


def _takes_three(function: Callable[..., Any]) -> bool:
    try:
        inspect.signature(function).bind(None, None, None)
    except TypeError:
        return False
    except ValueError:  # a builtin without a signature: its call will tell
        return True
    return True


def number(name: str, value: Any) -> float:
    """Returns `value` as a float; raises InputError where it is no number."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise InputError(f"{name} is {value!r}; it must be a number, such as 3.0.")
    return float(value)


def parameters(params: PyTree) -> PyTree:
    """Returns `params` as jax arrays; raises InputError where they hold none."""
    if not jax.tree.leaves(params):
        raise InputError("params hold no array; give a pytree of floating-point arrays.")
    try:
        return jax.tree.map(jax.numpy.asarray, params)
    except TypeError as error:
        raise InputError(
            f"params must be a pytree of floating-point arrays: {' '.join(str(error).split())}"
        ) from error


def columns(arrays: Any) -> dict[str, np.ndarray]:
    """Returns the arrays by name, each of a kind that jax holds without changing a number."""
    named = callable(getattr(arrays, "items", None)) and not isinstance(arrays, np.ndarray)
    if not named or not all(isinstance(name, str) for name in arrays):
        raise InputError("arrays must map names to arrays, as {'x': x, 'y': y}.")
    return {name: _column(name, values) for name, values in arrays.items()}


def _column(name: str, values: Any) -> np.ndarray:
    if np.ma.is_masked(values):
        raise InputError(f"arrays[{name!r}] has masked entries; fill them or leave those rows out.")
    try:
        column = np.asarray(values)
        if not (column.dtype == bool or jax.numpy.issubdtype(column.dtype, np.number)):
            raise TypeError(column.dtype)
        kept = jax.dtypes.canonicalize_dtype(column.dtype)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"arrays[{name!r}] is no array of numbers; give each row as many numbers of one type "
            "as any other (codes for words, `.astype('float32')` for objects)."
        ) from error
    whole = column.size and np.issubdtype(column.dtype, np.integer)
    if whole and (column.min() < np.iinfo(kept).min or column.max() > np.iinfo(kept).max):
        raise InputError(
            f"arrays[{name!r}] holds whole numbers beyond {kept}, which jax would change; "
            "give smaller ones, or floating-point numbers."
        )
    return column
