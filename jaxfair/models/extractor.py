"""The frozen feature extractor: ResNet-18 up to layer2, with stored statistics always.

One image's features never depend on another image: normalisation uses stored statistics,
in training as in evaluation, so features may be cached and a private step may use them.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxfair.models import layers
from jaxfair.models.norms import FrozenNorm
from jaxfair.models.resize import resize_aligned
from jaxfair.models.resnet import BasicBlock

__all__ = ["CHANNELS", "Extractor", "random_extractor", "synthetic_textures"]

CHANNELS = 256
"""Channels of the joined maps: 64 of layer0, 64 of layer1, 128 of layer2."""

PyTree = dict


class Extractor(nn.Module):
    """ResNet-18's stem, layer1 and layer2 on images (b, h, w, 3) -> (b, h/4, w/4, 256).

    Each stage's map is resized to h/4, w/4 with aligned corners and they are joined on the
    channels. Names follow torchvision: conv1, bn1, layer1_0, ... Source: He et al. 2016.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        size = (x.shape[1] // 4, x.shape[2] // 4)
        x = layers.Conv(64, 7, stride=2, padding=3, trained=False, name="conv1")(x)
        x = nn.relu(FrozenNorm(name="bn1")(x))
        maps = [layers.max_pool(x)]
        maps.append(_stage(maps[-1], 64, 1, "layer1"))
        maps.append(_stage(maps[-1], 128, 2, "layer2"))
        return jnp.concatenate([resize_aligned(m, size) for m in maps], axis=-1)


@functools.cache
def random_extractor(seed: int) -> tuple[PyTree, PyTree]:
    """Returns (params, stats) of an untrained extractor, a function of the public seed alone.

    He-normal filters; the stored statistics are those of `synthetic_textures`, layer by
    layer, so that every map is centred and scaled without having seen a patient.
    """
    with jax.core.eval_context():  # cached arrays must be arrays, also inside a trace
        return _measured(_drawn_params(np.random.default_rng(seed)), seed)


def synthetic_textures(count: int, size: int, *, seed: int) -> np.ndarray:
    """Returns (count, size, size, 3) float32 grey images in [-1, 1]: noise with power laws.

    Image i is Gaussian noise whose amplitude falls as frequency^-a with a from 0.5 to 2.5,
    scaled to [-1, 1]: from fine grain to soft clouds.
    """
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :])
    frequency[0, 0] = np.inf
    falls = np.linspace(0.5, 2.5, count)[:, None, None]
    spectrum = np.fft.rfft2(rng.standard_normal((count, size, size)))
    images = np.fft.irfft2(spectrum * frequency ** (-falls), s=(size, size))
    low, high = images.min(axis=(1, 2), keepdims=True), images.max(axis=(1, 2), keepdims=True)
    grey = 2 * (images - low) / (high - low) - 1
    return np.repeat(grey[..., None], 3, axis=-1).astype(np.float32)


def _stage(x: jax.Array, features: int, stride: int, name: str) -> jax.Array:
    block = functools.partial(BasicBlock, features, norm="frozen", trained=False)
    return block(name=f"{name}_1")(block(stride=stride, name=f"{name}_0")(x))


def _drawn_params(rng: np.random.Generator) -> PyTree:
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    shapes = jax.eval_shape(Extractor().init, jax.random.key(0), image)["params"]
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: _drawn(path[-1].key, leaf.shape, rng), shapes
    )


def _drawn(leaf: str, shape: tuple[int, ...], rng: np.random.Generator) -> jax.Array:
    if leaf != "kernel":
        return jnp.full(shape, float(leaf == "scale"))
    fan_out = shape[-1] * shape[0] * shape[1]
    return jnp.asarray(rng.standard_normal(shape, np.float32) * np.float32(np.sqrt(2 / fan_out)))


def _measured(params: PyTree, seed: int) -> tuple[PyTree, PyTree]:
    measure = jax.jit(functools.partial(Extractor().apply, mutable=["stats"]))
    _, measured = measure({"params": params}, synthetic_textures(32, 128, seed=seed))
    return params, measured["stats"]
