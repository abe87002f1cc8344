"""The 2.5D attention model: every slice of a volume through one 2D network, then attention."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxfair.models import layers
from jaxfair.models.lite import VARIANTS, Lite
from jaxfair.models.resnet import ResNet

__all__ = ["READERS", "AttentionPool", "SliceNet"]

READERS = ("resnet18", *VARIANTS)
"""2D networks that may read the slices."""


class SliceNet(nn.Module):
    """Volumes (b, d, h, w, 1) -> pooled features (b, 512).

    One 2D network sees the d + h + w slices of all three orientations, grey repeated to three
    channels by a fixed all-ones vector ("stats"/colour); its vectors are the tokens of
    `AttentionPool`. Source: TUM-AIMED/2.5DAttention, which has a ResNet-18 with BatchNorm where
    `norm` stands here.

    Attributes:
      norm, activation: of the 2D network; a Lite has an activation of its own.
      reader: the 2D network, one of READERS. The 1,280 numbers that a Lite gives of a slice are
        brought to `width` by a layer of their own ("project"), which is trained.
    """

    norm: str = "group"
    activation: str = "relu"
    reader: str = "resnet18"
    width: int = 512

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        colour = self.variable("stats", "colour", jnp.ones, (3,))
        read = self._reader()
        tokens = []
        for axis in (1, 2, 3):
            slices = jnp.moveaxis(x, axis, 1)
            flat = slices.reshape(-1, *slices.shape[2:]) * colour.value
            tokens.append(read(flat).reshape(x.shape[0], x.shape[axis], -1))
        found = jnp.concatenate(tokens, axis=1)
        if found.shape[-1] != self.width:
            found = layers.dense(self.width, found.shape[-1], name="project")(found)
        return AttentionPool(name="attention")(found)

    def _reader(self) -> nn.Module:
        if self.reader in VARIANTS:
            return Lite(self.reader, self.norm, name="backbone")
        return ResNet(self.reader, self.norm, self.activation, name="backbone")


class AttentionPool(nn.Module):
    """Multi-head attention of the mean token over all tokens: (b, s, c) -> (b, c).

    As torch's MultiheadAttention(c, 8): joint input projection (Xavier-uniform, zero bias),
    scaled dot products, output projection.
    """

    heads: int = 8

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        b, s, c = tokens.shape
        joint = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform")
        project = nn.Dense(3 * c, kernel_init=joint, name="in_proj")
        mean = jnp.mean(tokens, axis=1, keepdims=True)
        query = project(mean)[..., :c].reshape(b, self.heads, c // self.heads)
        key, value = jnp.split(project(tokens)[..., c:], 2, axis=-1)
        split = (b, s, self.heads, c // self.heads)
        logits = jnp.einsum("bne,bsne->bns", query, key.reshape(split))
        weights = nn.softmax(logits / jnp.sqrt(jnp.float32(c // self.heads)), axis=-1)
        pooled = jnp.einsum("bns,bsne->bne", weights, value.reshape(split)).reshape(b, c)
        return nn.Dense(c, kernel_init=layers.torch_uniform(c), name="out_proj")(pooled)
