"""Images that nobody took: dead leaves with textures, drawn on the device from a seed.

No patient, no photograph and no scanner is in them, so a network that is trained on them is public.
Source: Baradad et al. 2021, "Learning to see by looking at noise" (dead leaves, spectra), Lee et
al. 2001 (occlusion by leaves whose radii follow a power law).
"""

import math

import jax
import jax.numpy as jnp

__all__ = ["LEAVES", "draw", "view"]

LEAVES = 20
"""Painted one over the other; the first ones are seldom seen."""

SMALLEST, LARGEST = 0.1, 0.8
"""Radii of leaves before each is stretched, in half sides of the image; their density falls with
the third power."""


def draw(key: jax.Array, side: int, ndim: int, channels: int) -> jax.Array:
    """Returns one image (side, ..., side, channels) float32 in [0, 1], with `ndim` spatial axes.

    Grounds and leaves have a colour and one of two textures of the image: noise whose amplitude
    falls with a random power of the frequency, from grain to clouds, and waves that such noise
    bends.
    """
    keys = jax.random.split(key, 4)
    cloud = _spectrum(keys[0], (side,) * ndim)
    textures = jnp.stack([cloud, _waves(keys[1], cloud)])
    image = _ground(keys[2], textures, channels)
    places = _places(side, ndim)

    def paint(image: jax.Array, key: jax.Array) -> tuple[jax.Array, None]:
        inside = _leaf(key, places)[..., None]
        return image + inside * (_ground(key, textures, channels) - image), None

    image, _ = jax.lax.scan(paint, image, jax.random.split(keys[3], LEAVES))
    return jnp.clip(image, 0, 1)


def view(key: jax.Array, image: jax.Array, side: int) -> jax.Array:
    """Returns a view (side, ..., side, c) of an image: what a network should call the same.

    A random part of it, a third of its side at least, brought to `side`; mirrored along each axis
    or not; with its own brightness, contrast and mixture of channels, grey one time in four;
    under grain.
    """
    ndim, channels = image.ndim - 1, image.shape[-1]
    keys = jax.random.split(key, 7)
    zoom = side / image.shape[0] / jax.random.uniform(keys[0], (), minval=1 / 3, maxval=1.0)
    spare = image.shape[0] * zoom - side
    shift = -jax.random.uniform(keys[1], (ndim,)) * spare
    shape = (side,) * ndim + (channels,)
    part = jax.image.scale_and_translate(
        image, shape, range(ndim), jnp.full(ndim, zoom), shift, "linear"
    )
    mirrored = jax.random.bernoulli(keys[2], shape=(ndim,))
    for axis in range(ndim):
        part = jnp.where(mirrored[axis], jnp.flip(part, axis), part)
    mixture = jnp.eye(channels) + 0.3 * jax.random.normal(keys[3], (channels, channels))
    gain, offset, grain = jax.random.uniform(
        keys[4], (3,), minval=jnp.array([0.5, -0.2, 0.0]), maxval=jnp.array([1.5, 0.2, 0.1])
    )
    grey = jnp.full((channels, channels), 1 / channels)
    mixture = jnp.where(jax.random.bernoulli(keys[6], 0.25), grey, mixture)
    part = ((part - 0.5) * gain) @ mixture + 0.5 + offset
    return jnp.clip(part + grain * jax.random.normal(keys[5], shape), 0, 1)


def _places(side: int, ndim: int) -> jax.Array:
    """Coordinates (ndim, side, ..., side) in [-1, 1]."""
    axis = jnp.linspace(-1, 1, side)
    return jnp.stack(jnp.meshgrid(*[axis] * ndim, indexing="ij"))


def _spectrum(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Noise in [-1, 1] whose amplitude falls as frequency^-a, a from 0.5 to 2.5."""
    noise_key, fall_key = jax.random.split(key)
    fall = jax.random.uniform(fall_key, (), minval=0.5, maxval=2.5) * len(shape) / 2
    axes = [jnp.fft.fftfreq(n) for n in shape[:-1]] + [jnp.fft.rfftfreq(shape[-1])]
    grids = jnp.meshgrid(*axes, indexing="ij")
    squares = sum(jnp.square(grid) for grid in grids)
    falls = jnp.where(squares > 0, squares, jnp.inf) ** (-fall / 2)
    noise = jnp.fft.irfftn(jnp.fft.rfftn(jax.random.normal(noise_key, shape)) * falls, s=shape)
    return noise / jnp.maximum(jnp.abs(noise).max(), 1e-12)


def _waves(key: jax.Array, cloud: jax.Array) -> jax.Array:
    """Parallel waves of a random direction and length, bent by a cloud, in [-1, 1]."""
    way_key, length_key, bend_key = jax.random.split(key, 3)
    way = jax.random.normal(way_key, (cloud.ndim,))
    way = way / jnp.maximum(jnp.linalg.norm(way), 1e-6)
    waves = jnp.exp(jax.random.uniform(length_key, (), minval=0.7, maxval=math.log(30)))
    bend = jax.random.uniform(bend_key, (), minval=0, maxval=6)
    phase = jnp.tensordot(way, _places(cloud.shape[0], cloud.ndim), 1)
    return jnp.sin(waves * phase + bend * cloud)


def _ground(key: jax.Array, textures: jax.Array, channels: int) -> jax.Array:
    """One colour, and one texture of it: (*spatial, channels)."""
    keys = jax.random.split(jax.random.fold_in(key, 1), 4)
    grey_key, colour_key, kind_key, strength_key = keys
    colour = jax.random.uniform(grey_key, (), minval=0.1, maxval=0.9)
    colour = colour + jax.random.uniform(colour_key, (channels,), minval=-0.25, maxval=0.25)
    texture = textures[jax.random.randint(kind_key, (), 0, 2)]
    strength = jax.random.uniform(strength_key, (channels,), minval=-0.3, maxval=0.3)
    return colour + texture[..., None] * strength


def _leaf(key: jax.Array, places: jax.Array) -> jax.Array:
    """1 inside of an ellipsoid with soft edges, 0 outside: (*spatial,)."""
    ndim = len(places)
    centre_key, size_key, shape_key, edge_key = jax.random.split(key, 4)
    centre = jax.random.uniform(centre_key, (ndim,), minval=-1.1, maxval=1.1)
    radius = _power_law(jax.random.uniform(size_key))
    shape = (jnp.eye(ndim) + 0.5 * jax.random.normal(shape_key, (ndim, ndim))) / radius
    offsets = jnp.tensordot(shape, places - centre.reshape(-1, *[1] * ndim), 1)
    far = jnp.sqrt(jnp.square(offsets).sum(0) + 1e-9)
    edge = jnp.exp(jax.random.uniform(edge_key, (), minval=math.log(3), maxval=math.log(60)))
    return jax.nn.sigmoid(edge * (1 - far))


def _power_law(uniform: jax.Array) -> jax.Array:
    """A radius whose density falls as radius^-3 between SMALLEST and LARGEST."""
    low, high = SMALLEST**-2, LARGEST**-2
    return jnp.power(low + uniform * (high - low), -0.5)
