"""What a frozen part computes once per image, cached for the step.

With a frozen extractor and no augmentation the features of an image never change, so they
are computed once and never inside the per-example gradient.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np

from jaxfair.data.loader import Fields
from jaxfair.methods.base import Example, Method, PyTree
from jaxfair.run.log import progress_bar

__all__ = ["Cached", "training_fields"]

_BATCH = 32


@dataclass(frozen=True)
class Cached:
    """A reader of rows whose values are held in memory.

    Attributes:
      values: (n, ...), one entry per image of the training population.
      place: (store rows,) int, where each row's entry stands; -1 for rows that have none.
    """

    values: np.ndarray
    place: np.ndarray

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Returns the entries of (n,) store rows."""
        return self.values[self.place[rows]]


def training_fields(
    method: Method, frozen: PyTree, fields: Fields, rows: np.ndarray, *, progress: bool = True
) -> Fields:
    """Returns readers of the examples of `rows`, prepared if the Method prepares.

    Args:
      fields: readers of raw examples by row.
      rows: (n,) store rows, each once; the readers take any of them.

    A Method without `prepare` reads raw examples from the store as they are needed. Otherwise
    every prepared array is held in memory, (n, ...) in the dtype that the Method chose.
    """
    if method.prepare is None:
        return fields
    place = np.full(1 + int(rows.max(initial=-1)), -1, np.int64)
    place[rows] = np.arange(len(rows))
    cached = _prepared(method.prepare, frozen, fields, rows, progress)
    return {name: Cached(values, place) for name, values in cached.items()}


def _prepared(
    prepare: Callable[..., Example],
    frozen: PyTree,
    fields: Fields,
    rows: np.ndarray,
    progress: bool,
) -> dict[str, np.ndarray]:
    none = {name: read(rows[:0]) for name, read in fields.items()}
    raw_shapes = {n: jax.ShapeDtypeStruct(v.shape[1:], v.dtype) for n, v in none.items()}
    shapes = jax.eval_shape(prepare, frozen, raw_shapes)
    cached = {n: np.empty((len(rows), *s.shape), s.dtype) for n, s in shapes.items()}
    prepare = jax.jit(jax.vmap(prepare, in_axes=(None, 0)))
    with progress_bar(len(rows), what="features", counted=False, hidden=not progress) as bar:
        for start in range(0, len(rows), _BATCH):
            few = rows[start : start + _BATCH]
            raw = {name: read(np.resize(few, _BATCH)) for name, read in fields.items()}
            for name, values in prepare(frozen, raw).items():
                cached[name][start : start + len(few)] = values[: len(few)]
            bar.update(len(few))
    return cached
