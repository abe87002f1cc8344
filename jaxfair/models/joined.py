"""Drawn features joined with those of a public network: what a private linear head reads best.

Beside the features of `filters` stand means and deviations, over the image, of every stage of an
EfficientNet-Lite that reads the image at several sizes. Both are standardised on drawn images and
brought to the same length, so that neither drowns the other; no patient shaped anything here.
Deviations beside means, as of a texture: Gatys, Ecker and Bethge 2015 (arXiv 1505.07376).
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxfair.errors import InputError
from jaxfair.models import filters, pretrained
from jaxfair.models.embedding import unit
from jaxfair.models.filters import FAR, Bank, Design, drawn_images
from jaxfair.models.lite import VARIANTS, Lite, stage_table

__all__ = ["Joined", "check_joined", "joined_bank", "joined_count", "joined_features"]

DRAWN = 256
"""Drawn images on which the features of the network are standardised,"""

LARGEST = 128
"""and the largest side that they are drawn at; else that of the images that are to be read."""

SIZES = range(32, 513, 32)
"""Sides at which a network may read the image."""

LITE = "lite"
"""The key of the network in a bank."""


class Joined(NamedTuple):
    """What is measured; public.

    Attributes:
      design: the drawn features.
      network: a key of `lite.VARIANTS`, or "" for the drawn features alone.
      weights: of the network: a name of `public.PUBLIC`, or a file.
      sizes: sides to which images are resized for the network.
    """

    design: Design
    network: str = ""
    weights: str = ""
    sizes: tuple[int, ...] = ()


def check_joined(joined: Joined) -> None:
    """Raises InputError for an unknown network, and sizes that are none of SIZES or twice there."""
    if not joined.network:
        return
    if joined.network not in VARIANTS:
        raise InputError(
            f"network = {joined.network!r} is none of {', '.join(map(repr, VARIANTS))}."
        )
    sizes = joined.sizes
    if not sizes or len(set(sizes)) < len(sizes) or any(size not in SIZES for size in sizes):
        raise InputError(
            f"sizes = {sizes} must be one or more different multiples of 32 from {SIZES[0]} to "
            f"{SIZES[-1]}."
        )


def joined_count(joined: Joined) -> int:
    """Returns d.

    >>> design = filters.make_design(48, 48, 64, symmetric=True)
    >>> joined_count(Joined(design)), joined_count(Joined(design, "lite0", "lite0", (96, 160)))
    (960, 4096)
    """
    drawn = filters.feature_count(joined.design)
    return drawn + len(joined.sizes) * _count(joined.network) if joined.network else drawn


def joined_bank(joined: Joined, shape: tuple[int, ...], seed: int) -> Bank:
    """Returns filters, weights, and mean and spread of every feature on drawn images.

    Args:
      joined: what is measured.
      shape: (h, w, c) of an image.
      seed: of the filters and of the drawn images.

    Raises InputError as `pretrained.read_lite`.
    """
    bank = filters.filter_bank(joined.design, shape[-1], seed)
    if not joined.network:
        return bank
    side = min(max(shape[:2]), LARGEST)
    read = joined.network, joined.weights, joined.sizes
    return {**bank, LITE: _network_bank(*read, side, shape[-1], seed)}


def joined_features(joined: Joined, bank: Bank, image: jax.Array) -> jax.Array:
    """Returns the features (d,) of one image (h, w, c) in [0, 1]: a vector of length 1."""
    drawn = filters.filter_features(joined.design, bank, image)
    if not joined.network:
        return drawn
    known = bank[LITE]["features"]
    standard = (_raw(joined.network, joined.sizes, bank[LITE], image) - known["mean"]) / known[
        "scale"
    ]
    return unit(jnp.concatenate([drawn, unit(jnp.clip(standard, -FAR, FAR))]))


def _count(network: str) -> int:
    return 2 * sum(stage.width for stage in stage_table(network))


def _net(network: str) -> Lite:
    return Lite(network, channels=3, gives="stages", trained=False)


def _raw(network: str, sizes: tuple[int, ...], bank: Bank, image: jax.Array) -> jax.Array:
    """Returns the features of the network before they are standardised."""
    found = []
    variables = {name: bank[name] for name in ("params", "stats")}
    for size in sizes:
        shape = (size, size, image.shape[-1])
        resized = jax.image.resize(image.astype(jnp.float32), shape, "linear")
        stages: Any = _net(network).apply(variables, resized[None])
        for maps in stages:
            mean = jnp.mean(maps[0], axis=(0, 1))
            squares = jnp.mean(jnp.square(maps[0] - mean), axis=(0, 1))
            found += [mean, jnp.sqrt(squares + 1e-12)]
    return jnp.concatenate(found)


@functools.lru_cache(maxsize=8)
def _network_bank(
    network: str, weights: str, sizes: tuple[int, ...], side: int, channels: int, seed: int
) -> Bank:
    """Weights and units; a function of public constants alone, and a few seconds."""
    with jax.core.eval_context():  # cached arrays must be arrays, also inside a trace
        variables = pretrained.read_lite(_net(network), weights)
        drawn = drawn_images(DRAWN, side, channels, seed=seed)
        measure = jax.jit(jax.vmap(functools.partial(_raw, network, sizes), (None, 0)))
        parts = np.split(drawn, DRAWN // 32)
        values = np.concatenate([measure(variables, part) for part in parts])
        units = {"mean": values.mean(axis=0), "scale": np.maximum(values.std(axis=0), 1e-3)}
        return {**variables, "features": {name: jnp.asarray(v) for name, v in units.items()}}
