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
    """
    x, y = x.astype(jnp.float32), y.astype(jnp.float32)
    c = x.shape[-1]
    # Two blurs, so that where y is a constant its part has no gradient to blur back.
    of_x = blur(jnp.concatenate([x, x * x + y * y, x * y], axis=-1), window)
    mu_y = blur(y, window)
    mu_x, squares, xy = (of_x[..., i * c : (i + 1) * c] for i in range(3))
    product, both = mu_x * mu_y, mu_x * mu_x + mu_y * mu_y
    likeness = (2 * product + C1) * (2 * (xy - product) + C2)
    return likeness / ((both + C1) * (squares - both + C2))


def blur(x: jax.Array, window: int = WINDOW) -> jax.Array:
    """Returns x (b, h, w, c) blurred by the SSIM window, zeros beyond the border.

    In full float32 on every device: a variance is a small difference of blurred squares.
    """
    b, h, w, c = x.shape
    rows = jnp.broadcast_to(blur_matrix(h, window), (b, h, h))  # per image, else XLA turns x around
    x = jnp.einsum("bih,bhn->bin", rows, x.reshape(b, h, w * c), precision="highest")
    x = x.reshape(b, h, w, c)
    return jnp.einsum("jw,bhwc->bhjc", blur_matrix(w, window), x, precision="highest")


@functools.cache
def blur_matrix(size: int, window: int = WINDOW) -> np.ndarray:
    """Returns the (size, size) float32 banded matrix of the one-dimensional Gaussian window."""
    offsets = np.arange(window) - window // 2
    weights = np.exp(-(offsets**2) / (2 * SIGMA**2))
    distance = np.arange(size)[None, :] - np.arange(size)[:, None] + window // 2
    inside = (distance >= 0) & (distance < window)
    band = (weights / weights.sum())[np.clip(distance, 0, window - 1)]
    return np.where(inside, band, 0).astype(np.float32)
