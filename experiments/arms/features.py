"""What a frozen part makes of each image, computed once for all runs that read it.

Filters and extractors that no patient shaped give the same numbers in every run of one design, so a
study computes them once. A run that reads them is the same run: an example holds what its `prepare`
would give.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxfair.data.dataset import Dataset
from jaxfair.methods.base import Method, PyTree
from jaxfair.methods.encoder import FEATURES, EncoderConfig, make_encoder
from jaxfair.run.log import progress_bar

__all__ = ["WithFeatures", "reading_features", "with_features", "with_prepared"]

_BATCH = 64
_KEPT: dict[Any, np.ndarray] = {}
_MOST = 6
"""Prepared sets that are held at once; the oldest leaves first. Large are those of maps, of which a
study has one or two; the others are a few numbers an image."""


@dataclasses.dataclass(frozen=True, eq=False)
class WithFeatures(Dataset):
    """A dataset whose raw examples hold prepared arrays too, as `features` (width,) float32.

    Attributes:
      prepared: name -> (n, ...), the array of each row.
    """

    prepared: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    @property
    def arrays(self) -> dict[str, Any]:
        """The arrays of one raw example, with the prepared ones."""
        found = {n: jax.ShapeDtypeStruct(v.shape[1:], v.dtype) for n, v in self.prepared.items()}
        return self.spec | found

    @property
    def fields(self) -> dict[str, Callable[[Any], np.ndarray]]:
        """Readers of the arrays by row."""
        return super().fields | {n: v.__getitem__ for n, v in self.prepared.items()}


def with_features(dataset: Dataset, config: Any, *, progress: bool = True) -> Dataset:
    """Returns the data with the features that a Method of this config would prepare.

    Args:
      config: of the Method; data are returned as they are unless its backbone is FEATURES.
    """
    if getattr(config, "backbone", None) != FEATURES:
        return dataset
    names = ("size", "patterns", "colours", "symmetric", "feature_seed")
    design = {name: getattr(config, name) for name in names}
    key = (str(dataset.folder), tuple(design.items()))
    if key not in _KEPT:
        _KEPT[key] = _computed(dataset, EncoderConfig(backbone=FEATURES, **design), progress)
    return _with(dataset, {"features": _KEPT[key]})


class _Prepared(NamedTuple):
    """Prepared arrays of the rows that were needed so far; others are not computed."""

    values: dict[str, np.ndarray]
    done: np.ndarray


_PREPARED: dict[tuple[str, str], _Prepared] = {}


def with_prepared(
    dataset: Dataset, method: Method, frozen: PyTree, *, progress: bool = True
) -> Dataset:
    """Returns the data with what the Method prepares of each image that is in a split.

    Two Methods share what they prepare where it is the same function of the same constants, so all
    runs of a study do, whatever their seed, loss, composition or mitigation is.
    """
    if method.prepare is None:
        return dataset
    kept = _kept(dataset, method, frozen)
    rows = np.flatnonzero((dataset.manifest["split"] != "").to_numpy() & ~kept.done)
    make = jax.jit(jax.vmap(method.prepare, in_axes=(None, 0)))
    with progress_bar(
        len(rows), what="features", unit="image", hidden=not (progress and len(rows))
    ) as bar:
        for start in range(0, len(rows), _BATCH):
            few = rows[start : start + _BATCH]
            raw = {n: read(np.resize(few, _BATCH)) for n, read in dataset.fields.items()}
            found = make(frozen, raw)
            for name, values in kept.values.items():
                values[few] = found[name][: len(few)]
            kept.done[few] = True
            bar.update(len(few))
    return _with(dataset, kept.values)


def reading_features(method: Method) -> Method:
    """Returns the Method, and its stages, with prepared arrays taken from the raw example.

    An example holds what the Method's own `prepare` gives and nothing else: a Method that trains
    without labels is told none here either.
    """
    if method.prepare is None:
        return method
    stages = tuple(s._replace(method=reading_features(s.method)) for s in method.stages)
    taken = functools.partial(_taken, method.prepare)
    return method._replace(prepare=taken, stages=stages)


def _taken(prepare: Callable[..., Any], frozen: PyTree, raw: dict[str, Any]) -> dict[str, Any]:
    return {name: raw[name] for name in jax.eval_shape(prepare, frozen, raw)}


def _with(dataset: Dataset, prepared: dict[str, np.ndarray]) -> WithFeatures:
    own = {f.name: getattr(dataset, f.name) for f in dataclasses.fields(Dataset)}
    return WithFeatures(**own, prepared=prepared)


def _kept(dataset: Dataset, method: Method, frozen: PyTree) -> _Prepared:
    key = str(dataset.folder), _digest(method, frozen, dataset.spec)
    if key not in _PREPARED:
        shapes = jax.eval_shape(method.prepare, frozen, dataset.spec)  # type: ignore[arg-type]
        values = {
            name: np.empty((len(dataset), *array.shape), array.dtype)
            for name, array in shapes.items()
            if name not in dataset.spec
        }
        while len(_PREPARED) >= _MOST:
            del _PREPARED[next(iter(_PREPARED))]
        _PREPARED[key] = _Prepared(values, np.zeros(len(dataset), bool))
    return _PREPARED[key]


def _digest(method: Method, frozen: PyTree, spec: dict[str, Any]) -> str:
    """Of what `prepare` computes: its operations, its constants, and the frozen arrays it reads."""

    def own(frozen: PyTree, raw: dict[str, Any]) -> dict[str, Any]:
        """Without what is handed on, which a Method does in a step and not when it is scored."""
        found = method.prepare(frozen, raw)  # type: ignore[misc]
        return {name: found[name] for name in sorted(found) if name not in spec}

    made: Any = jax.make_jaxpr(own)(frozen, spec)
    read = {id(var) for line in made.jaxpr.eqns for var in line.invars}
    leaves = zip(made.jaxpr.invars, jax.tree.leaves(frozen), strict=False)
    constants = [*made.consts, *(leaf for var, leaf in leaves if id(var) in read)]
    digest = hashlib.sha256(str(made.jaxpr).encode())
    for constant in constants:
        digest.update(np.asarray(constant).tobytes())
    return digest.hexdigest()


def _computed(dataset: Dataset, config: EncoderConfig, progress: bool) -> np.ndarray:
    encoder = make_encoder(config)
    params, frozen = encoder.init(jax.random.key(0), dataset.spec)
    embed: Any = jax.jit(functools.partial(encoder.embed, params, frozen))
    found = np.empty((len(dataset), encoder.width), np.float32)
    with progress_bar(len(dataset), what="features", unit="image", hidden=not progress) as bar:
        for start in range(0, len(dataset), _BATCH):
            rows = np.arange(start, min(start + _BATCH, len(dataset)))
            found[rows] = embed({"image": dataset.images(np.resize(rows, _BATCH))})[: len(rows)]
            bar.update(len(rows))
    return found
