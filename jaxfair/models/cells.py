"""An image as a few numbers: frozen maps averaged over cells, along directions of drawn images.

What is measured, and in which units, follows from public weights and images that are drawn from a
public seed, so these numbers cost no privacy and may be computed once.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxfair.models.extractor import synthetic_textures

__all__ = ["DRAWN", "FAR", "Cells", "cell_numbers", "mean_over_cells", "public_cells"]

DRAWN = 128
"""Drawn images behind the units and the directions; there are fewer directions than that."""

FAR = 4.0
"""A standardised average is clipped to [-FAR, FAR]."""

Cells = dict[str, jax.Array]


def public_cells(
    maps_of: Callable[[Any, jax.Array], jax.Array],
    variables: Any,
    size: tuple[int, int],
    *,
    grid: int,
    dims: int,
    seed: int,
) -> Cells:
    """Returns what turns maps into numbers: `mean` and `scale` (f,), and `directions` (f, dims).

    Mean and spread are those of DRAWN textures; the directions are the leading ones in which these
    vary, each divided by the deviation along it, so that the numbers of drawn images have mean 0,
    variance 1 and no correlation. f = grid^2 times the channels of the maps.

    Args:
      maps_of: `(variables, images (b, h, w, 3) in [-1, 1]) -> maps (b, h', w', c)`.
      variables: of the extractor.
      size: (h, w) of the images.
      grid: cells a side; it divides h' and w'.
      dims: how many directions, below DRAWN.
      seed: of the drawn images.
    """
    h, w = size
    drawn = synthetic_textures(DRAWN, max(h, w), seed=seed)[:, :h, :w]
    measure = jax.jit(lambda weights, part: mean_over_cells(maps_of(weights, part), grid))
    raw = np.concatenate([measure(variables, part) for part in np.split(drawn, DRAWN // 32)])
    mean, scale = raw.mean(axis=0), np.maximum(raw.std(axis=0), 1e-3)
    standard = np.clip((raw - mean) / scale, -FAR, FAR)
    _, deviations, axes = np.linalg.svd(standard - standard.mean(axis=0), full_matrices=False)
    spread = np.maximum(deviations[:dims] / np.sqrt(DRAWN), 1e-3)
    arrays = {"mean": mean, "scale": scale, "directions": (axes[:dims].T / spread)}
    return {name: jnp.asarray(values, jnp.float32) for name, values in arrays.items()}


def cell_numbers(cells: Cells, maps: jax.Array, grid: int) -> jax.Array:
    """Returns (b, dims) of maps (b, h, w, c); see `public_cells`."""
    standard = (mean_over_cells(maps, grid) - cells["mean"]) / cells["scale"]
    far = jnp.clip(standard, -FAR, FAR)
    return jnp.matmul(far, cells["directions"], precision="highest")


def mean_over_cells(maps: jax.Array, grid: int) -> Any:
    """Returns (b, grid * grid * c): the mean of maps (b, h, w, c) over each cell.

    >>> mean_over_cells(jnp.arange(16.0).reshape(1, 4, 4, 1), 2).tolist()
    [[2.5, 4.5, 10.5, 12.5]]
    """
    b, h, w, c = maps.shape
    cut = maps.astype(jnp.float32).reshape(b, grid, h // grid, grid, w // grid, c)
    return jnp.mean(cut, axis=(2, 4)).reshape(b, -1)
