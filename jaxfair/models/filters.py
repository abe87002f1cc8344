"""Fixed features that no patient shaped: how often small patterns occur, and where in the image.

Filters, offsets and the scale of every feature come from images that are drawn from a public
seed, so the features cost no privacy and may be computed once. Whitened random patches as
filters, rectified on both sides and pooled: Coates, Lee & Ng 2011 (AISTATS), Coates & Ng 2011
(ICML). Features of unit length under a private linear head: Tramer & Boneh 2021
(arXiv 2011.11660).
"""

import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxfair.errors import InputError
from jaxfair.models.extractor import synthetic_textures
from jaxfair.models.layers import convolve_plain

__all__ = [
    "SMALLEST",
    "Design",
    "Group",
    "drawn_images",
    "feature_count",
    "filter_bank",
    "filter_features",
    "make_design",
]

DRAWN = 512
"""Drawn images behind the filters and the scales."""

PATCHES = 20_000
RIDGE = 1e-4
"""Added to the variances of patches before whitening; intensities lie in [0, 1]."""

SMALLEST = 36
"""Below this working size the coarse filters leave no room for three rings."""

RINGS = 3
FAR = 4.0
"""A standardised feature is clipped to [-FAR, FAR]."""

Bank = dict[str, Any]


class Group(NamedTuple):
    """Filters of one size at one resolution.

    Attributes:
      shrink: how many pixels of the working size become one.
      kernel: side of the filters; 1 looks at colours, more at patterns around the image's
        mean colour.
      filters: how many.
      stride: step of the filters.
    """

    shrink: int
    kernel: int
    filters: int
    stride: int = 1

    @property
    def name(self) -> str:
        """The key of the group in a bank."""
        return f"shrink{self.shrink}_kernel{self.kernel}"


class Design(NamedTuple):
    """What is measured; public.

    Attributes:
      size: images are resized to this side first.
      groups: the filters.
      symmetric: True averages over the eight flips and quarter turns of the image and pools
        over rings around its centre; False pools over 3 x 3 cells, for images with a top.
    """

    size: int
    groups: tuple[Group, ...]
    symmetric: bool


def make_design(size: int, patterns: int, colours: int, *, symmetric: bool) -> Design:
    """Returns the design of `patterns` 5 x 5 filters at two resolutions and `colours` thresholds.

    Raises InputError for a size that is no multiple of 4 or below SMALLEST, and for counts
    outside 1 to 4096.
    """
    if size % 4 or size < SMALLEST:
        raise InputError(f"size = {size} must be a multiple of 4 and at least {SMALLEST}.")
    for name, count in (("patterns", patterns), ("colours", colours)):
        if not 1 <= count <= 4096:
            raise InputError(f"{name} = {count} must lie in 1 to 4096.")
    groups = (
        Group(shrink=2, kernel=5, filters=patterns, stride=2),
        Group(shrink=4, kernel=5, filters=patterns),
        Group(shrink=2, kernel=1, filters=colours),
    )
    return Design(size, groups, symmetric)


@functools.cache
def filter_bank(design: Design, channels: int, seed: int) -> Bank:
    """Returns the filters and the mean and spread of every feature on drawn images.

    A function of public constants alone; about two seconds.
    """
    with jax.core.eval_context():  # cached arrays must be arrays, also inside a trace
        drawn = drawn_images(DRAWN, design.size, channels, seed=seed)
        rng = np.random.default_rng([seed, 1])
        bank: Bank = {g.name: _filters(g, drawn, rng) for g in design.groups}
        measure = jax.jit(jax.vmap(functools.partial(_raw, design, bank)))
        values = np.concatenate([measure(part) for part in np.split(drawn, DRAWN // 128)])
        spread = np.maximum(values.std(axis=0), 1e-6)
        return bank | {"features": {"mean": jnp.asarray(values.mean(axis=0)), "scale": spread}}


def filter_features(design: Design, bank: Bank, image: jax.Array) -> jax.Array:
    """Returns the features (d,) of one image (h, w, c) in [0, 1]: a vector of length 1."""
    known = bank["features"]
    standard = (_raw(design, bank, image) - known["mean"]) / known["scale"]
    standard = jnp.clip(standard, -FAR, FAR)
    return standard * jax.lax.rsqrt(jnp.sum(jnp.square(standard)) + 1e-12)


def feature_count(design: Design) -> int:
    """Returns d."""
    regions = RINGS if design.symmetric else RINGS**2
    return sum(2 * group.filters * regions for group in design.groups)


def drawn_images(count: int, size: int, channels: int, *, seed: int) -> np.ndarray:
    """Returns (count, size, size, channels) float32 in [0, 1]: soft blobs on grainy ground.

    Each has one blob with an uneven outline, of another colour than the ground and mottled,
    under grain of its own fineness. Nothing in them was measured on patients.
    """
    rng = np.random.default_rng([seed, 0])
    kinds = 3 + channels
    grain = synthetic_textures(kinds * count, size, seed=seed)[..., 0]
    grain = rng.permutation(grain).reshape(count, kinds, size, size)
    draw = lambda low, high, *more: rng.uniform(low, high, (count, *more, 1, 1))
    axis = np.linspace(-1, 1, size)
    far = np.hypot(axis[:, None] - draw(-0.2, 0.2), axis - draw(-0.2, 0.2))
    outline = far + draw(0.1, 0.5) * grain[:, 0]
    inside = (1 / (1 + np.exp((outline - draw(0.25, 0.8)) * draw(5, 25))))[:, None]
    ground = draw(0.3, 0.95, 1) + draw(-0.15, 0.15, channels)
    image = ground + inside * (draw(-0.5, 0.1, 1) + draw(-0.12, 0.12, channels))
    image = image + draw(0.03, 0.2, 1) * grain[:, 1:2] + draw(0.0, 0.06, 1) * grain[:, 3:]
    image = image + inside * draw(0.0, 0.4, 1) * grain[:, 2:3]
    return np.moveaxis(np.clip(image, 0, 1), 1, -1).astype(np.float32)


def _filters(group: Group, drawn: np.ndarray, rng: np.random.Generator) -> Bank:
    """Returns kernel (k, k, c, count), and what centres and scales a response."""
    images = np.asarray(_seen(group, jnp.asarray(drawn)))
    k, channels = group.kernel, images.shape[-1]
    if k == 1:
        kernel = rng.standard_normal((channels, group.filters))
    else:
        kernel = _whitened(_patches(images, k, rng), group.filters, rng)
    kernel = kernel.reshape(k, k, channels, group.filters).astype(np.float32)
    some = convolve_plain(jnp.asarray(images[:128]), jnp.asarray(kernel), stride=1, padding=0)
    responses = np.asarray(some).reshape(-1, group.filters)
    scale, centre = responses.std(axis=0), np.median(responses, axis=0)
    if k == 1:  # thresholds all over the range: a soft histogram
        centre = centre + scale * rng.standard_normal(group.filters)
        silent = np.zeros(group.filters)
    else:
        silent = rng.uniform(0, 0.5, group.filters)
    arrays = {"kernel": kernel, "centre": centre, "scale": scale, "silent": silent}
    return {name: jnp.asarray(values, jnp.float32) for name, values in arrays.items()}


def _patches(images: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    windows = np.lib.stride_tricks.sliding_window_view(images, (k, k), axis=(1, 2))
    places = tuple(rng.integers(0, side, PATCHES) for side in windows.shape[:3])
    return np.moveaxis(windows[places], 1, -1).reshape(PATCHES, -1)


def _whitened(patches: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Returns (k * k * c, count) filters that respond to whitened random patches."""
    values, vectors = np.linalg.eigh(np.cov(patches.T))
    whiten = (vectors * (values + RIDGE) ** -0.5) @ vectors.T
    chosen = patches[rng.choice(len(patches), count, replace=False)] - patches.mean(axis=0)
    chosen = chosen @ whiten
    return whiten @ (chosen / np.linalg.norm(chosen, axis=1, keepdims=True)).T


def _seen(group: Group, images: jax.Array) -> jax.Array:
    """Returns what the filters of a group look at, from images (b, size, size, c)."""
    b, size, _, c = images.shape
    side = size // group.shrink
    blocks = images.reshape(b, side, group.shrink, side, group.shrink, c)
    small = jnp.mean(blocks, axis=(2, 4))
    return small if group.kernel == 1 else small - jnp.mean(small, axis=(1, 2), keepdims=True)


def _raw(design: Design, bank: Bank, image: jax.Array) -> jax.Array:
    """Returns the features of one image before they are standardised."""
    shape = (design.size, design.size, image.shape[-1])
    image = jax.image.resize(image.astype(jnp.float32), shape, "linear")
    parts = [_responses(design, g, bank[g.name], image) for g in design.groups]
    return jnp.concatenate(parts)


def _responses(design: Design, group: Group, bank: Bank, image: jax.Array) -> jax.Array:
    images = _seen(group, image[None])
    turned = design.symmetric and group.kernel > 1  # a colour looks the same from all sides
    if turned:
        images = jnp.concatenate(
            [_turned(images, *how) for how in itertools.product((0, 1), range(4))]
        )
    y = convolve_plain(images, bank["kernel"], stride=group.stride, padding=0)
    y = (y - bank["centre"]) / bank["scale"]
    y = jnp.concatenate([jax.nn.relu(y - bank["silent"]), jax.nn.relu(-y - bank["silent"])], -1)
    regions = _rings(y.shape[1], upper=turned) if design.symmetric else _cells(y.shape[1])
    pooled = jnp.mean(jnp.einsum("bhwk,rhw->brk", y, regions), axis=0).reshape(-1)
    return jnp.log(pooled + 0.01) if group.kernel == 1 else pooled


def _turned(images: jax.Array, flip: int, turns: int) -> jax.Array:
    images = images[:, :, ::-1] if flip else images
    return jnp.rot90(images, turns, axes=(1, 2))


def _rings(side: int, *, upper: bool) -> np.ndarray:
    """Returns (RINGS, side, side) weights of a disc and the rings around it, each of sum 1.

    `upper` keeps the upper quarter of the outer rings: over all turns of the image they see
    everything, and a pattern that points outwards differs from one that runs around.
    """
    axis = (np.arange(side) - (side - 1) / 2) / (side / 2)
    ring = np.minimum(np.hypot(axis[:, None], axis) * RINGS, RINGS - 1).astype(int)
    masks = ring == np.arange(RINGS)[:, None, None]
    if upper:
        masks[1:] &= -axis[:, None] >= np.abs(axis)
    return _weights(masks)


def _cells(side: int) -> np.ndarray:
    """Returns (RINGS**2, side, side) weights of square cells, each of sum 1."""
    band = np.minimum(np.arange(side) * RINGS // side, RINGS - 1)
    cell = band[:, None] * RINGS + band
    return _weights(cell == np.arange(RINGS**2)[:, None, None])


def _weights(masks: np.ndarray) -> np.ndarray:
    return (masks / masks.sum(axis=(1, 2), keepdims=True)).astype(np.float32)
