"""Structural similarity of feature maps, per channel, with the blur as banded matrix products."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["blur", "blur_matrix", "ssim_map"]

WINDOW = 5
SIGMA = 1.5
C1 = 0.01**2
C2 = 0.03**2


def ssim_map(x: jax.Array, y: jax.Array, window: int = WINDOW) -> jax.Array:
    """Returns the SSIM of x and y (b, h, w, c) at every position and channel, in [-1, 1].

    Gaussian window 5x5 (or of another odd side), sigma 1.5, zeros beyond the border, and
    constants for the dynamic range 1, as the feature autoencoder uses them on unbounded features
    (Meissen et al. 2022; Wang et al. 2004, equation 13). In float32 whatever the inputs are.

    Its gradient passes over the maps as seldom as it can: one blur of four maps, one of three back,
    and nothing held but the inputs and the four. Reverse mode alone.
    """
    return _ssim(x.astype(jnp.float32), y.astype(jnp.float32), window)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _ssim(x: jax.Array, y: jax.Array, window: int) -> jax.Array:
    return _forward(x, y, window)[0]


def _forward(x: jax.Array, y: jax.Array, window: int) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    blurred = _blur_all([x, y, x * x + y * y, x * y], window)
    top, bottom = _parts(*blurred)
    return top[0] * top[1] / (bottom[0] * bottom[1]), (x, y, *blurred)


def _backward(
    window: int, saved: tuple[jax.Array, ...], change: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The derivatives by what was blurred, blurred back."""
    x, y, mu_x, mu_y, squares, xy = saved
    top, bottom = _parts(mu_x, mu_y, squares, xy)
    unit = change / (bottom[0] * bottom[1])
    likeness = unit * top[0] * top[1]
    by_xy, by_squares = 2 * unit * top[0], -likeness / bottom[1]
    cross = 2 * unit * top[1] - by_xy
    own = 2 * (likeness / bottom[0] + by_squares)
    by_mu_x, by_mu_y = cross * mu_y - own * mu_x, cross * mu_x - own * mu_y
    back_mu, back_squares, back_xy = _blur_all([by_mu_x, by_squares, by_xy], window)
    by_x = back_mu + 2 * x * back_squares + y * back_xy
    return by_x, blur(by_mu_y, window) + 2 * y * back_squares + x * back_xy


_ssim.defvjp(_forward, _backward)


def _parts(
    mu_x: jax.Array, mu_y: jax.Array, squares: jax.Array, xy: jax.Array
) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    """The two factors above, and the two below the line."""
    product, both = mu_x * mu_y, mu_x * mu_x + mu_y * mu_y
    return (2 * product + C1, 2 * (xy - product) + C2), (both + C1, squares - both + C2)


def _blur_all(maps: list[jax.Array], window: int) -> list[jax.Array]:
    return jnp.split(blur(jnp.concatenate(maps), window), len(maps))


def blur(x: jax.Array, window: int = WINDOW) -> jax.Array:
    """Returns x (b, h, w, c) blurred by the SSIM window, zeros beyond the border.

    In full float32 on every device: a variance is a small difference of blurred squares.
    """
    b, h, w, c = x.shape
    x = _multiplied(blur_matrix(h, window), x.reshape(b, h, w * c))
    return _multiplied(blur_matrix(w, window), x.reshape(b * h, w, c)).reshape(b, h, w, c)


def _multiplied(matrix: np.ndarray, x: jax.Array) -> jax.Array:
    """Returns matrix (s, s) times each of x (n, s, k), as one batch of products.

    The matrix stands there for each, under `vmap` too, else XLA turns the maps around before the
    product and after. The choice between it and itself, which XLA takes out, says so to `vmap`.
    """
    each = jnp.where(x[:, :1, :1] > 0, matrix, matrix)
    return jnp.matmul(each, x, precision="highest")


@functools.cache
def blur_matrix(size: int, window: int = WINDOW) -> np.ndarray:
    """Returns the (size, size) float32 banded matrix of the one-dimensional Gaussian window."""
    offsets = np.arange(window) - window // 2
    weights = np.exp(-(offsets**2) / (2 * SIGMA**2))
    distance = np.arange(size)[None, :] - np.arange(size)[:, None] + window // 2
    inside = (distance >= 0) & (distance < window)
    band = (weights / weights.sum())[np.clip(distance, 0, window - 1)]
    return np.where(inside, band, 0).astype(np.float32)
