"""DeepSVDD: normal images are drawn to one point; an image is anomalous by its distance from it.

The centre is fixed before training: the mean of the untrained network's answers to drawn images, so
that no patient shaped it. Published code takes the mean over the training images there, which would
be a query of its own; the thesis a random point (`centre="random"`).

Guarantee: the loss is the squared distance of ONE image from a public constant, and the norms read
one image, so nothing couples and the step's bound holds as it is.
Source: Ruff et al. 2018 (ICML), one-class form.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxfair.errors import InputError
from jaxfair.methods.base import Example, Method, PyTree
from jaxfair.methods.encoder import refuse_unless_known
from jaxfair.models.extractor import synthetic_textures
from jaxfair.models.svdd import SVDDNetwork

__all__ = ["DeepSVDDConfig", "describe", "make_deepsvdd"]

DRAWN = 64
"""Drawn images behind the centre."""

AWAY = 0.1
"""A coordinate of the centre nearer to zero is moved to it: zero is easily reached."""


@dataclasses.dataclass(frozen=True)
class DeepSVDDConfig:
    """What DeepSVDD is; every field is a public choice.

    Attributes:
      hidden_dims: channels of the convolutions.
      dims: numbers of an embedding.
      centre: "drawn", the untrained network's mean answer to drawn images, or "random": normal
        numbers plus 10, as in the thesis.
      seed: of the drawn images and of the random centre.

    Raises InputError for a value outside these.
    """

    hidden_dims: tuple[int, ...] = (32, 64, 128, 256, 512)
    dims: int = 256
    centre: str = "drawn"
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden_dims", tuple(self.hidden_dims))
        refuse_unless_known(self, centre=("drawn", "random"))
        if not self.hidden_dims or min(self.hidden_dims) < 1:
            raise InputError(f"hidden_dims = {self.hidden_dims} must be widths of at least 1.")
        if self.dims < 1:
            raise InputError(f"dims = {self.dims} must be at least 1.")


def make_deepsvdd(config: DeepSVDDConfig) -> Method:
    """Returns DeepSVDD as a Method with the one task "anomaly"; it has no map."""
    network = SVDDNetwork(config.hidden_dims, config.dims)

    def embed(params: PyTree, image: jax.Array) -> jax.Array:
        found: Any = network.apply({"params": params}, _centred(image))
        return found

    def distance(params: PyTree, frozen: PyTree, image: jax.Array) -> jax.Array:
        return jnp.sum(jnp.square(embed(params, image) - frozen["centre"]), axis=-1)

    def loss(params: PyTree, frozen: PyTree, example: Example, key: Any) -> tuple[Any, dict]:
        return distance(params, frozen, example["image"][None])[0], {}

    def score(params: PyTree, frozen: PyTree, batch: Example) -> dict[str, jax.Array]:
        return {"anomaly": distance(params, frozen, batch["image"])}

    return Method(
        name="deepsvdd",
        tasks=("anomaly",),
        init=functools.partial(_init, config, network),
        loss=loss,
        score=score,
        embed=lambda params, frozen, batch: {"embedding": embed(params, batch["image"])},
    )


def describe(config: DeepSVDDConfig) -> dict[str, Any]:
    """Returns what a report must say about the centre."""
    made = "of drawn images" if config.centre == "drawn" else "drawn at random"
    note = (
        f"Trained from random initial weights towards a fixed centre {made} (seed {config.seed}), "
        "which no patient's image shaped."
    )
    return {"initial_weights": "random", "centre": config.centre, "note": note}


def _centred(image: jax.Array) -> jax.Array:
    return (image.astype(jnp.float32) - 0.5) * 2


def _init(
    config: DeepSVDDConfig, network: SVDDNetwork, key: jax.Array, spec: dict[str, Any]
) -> tuple[PyTree, PyTree]:
    h, w, c = spec["image"].shape
    step = 2 ** len(config.hidden_dims)
    if h % (step // 2) or w % (step // 2) or min(h, w) < step:
        raise InputError(
            f"DeepSVDD cannot take images of {h}x{w}: with {len(config.hidden_dims)} convolutions "
            f"height and width must be multiples of {step // 2} and at least {step}."
        )
    params = _compiled(network, "init")(key, jnp.zeros((1, h, w, c)))["params"]
    if config.centre == "random":
        drawn = jax.random.normal(jax.random.key(config.seed), (config.dims,))
        return params, {"centre": drawn + 10}
    textures = synthetic_textures(DRAWN, max(h, w), seed=config.seed)[:, :h, :w, :1]
    images = (jnp.broadcast_to(jnp.asarray(textures), (DRAWN, h, w, c)) + 1) / 2
    centre = jnp.mean(_compiled(network, "apply")({"params": params}, _centred(images)), axis=0)
    near = jnp.abs(centre) < AWAY
    return params, {"centre": jnp.where(near, jnp.where(centre < 0, -AWAY, AWAY), centre)}


@functools.lru_cache(maxsize=8)
def _compiled(network: SVDDNetwork, what: str) -> Callable[..., Any]:
    """Compiled once for a network, which is initialised when it trains and when it is scored."""
    return jax.jit(getattr(network, what))
