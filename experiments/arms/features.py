"""Fixed features of a data set, computed once for all runs that read them.

Filters that no patient shaped give the same numbers in every run of one design, so a study computes
them once. A run that reads them is the same run: an example holds what its `prepare` would give.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxfair.data.dataset import Dataset
from jaxfair.methods.base import Method
from jaxfair.methods.encoder import FEATURES, EncoderConfig, make_encoder
from jaxfair.run.log import progress_bar

__all__ = ["WithFeatures", "reading_features", "with_features"]

_BATCH = 64
_KEPT: dict[Any, np.ndarray] = {}


@dataclasses.dataclass(frozen=True, eq=False)
class WithFeatures(Dataset):
    """A dataset whose raw examples hold `features` (width,) float32 too."""

    features: np.ndarray = dataclasses.field(default_factory=lambda: np.empty((0, 0), np.float32))

    @property
    def arrays(self) -> dict[str, Any]:
        """The arrays of one raw example, with the features."""
        return self.spec | {"features": jax.ShapeDtypeStruct(self.features.shape[1:], np.float32)}

    @property
    def fields(self) -> dict[str, Callable[[Any], np.ndarray]]:
        """Readers of the arrays by row."""
        return super().fields | {"features": lambda rows: self.features[rows]}


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
    own = {f.name: getattr(dataset, f.name) for f in dataclasses.fields(Dataset)}
    return WithFeatures(**own, features=_KEPT[key])


def reading_features(method: Method) -> Method:
    """Returns the Method, and its stages, with features taken from the raw example."""
    if method.prepare is None:
        return method
    stages = tuple(s._replace(method=reading_features(s.method)) for s in method.stages)
    return method._replace(prepare=_taken, stages=stages)


def _taken(frozen: Any, raw: dict[str, Any]) -> dict[str, Any]:
    return {name: raw[name] for name in ("features", "label", "label_mask") if name in raw}


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
