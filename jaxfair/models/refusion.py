"""Attributes of a patient put back into what a network has seen, under control, and an adversary.

Two forms. On maps (b, *spatial, c) it is the network of FairREAD (arXiv 2412.16373, section 3.3)
as published, its weaknesses included: dropout on the attributes themselves, a scale that may be
negative, a gate that can close a channel for good, nothing that goes around a block. On vectors
(b, c) it is ours: the scale is positive, the gate is centred on 1, and every block adds to what it
was given.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxfair.models import layers
from jaxfair.models.norms import make_norm

__all__ = [
    "AttributeEncoder",
    "MapAdversary",
    "MapBlock",
    "Refusion",
    "VectorAdversary",
    "VectorBlock",
]

CODE = 128
"""Width of the first layer of the attribute encoder."""

NARROW = 8
"""A block's bottleneck, and an adversary's, has the channels divided by this."""


class AttributeEncoder(nn.Module):
    """Attributes (b, k) -> shift and scale (b, width) each, of every block alike.

    With a dropout of `rate` on its hidden layer and of `input_rate` on the attributes themselves.
    Source: FairREAD's "simple" encoder; its scale is an unconstrained linear output, though the
    paper calls it a variance.
    """

    width: int = 256
    rate: float = 0.1
    input_rate: float = 0.1

    @nn.compact
    def __call__(self, attributes: jax.Array, *, train: bool) -> tuple[jax.Array, jax.Array]:
        given = _dropout(self.input_rate, attributes, train)
        code = nn.relu(layers.dense(CODE, attributes.shape[-1], name="code")(given))
        code = _dropout(self.rate, code, train)
        shift = layers.dense(self.width, CODE, name="shift")(code)
        return shift, layers.dense(self.width, CODE, name="scale")(code)


class MapBlock(nn.Module):
    """One re-fusion of maps (b, *spatial, c) -> the same shape, as published.

    u = ReLU(W1 GAP(x)), v = u * scale + shift, r = ReLU(W2 v), then x * r through a bottleneck of
    1x1, 3x3 and 1x1 convolutions, each with a norm and none with a ReLU, and one ReLU at the end.
    `norm` is of `make_norm`; with "frozen" and no stored statistics of its own it is a scale and
    a bias.
    """

    norm: str = "group"
    rate: float = 0.1

    @nn.compact
    def __call__(
        self, x: jax.Array, shift: jax.Array, scale: jax.Array, *, train: bool
    ) -> jax.Array:
        channels, width = x.shape[-1], shift.shape[-1]
        pooled = _dropout(self.rate, _pooled(x), train)
        u = nn.relu(layers.dense(width, channels, name="squeeze")(pooled))
        v = _dropout(self.rate, u * scale + shift, train)
        gate = nn.relu(layers.dense(channels, width, name="excite")(v))
        x = x * gate.reshape(-1, *(1,) * (x.ndim - 2), channels)
        return nn.relu(_bottleneck(x, self.norm))


class VectorBlock(nn.Module):
    """One re-fusion of vectors (b, c) -> (b, c), ours.

    u = ReLU(W1 x), v = u * softplus(scale) + shift, y = x * (1 + W2 v), and
    y + W4 ReLU(W3 y) with c / 8 in between.
    """

    rate: float = 0.1

    @nn.compact
    def __call__(
        self, x: jax.Array, shift: jax.Array, scale: jax.Array, *, train: bool
    ) -> jax.Array:
        channels, width = x.shape[-1], shift.shape[-1]
        u = nn.relu(layers.dense(width, channels, name="squeeze")(x))
        v = _dropout(self.rate, u * nn.softplus(scale) + shift, train)
        x = x * (1 + layers.dense(channels, width, name="excite")(v))
        narrow = max(1, channels // NARROW)
        inner = nn.relu(layers.dense(narrow, channels, name="narrow")(x))
        return x + layers.dense(channels, narrow, name="widen")(inner)


class MapAdversary(nn.Module):
    """Maps (b, *spatial, c) -> (b, guesses) logits of the attributes, as published.

    It may be told something (b, t) beside the maps, which the published one is not.
    """

    guesses: int
    norm: str = "group"

    @nn.compact
    def __call__(self, x: jax.Array, told: jax.Array | None = None) -> jax.Array:
        pooled = _beside(_pooled(nn.relu(_bottleneck(x, self.norm))), told)
        return layers.dense(self.guesses, pooled.shape[-1], name="guess")(pooled)


class VectorAdversary(nn.Module):
    """Vectors (b, c), and what it is told (b, t) -> (b, guesses) logits, by 256 hidden units."""

    guesses: int
    hidden: int = 256

    @nn.compact
    def __call__(self, x: jax.Array, told: jax.Array | None = None) -> jax.Array:
        x = _beside(x, told)
        inner = nn.relu(layers.dense(self.hidden, x.shape[-1], name="inner")(x))
        return layers.dense(self.guesses, self.hidden, name="guess")(inner)


class Refusion(nn.Module):
    """Maps (b, *spatial, c), or vectors (b, c) where `vectors`, and attributes -> (b, labels).

    Parameters under "attributes", "block_0", "block_1", ..., "head" and "adversary".

    Attributes:
      labels: outputs.
      guesses: logits of the adversary; 0 for none.
      channels: c.
      vectors: which form.
      blocks: how many re-fusions.
      width: of what is shifted and scaled, the paper's d_hidden.
      rate: of every dropout.
      norm: of maps, "group" or "frozen".
    """

    labels: int
    guesses: int
    channels: int
    vectors: bool = False
    blocks: int = 2
    width: int = 256
    rate: float = 0.1
    norm: str = "group"

    def setup(self) -> None:
        on_inputs = 0.0 if self.vectors else self.rate
        self.attributes = AttributeEncoder(self.width, self.rate, on_inputs)
        block = lambda: VectorBlock(self.rate) if self.vectors else MapBlock(self.norm, self.rate)
        self.block = [block() for _ in range(self.blocks)]
        self.dropout = nn.Dropout(self.rate)
        self.head = layers.dense(self.labels, self.channels)
        made = VectorAdversary(self.guesses)
        self.adversary = made if self.vectors else MapAdversary(self.guesses, self.norm)

    def __call__(self, x: jax.Array, attributes: jax.Array, *, train: bool) -> jax.Array:
        """Returns logits (b, labels); with `train` the rng "dropout" is needed.

        Args:
          attributes: (b, k), 0 where one is not known.
        """
        shift, scale = self.attributes(attributes, train=train)
        for block in self.block:
            x = block(x, shift, scale, train=train)
        return self.head(self.dropout(_pooled(x), deterministic=not train))

    def guess(self, x: jax.Array, told: jax.Array | None = None) -> jax.Array:
        """Returns the adversary's logits (b, guesses) of what has not been re-fused.

        Args:
          told: (b, t) what it is told beside, as the labels; None for nothing.
        """
        return self.adversary(x, told)

    def both(
        self, x: jax.Array, attributes: jax.Array, told: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array | None]:
        """Returns what `__call__` and `guess` do; for initialising all parameters at once."""
        return self(x, attributes, train=False), self.guess(x, told) if self.guesses else None


def _bottleneck(x: jax.Array, norm: str) -> jax.Array:
    """1x1, 3x3, 1x1 convolutions with norms; its modules belong to whoever calls it."""
    channels, narrow = x.shape[-1], max(1, x.shape[-1] // NARROW)
    shapes = ((narrow, 1, 0), (narrow, 3, 1), (channels, 1, 0))
    for i, (features, kernel, padding) in enumerate(shapes, start=1):
        x = layers.Conv(features, kernel, padding=padding, name=f"conv{i}")(x)
        x = make_norm(norm, features, f"norm{i}")(x)
    return x


def _pooled(x: jax.Array) -> jax.Array:
    """The mean over space; a vector as it is."""
    return jnp.mean(x, axis=range(1, x.ndim - 1)) if x.ndim > 2 else x


def _beside(x: jax.Array, told: jax.Array | None) -> jax.Array:
    """Vectors with what is told beside them."""
    return x if told is None else jnp.concatenate([x, told], axis=-1)


def _dropout(rate: float, x: jax.Array, train: bool) -> jax.Array:
    return nn.Dropout(rate, deterministic=not train)(x)
