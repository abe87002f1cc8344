"""A network that calls two views of one drawn image the same, and views of different ones not."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxfair.errors import InputError
from jaxfair.methods.base import Example, Method, PyTree, no_loss
from jaxfair.methods.encoder import refuse_unless_known
from jaxfair.models import heads
from jaxfair.models.resnet import ACTIVATIONS, DEPTHS
from jaxfair.pretrain.images import draw, view

__all__ = ["ContrastConfig", "alignment_and_uniformity", "make_contrast"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ContrastConfig:
    """What is trained, on what it looks, and how views are compared.

    Attributes:
      backbone: a residual network, one of DEPTHS.
      ndim: 2 for images, 3 for volumes.
      channels: of the images, and of the network's stem.
      activation: "relu" or "mish".
      standardise: weight standardisation of the filters.
      pixels: side of a view, in pixels (voxels).
      uniformity: weight of the second term of the loss.
      hidden, embedding: widths of the head on which views are compared; it is not kept.

    Raises InputError for a value outside these.
    """

    backbone: str = "resnet9"
    ndim: int = 2
    channels: int = 3
    activation: str = "mish"
    standardise: bool = False
    pixels: int = 48
    uniformity: float = 1.0
    hidden: int = 256
    embedding: int = 64

    def __post_init__(self) -> None:
        choices = {"backbone": tuple(DEPTHS), "ndim": (2, 3), "activation": tuple(ACTIVATIONS)}
        refuse_unless_known(self, **choices)
        for name in ("channels", "pixels", "hidden", "embedding"):
            least = 16 if name == "pixels" else 1
            if getattr(self, name) < least:
                raise InputError(f"network.{name} is {getattr(self, name)}; at least {least}.")
        if not 0 <= self.uniformity < float("inf"):
            raise InputError(f"network.uniformity is {self.uniformity}; a weight of at least 0.")


def make_contrast(config: ContrastConfig) -> Method:
    """Returns the Method. A raw example has `number` () int32, from which its image is drawn.

    It couples examples and is for plain training alone, which is all that drawn images need.
    """
    network = heads.make_network(
        config.backbone,
        0,
        activation=config.activation,
        channels=config.channels,
        standardise=config.standardise,
    )
    head = heads.MLP(config.hidden, config.embedding, network.backbone.width)
    return Method(
        name="contrast",
        tasks=(),
        init=functools.partial(_init, config, network, head),
        loss=no_loss,
        score=lambda params, frozen, batch: {},
        batch_loss=functools.partial(_batch_loss, config, network, head),
    )


def alignment_and_uniformity(
    first: jax.Array, second: jax.Array, mask: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns how far two views of one image are apart, and how unevenly images lie on the sphere.

    Args:
      first, second: (b, d) embeddings of length 1, of two views of each image.
      mask: (b,) False for padding, which counts nowhere.

    Returns:
      () the mean of |first - second|^2, and () the logarithm of the mean of
      exp(-2 |x - y|^2) over pairs of different images, within each of the two.

    Source: Wang and Isola 2020, equations 1 and 2, with alpha 2 and t 2.
    """
    real = mask.astype(jnp.float32)
    count = jnp.maximum(real.sum(), 1)
    apart = jnp.sum(real * jnp.sum(jnp.square(first - second), axis=-1)) / count
    pairs = real[:, None] * real[None, :] * (1 - jnp.eye(len(real)))
    many = jnp.maximum(pairs.sum(), 1)
    uneven = [
        jnp.log(jnp.maximum(jnp.sum(pairs * jnp.exp(4 * z @ z.T - 4)) / many, 1e-12))
        for z in (first, second)
    ]
    return apart, (uneven[0] + uneven[1]) / 2


def _init(
    config: ContrastConfig, network: Any, head: Any, key: jax.Array, spec: dict[str, Any]
) -> tuple[PyTree, PyTree]:
    image = jnp.zeros((1, *(config.pixels,) * config.ndim, config.channels))
    first, second = jax.random.split(key)
    variables = network.init(first, image, method="features")
    inner = head.init(second, jnp.zeros((1, network.backbone.width)))["params"]
    return {"backbone": variables["params"]["backbone"], "contrast": inner}, {}


def _batch_loss(
    config: ContrastConfig,
    network: Any,
    head: Any,
    params: PyTree,
    frozen: PyTree,
    batch: Example,
    mask: jax.Array,
    keys: jax.Array,
) -> jax.Array:
    side, drawn = config.pixels * 4 // 3, jax.random.key(0)
    image_keys = jax.vmap(jax.random.fold_in, (None, 0))(drawn, batch["number"])
    images = jax.vmap(lambda key: draw(key, side, config.ndim, config.channels))(image_keys)
    look = jax.vmap(lambda key, image: view(key, image, config.pixels))
    pairs = jax.vmap(jax.random.split, out_axes=1)(keys)
    views = jnp.concatenate([look(pairs[0], images), look(pairs[1], images)])
    found = network.apply({"params": {"backbone": params["backbone"]}}, views, method="features")
    embedded = head.apply({"params": params["contrast"]}, found)
    embedded = embedded / jnp.maximum(jnp.linalg.norm(embedded, axis=-1, keepdims=True), 1e-6)
    first, second = jnp.split(embedded, 2)
    apart, uneven = alignment_and_uniformity(first, second, mask)
    return apart + config.uniformity * uneven
