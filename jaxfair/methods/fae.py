"""The feature autoencoder: anomalies are what it cannot rebuild.

A frozen extractor turns an image into feature maps once; the trained autoencoder rebuilds
them; where structure differs (1 - SSIM, or squared error) the image is anomalous. Source:
Meissen et al. 2022 (arXiv 2208.10992).
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxfair.errors import InputError, nearest
from jaxfair.methods.base import Example, Method, PyTree
from jaxfair.methods.multiplicity import Augment, refuse_views_of_nothing, views_of
from jaxfair.methods.precision import MODEL_PRECISIONS, in_precision
from jaxfair.models import norms
from jaxfair.models.autoencoder import FeatureAutoencoder
from jaxfair.models.extractors import describe_extractor, make_extractor
from jaxfair.models.resize import resize_aligned
from jaxfair.models.ssim import ssim_map
from jaxfair.models.tail import mean_above_quantile

__all__ = ["FAEConfig", "describe", "make_fae"]

TOP_SHARE = 0.1
"""The score is the mean of the anomaly map strictly above its (1 - TOP_SHARE)-quantile."""

VIEWS = 0x76696577
"""Which of the streams of an example's key draws its views; dropout has the key itself."""

_CHOICES = {
    "loss": ("1-ssim", "-ssim", "mse"),
    "center": ("once", "twice"),
    "score_region": ("all", "foreground"),
    "group_rule": ("gcd", "25/32"),
    "feature_dtype": ("float32", "bfloat16"),
    "precision": MODEL_PRECISIONS,
}


@dataclasses.dataclass(frozen=True)
class FAEConfig:
    """What the feature autoencoder is; every field is a public choice.

    Attributes:
      hidden_dims: channels of the encoder's blocks; the decoder mirrors them.
      dropout: share of channels dropped in training, in [0, 1).
      loss: per position and channel, "1-ssim", "-ssim" or "mse".
      center: "once" maps [0, 1] to [-1, 1] before the extractor; "twice" to [-3, 1], as the
        published results did.
      score_region: "all" pixels, or "foreground": those above 0 (grey above 0 with center
        "once", above 0.5 with "twice", where grey has been centred already).
      group_rule: GroupNorm's groups, "gcd" of 32 and the channels, or "25/32".
      feature_dtype: of the cached features, "float32" or "bfloat16"; the loss is float32.
      precision: of the autoencoder's convolutions, "float32" or "bfloat16" (methods/precision.py).
      standardise: each filter of the autoencoder but the last has mean 0 and variance 1 / fan-in,
        whatever its parameters (weight standardisation, as in De et al. 2022).
      multiplicity: augmented views of one image whose losses are averaged, before the clip.
      extractor_name: "resnet18", or "lite0" to "lite4" (EfficientNet-Lite).
      extractor_weights: a state dict of that network (.safetensors, .pth) or a public name; None
        for a seeded random ResNet-18, or for the Lite's own public weights (docs/weights.md).
      extractor_seed: seed of the random extractor and of drawn images; a public constant.

    Raises InputError for a value outside these.
    """

    hidden_dims: tuple[int, ...] = (100, 150, 200, 300)
    dropout: float = 0.1
    loss: str = "1-ssim"
    center: str = "once"
    score_region: str = "all"
    group_rule: str = "gcd"
    feature_dtype: str = "float32"
    precision: str = "float32"
    standardise: bool = False
    multiplicity: int = 1
    extractor_name: str = "resnet18"
    extractor_weights: str | None = None
    extractor_seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden_dims", tuple(self.hidden_dims))
        for name, known in _CHOICES.items():
            value = getattr(self, name)
            if value not in known:
                raise InputError(
                    f"{name} = {value!r} is none of {', '.join(map(repr, known))}."
                    + nearest(str(value), known)
                )
        make_extractor(self.extractor_name)  # which refuses an unknown name
        if not self.hidden_dims or any(width < 1 for width in self.hidden_dims):
            raise InputError(f"hidden_dims = {self.hidden_dims} must be widths of at least 1.")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout = {self.dropout} must lie in [0, 1).")
        if self.multiplicity < 1:
            raise InputError(f"multiplicity = {self.multiplicity} must be at least 1.")
        for width in self.hidden_dims:
            norms.group_count(width, self.group_rule)


def make_fae(config: FAEConfig, augment: Augment | None = None) -> Method:
    """Returns the feature autoencoder as a Method with the one task "anomaly".

    Args:
      config: the public choices.
      augment: `(raw example, key) -> raw example`, drawn anew for every view. With it the extractor
        reads the changed images in every step; without, each image once.

    Raises InputError for a multiplicity above 1 without `augment`.
    """
    refuse_views_of_nothing(config.multiplicity, augment)
    model = FeatureAutoencoder(
        config.hidden_dims, config.dropout, config.group_rule, config.standardise
    )
    method = Method(
        name="fae",
        tasks=("anomaly",),
        init=functools.partial(_init, config, model),
        loss=functools.partial(_loss, config, model, augment),
        score=functools.partial(_score, config, model),
        prepare=functools.partial(_prepare, config) if augment is None else None,
    )
    return in_precision(method, config.precision)


def describe(config: FAEConfig) -> dict[str, Any]:
    """Returns what a report must say about the extractor: kind, seed or checksum, a sentence."""
    return describe_extractor(
        config.extractor_name, config.extractor_weights, config.extractor_seed
    )


def _init(
    config: FAEConfig, model: FeatureAutoencoder, key: jax.Array, spec: dict[str, Any]
) -> tuple[PyTree, PyTree]:
    h, w, c = spec["image"].shape
    _check_image(h, w, c, depth=len(config.hidden_dims))
    made = make_extractor(config.extractor_name)
    features = jnp.zeros((1, h // 4, w // 4, made.channels))
    params = _compiled_init(model)(key, features)["params"]
    return params, made.variables(config.extractor_weights, config.extractor_seed)


@functools.lru_cache(maxsize=8)
def _compiled_init(model: FeatureAutoencoder) -> Callable[..., Any]:
    """Compiled once for a network, which is initialised when it trains and when it is scored."""
    return jax.jit(functools.partial(model.init, train=False))


def _check_image(h: int, w: int, c: int, *, depth: int) -> None:
    step = 4 * 2**depth
    if h % step or w % step or c not in (1, 3):
        raise InputError(
            f"The feature autoencoder cannot take images of {h}x{w} with {c} channels: with "
            f"{depth} blocks height and width must be multiples of {step}, with 1 or 3 channels."
        )


def _prepare(config: FAEConfig, frozen: PyTree, raw: Example) -> Example:
    """Returns {"features": (h/4, w/4, c')} of one raw example's image (h, w, c) in [0, 1]."""
    return {"features": _features(config, frozen, raw["image"][None])[0]}


def _features(config: FAEConfig, frozen: PyTree, images: jax.Array) -> jax.Array:
    """Returns (b, h/4, w/4, c') of images (b, h, w, c) in [0, 1]."""
    x = (images.astype(jnp.float32) - 0.5) * 2
    if config.center == "twice":
        x = (x - 0.5) * 2
    x = jnp.broadcast_to(x, (*x.shape[:3], 3))
    features = make_extractor(config.extractor_name).maps(frozen, x)
    return features.astype(config.feature_dtype)


def _loss(
    config: FAEConfig,
    model: FeatureAutoencoder,
    augment: Augment | None,
    params: PyTree,
    frozen: PyTree,
    example: Example,
    key: jax.Array,
) -> tuple[jax.Array, dict[str, Any]]:
    if augment is None:
        features = example["features"].astype(jnp.float32)[None]
    else:
        views = views_of(augment, example, config.multiplicity, jax.random.fold_in(key, VIEWS))
        features = _features(config, frozen, views["image"]).astype(jnp.float32)
    rebuilt: Any = model.apply({"params": params}, features, train=True, rngs={"dropout": key})
    return jnp.mean(_loss_map(config, rebuilt, features)), {}


def _loss_map(config: FAEConfig, rebuilt: jax.Array, features: jax.Array) -> jax.Array:
    if config.loss == "mse":
        return jnp.square(rebuilt - features)
    likeness = ssim_map(rebuilt, features)
    return -likeness if config.loss == "-ssim" else 1 - likeness


def _score(
    config: FAEConfig, model: FeatureAutoencoder, params: PyTree, frozen: PyTree, batch: Example
) -> dict[str, jax.Array]:
    image, features = batch["image"], batch.get("features")
    if features is None:  # where images change in training, none is prepared
        features = _features(config, frozen, image)
    features = features.astype(jnp.float32)
    rebuilt: Any = model.apply({"params": params}, features, train=False)
    coarse = jnp.mean(_loss_map(config, rebuilt, features), axis=-1, keepdims=True)
    maps = resize_aligned(coarse, image.shape[1:3])[..., 0]
    region = jnp.ones(maps.shape, bool)
    if config.score_region == "foreground":
        region = jnp.mean(image, axis=-1) > (0.5 if config.center == "twice" else 0.0)
    n, pixels = maps.shape[0], math.prod(image.shape[1:3])
    flat = (maps.reshape(n, pixels), region.reshape(n, pixels))
    score = jax.vmap(lambda m, r: mean_above_quantile(m, 1 - TOP_SHARE, r))(*flat)
    return {"anomaly": score, "maps": maps}
