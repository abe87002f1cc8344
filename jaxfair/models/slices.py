"""The 2.5D attention model: every slice of a volume through one 2D network, then attention."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxfair.models import layers
from jaxfair.models.resnet import ResNet

__all__ = ["AttentionPool", "SliceNet"]


class SliceNet(nn.Module):
    """Volumes (b, d, h, w, 1) -> pooled features (b, 512).

    One ResNet-18 sees the d + h + w slices of all three orientations, grey repeated to three
    channels by a fixed all-ones vector ("stats"/colour); its 512-vectors are the tokens of
    `AttentionPool`. Source: TUM-AIMED/2.5DAttention, BatchNorm replaced by `norm`.
    """

    norm: str = "group"
    activation: str = "relu"
    width: int = 512

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        colour = self.variable("stats", "colour", jnp.ones, (3,))
        backbone = ResNet("resnet18", self.norm, self.activation, name="backbone")
        tokens = []
        for axis in (1, 2, 3):
            slices = jnp.moveaxis(x, axis, 1)
            flat = slices.reshape(-1, *slices.shape[2:]) * colour.value
            tokens.append(backbone(flat).reshape(x.shape[0], x.shape[axis], self.width))
        return AttentionPool(name="attention")(jnp.concatenate(tokens, axis=1))


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
