"""Bilinear resizing with aligned corners, as two small matrices."""

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["aligned_matrix", "resize_aligned"]


def aligned_matrix(size_in: int, size_out: int) -> np.ndarray:
    """Returns the (size_out, size_in) float32 matrix of linear interpolation.

    Output i reads position i (size_in - 1) / (size_out - 1), as torch's
    `interpolate(..., align_corners=True)` does; `jax.image.resize` reads half-pixel centres.
    """
    step = (size_in - 1) / (size_out - 1) if size_out > 1 else 0.0
    source = np.arange(size_out) * step
    low = np.minimum(source.astype(int), size_in - 1)
    high = np.minimum(low + 1, size_in - 1)
    matrix = np.zeros((size_out, size_in))
    np.add.at(matrix, (np.arange(size_out), low), 1 - (source - low))
    np.add.at(matrix, (np.arange(size_out), high), source - low)
    return matrix.astype(np.float32)


def resize_aligned(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Returns x (b, h, w, c) resized bilinearly to (b, *size, c); the identity keeps x itself."""
    h, w = x.shape[1:3]
    if (h, w) == tuple(size):
        return x
    rows, columns = aligned_matrix(h, size[0]), aligned_matrix(w, size[1])
    return jnp.einsum("ih,jw,bhwc->bijc", rows, columns, x, precision="highest")
