"""Principal directions of normal images: what lies outside of them is anomalous.

Features, passes and guarantee are those of `gaussian`; the covariance that was released is taken
apart into its leading directions, and the score is the squared length of what they leave of an
image, in the units of drawn images. No further query is made for it.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxfair.errors import InputError
from jaxfair.methods.base import Method, PyTree
from jaxfair.methods.gaussian import GaussianConfig, in_first_units, make_detector
from jaxfair.methods.gaussian import describe as describe_gaussian
from jaxfair.methods.normal_law import Normal

__all__ = ["PCAConfig", "describe", "make_pca", "residual"]


@dataclasses.dataclass(frozen=True)
class PCAConfig(GaussianConfig):
    """Principal directions on frozen features; every field is a public choice.

    Attributes:
      directions: that count as normal, below `dims`.

    Raises InputError for a value outside these.
    """

    directions: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.directions < self.dims:
            raise InputError(f"directions = {self.directions} must lie in 1 to below `dims`.")


def make_pca(config: PCAConfig) -> Method:
    """Returns the detector as a Method of `passes` stages, with the one task "anomaly"."""

    def distance(config: Any, frozen: PyTree, law: Normal, x: jax.Array) -> jax.Array:
        return residual(*in_first_units(frozen, law), x, config.directions)

    return make_detector("pca", config, distance)


def residual(mean: jax.Array, covariance: jax.Array, x: jax.Array, count: int) -> jax.Array:
    """Returns (b,): the squared length of x (b, d) outside the `count` leading directions."""
    _, vectors = jnp.linalg.eigh(covariance)
    outside = (x - mean) @ vectors[:, : covariance.shape[0] - count]  # eigh's values rise
    return jnp.sum(jnp.square(outside), axis=-1)


def describe(config: PCAConfig) -> dict[str, Any]:
    """Returns what a report must say about the features: how many, and where they are from."""
    told = describe_gaussian(config)
    note = f"{told['note']} The {config.directions} leading directions count as normal."
    return told | {"note": note}
