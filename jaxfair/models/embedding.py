"""A short vector of length 1 that stands for an image, and the linear outputs that read it."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxfair.models import layers

__all__ = ["EmbeddingHead", "unit"]


def unit(x: jax.Array) -> jax.Array:
    """Returns x (..., d) divided by its norm, which is then never above 1 but by rounding."""
    return x * jax.lax.rsqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True) + 1e-12)


class EmbeddingHead(nn.Module):
    """Features (b, width) -> embedding (b, dims) of length 1 -> logits (b, outputs).

    Parameters under "projection" and "classifier". Source: FCRO (arXiv 2301.01481), whose
    networks end so.
    """

    outputs: int
    width: int
    dims: int = 128

    def setup(self) -> None:
        self.projection = layers.dense(self.dims, self.width)
        self.classifier = layers.dense(self.outputs, self.dims)

    def __call__(self, features: jax.Array) -> jax.Array:
        return self.classify(self.embed(features))

    def embed(self, features: jax.Array) -> jax.Array:
        """Returns the embedding (b, dims)."""
        return unit(self.projection(features))

    def classify(self, embedding: jax.Array) -> jax.Array:
        """Returns logits (b, outputs) of the embedding (b, dims)."""
        return self.classifier(embedding)
