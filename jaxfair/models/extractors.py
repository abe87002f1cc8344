"""The frozen extractors by name: what turns an image into the maps that are rebuilt or measured.

Each gives maps at a quarter of the image's size. None has seen a patient: weights are public or
drawn from a seed, and statistics are stored ones or those of drawn textures.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxfair.errors import InputError, nearest
from jaxfair.models import extractor, lite, pretrained, public
from jaxfair.models.extractor import synthetic_textures
from jaxfair.models.lite import Lite
from jaxfair.models.resize import resize_aligned

__all__ = ["EXTRACTORS", "LEVELS", "Extractor", "describe_extractor", "make_extractor"]

LEVELS = (1, 2, 4)
"""Stages of an EfficientNet-Lite whose maps are taken: at a quarter, an eighth and a sixteenth of
the image's size. Those between and after them see no finer, or too little, of where things are."""

TEXTURES, SIDE = 32, 128
"""Drawn images, and their side, on which the maps of a Lite are standardised."""

PyTree = Any


class Extractor(NamedTuple):
    """Attributes:
    channels: of its maps.
    variables: `(weights, seed) -> {"params", "stats", ...}`; `weights` is a name of
      `public.PUBLIC`, a file, or None: then random ones of the seed, or those that belong to the
      name.
    maps: `(variables, images (b, h, w, 3) in [-1, 1]) -> (b, h/4, w/4, channels)`.
    """

    channels: int
    variables: Callable[[str | None, int], PyTree]
    maps: Callable[[PyTree, jax.Array], jax.Array]


def make_extractor(name: str) -> Extractor:
    """Returns the extractor `name`, a key of EXTRACTORS. Raises InputError for another."""
    if name not in EXTRACTORS:
        known = ", ".join(map(repr, EXTRACTORS))
        raise InputError(
            f"extractor.name = {name!r} is none of {known}.{nearest(name, EXTRACTORS)}"
        )
    return EXTRACTORS[name]()


def describe_extractor(name: str, weights: str | None, seed: int) -> dict[str, Any]:
    """Returns what a report must say: kind, seed or checksum, licence and source, and `note`."""
    if name in lite.VARIANTS:
        weights = weights or name
    elif weights is None:
        note = (
            f"The extractor is an untrained ResNet-18 (seed {seed}) with statistics from synthetic "
            "textures; no pretrained weights were used."
        )
        return {"extractor": "random", "extractor_seed": seed, "note": note}
    network = "ResNet-18" if name == "resnet18" else name.replace("lite", "EfficientNet-Lite")
    told = {f"extractor_{key}": value for key, value in public.provenance(weights).items()}
    note = f"The extractor is {public.words(weights, f'a pretrained {network}')}."
    return {"extractor": "pretrained", **told, "note": note}


def _resnet18() -> Extractor:
    def variables(weights: str | None, seed: int) -> PyTree:
        if weights is None:
            params, stats = extractor.random_extractor(seed)
        else:
            params, stats, _ = pretrained.read_extractor(weights)
        return {"params": params, "stats": stats}

    maps: Any = extractor.Extractor().apply
    return Extractor(extractor.CHANNELS, variables, maps)


def _lite(variant: str) -> Extractor:
    net = Lite(variant, channels=3, gives="stages", trained=False, stages=LEVELS[-1] + 1)
    widths = [stage.width for stage in lite.stage_table(variant)]

    def variables(weights: str | None, seed: int) -> PyTree:
        return _standardised(net, weights or variant, seed)

    def maps(variables: PyTree, images: jax.Array) -> jax.Array:
        units = variables["units"]
        return (_joined(net, variables, images) - units["mean"]) / units["scale"]

    return Extractor(sum(widths[level] for level in LEVELS), variables, maps)


def _joined(net: Lite, variables: PyTree, images: jax.Array) -> jax.Array:
    kept = {name: variables[name] for name in ("params", "stats")}
    stages: Any = net.apply(kept, (images + 1) / 2)
    size = (images.shape[1] // 4, images.shape[2] // 4)
    return jnp.concatenate([resize_aligned(stages[level], size) for level in LEVELS], axis=-1)


@functools.lru_cache(maxsize=8)
def _standardised(net: Lite, weights: str, seed: int) -> PyTree:
    """Weights, and mean and spread of each channel on drawn textures."""
    with jax.core.eval_context():  # cached arrays must be arrays, also inside a trace
        variables = pretrained.read_lite(net, weights)
        drawn = synthetic_textures(TEXTURES, SIDE, seed=seed)
        measure: Any = jax.jit(functools.partial(_joined, net))
        maps = np.asarray(measure(variables, drawn))
        mean, scale = maps.mean(axis=(0, 1, 2)), np.maximum(maps.std(axis=(0, 1, 2)), 1e-3)
        return {**variables, "units": {"mean": jnp.asarray(mean), "scale": jnp.asarray(scale)}}


EXTRACTORS: dict[str, Callable[[], Extractor]] = {
    "resnet18": _resnet18,
    **{variant: functools.partial(_lite, variant) for variant in lite.VARIANTS},
}
"""A new one is a function here."""
