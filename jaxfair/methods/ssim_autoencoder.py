"""A plain autoencoder on pixels: anomalies are what it cannot rebuild, without any extractor.

The network is that of the feature autoencoder on the image itself; likeness is SSIM in windows of
11 x 11 pixels, as for pictures. It shows what the frozen features of the others are worth.

Guarantee: norms and SSIM read one image, so the loss is one of that image alone and the step's
bound holds as it is; nothing couples. Source: Bergmann et al. 2019 (arXiv 1807.02011), whose
network has no norms; Meissen et al. 2022 (arXiv 2208.10992) for this one.
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
from jaxfair.models import norms
from jaxfair.models.autoencoder import FeatureAutoencoder
from jaxfair.models.ssim import ssim_map

__all__ = ["SSIMAutoencoderConfig", "describe", "make_ssim_autoencoder"]

WINDOW = 11


@dataclasses.dataclass(frozen=True)
class SSIMAutoencoderConfig:
    """What the autoencoder on pixels is; every field is a public choice.

    Attributes:
      hidden_dims: channels of the encoder's blocks, each of which halves the map; the decoder
        mirrors them.
      dropout: share of channels dropped in training, in [0, 1).
      loss: per pixel, "1-ssim" or "mse".
      group_rule: GroupNorm's groups, "gcd" of 32 and the channels, or "25/32".

    Raises InputError for a value outside these.
    """

    hidden_dims: tuple[int, ...] = (16, 32, 64, 128, 256)
    dropout: float = 0.0
    loss: str = "1-ssim"
    group_rule: str = "gcd"

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden_dims", tuple(self.hidden_dims))
        refuse_unless_known(self, loss=("1-ssim", "mse"), group_rule=("gcd", "25/32"))
        if not self.hidden_dims or min(self.hidden_dims) < 1:
            raise InputError(f"hidden_dims = {self.hidden_dims} must be widths of at least 1.")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout = {self.dropout} must lie in [0, 1).")
        for width in self.hidden_dims:
            norms.group_count(width, self.group_rule)


def make_ssim_autoencoder(config: SSIMAutoencoderConfig) -> Method:
    """Returns the autoencoder as a Method with the one task "anomaly"; its score is a mean."""
    model = FeatureAutoencoder(config.hidden_dims, config.dropout, config.group_rule)

    def unlikeness(params: PyTree, image: jax.Array, key: Any) -> jax.Array:
        image = image.astype(jnp.float32)
        drops = {} if key is None else {"dropout": key}
        rebuilt: Any = model.apply({"params": params}, image, train=key is not None, rngs=drops)
        if config.loss == "mse":
            return jnp.square(rebuilt - image)
        return 1 - ssim_map(rebuilt, image, WINDOW)

    def loss(params: PyTree, frozen: PyTree, example: Example, key: Any) -> tuple[Any, dict]:
        return jnp.mean(unlikeness(params, example["image"][None], key)), {}

    def score(params: PyTree, frozen: PyTree, batch: Example) -> dict[str, jax.Array]:
        maps = jnp.mean(unlikeness(params, batch["image"], None), axis=-1)
        return {"anomaly": jnp.mean(maps, axis=(1, 2)), "maps": maps}

    return Method(
        name="ssim_autoencoder",
        tasks=("anomaly",),
        init=functools.partial(_init, config, model),
        loss=loss,
        score=score,
    )


def describe(config: SSIMAutoencoderConfig) -> dict[str, Any]:
    """Returns what a report must say about the first weights."""
    return {"initial_weights": "random", "note": "Trained on pixels from random initial weights."}


def _init(
    config: SSIMAutoencoderConfig, model: FeatureAutoencoder, key: jax.Array, spec: dict[str, Any]
) -> tuple[PyTree, PyTree]:
    h, w, c = spec["image"].shape
    step = 2 ** len(config.hidden_dims)
    if h % step or w % step:
        raise InputError(
            f"The autoencoder on pixels cannot take images of {h}x{w}: with "
            f"{len(config.hidden_dims)} blocks height and width must be multiples of {step}."
        )
    return _compiled_init(model)(key, jnp.zeros((1, h, w, c)))["params"], {}


@functools.lru_cache(maxsize=8)
def _compiled_init(model: FeatureAutoencoder) -> Callable[..., Any]:
    """Compiled once for a network, which is initialised when it trains and when it is scored."""
    return jax.jit(functools.partial(model.init, train=False))
