"""Residual networks in two and three dimensions, without a norm that looks at the batch."""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxfair.models import layers
from jaxfair.models.norms import make_norm

__all__ = ["ACTIVATIONS", "DEPTHS", "BasicBlock", "Bottleneck", "ResNet"]

ACTIVATIONS = {"relu": nn.relu, "mish": layers.mish}

DEPTHS = {
    "resnet9": ("basic", (1, 1, 1, 1)),
    "resnet18": ("basic", (2, 2, 2, 2)),
    "resnet34": ("basic", (3, 4, 6, 3)),
    "resnet50": ("bottleneck", (3, 4, 6, 3)),
}
"""Kind of block and blocks per stage. ResNet9 is the network of Ziller et al. (DP_CXR)."""


class BasicBlock(nn.Module):
    """act(norm(conv3(act(norm(conv3_s(x))))) + skip(x)); the skip is a 1x1 where shapes differ."""

    features: int
    stride: int = 1
    norm: str = "group"
    activation: str = "relu"
    trained: bool = True
    standardise: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        act, conv, norm = _pieces(self)
        y = conv(self.features, 3, stride=self.stride, padding=1, name="conv1")(x)
        y = act(norm(self.features, "bn1")(y))
        y = norm(self.features, "bn2")(conv(self.features, 3, padding=1, name="conv2")(y))
        return act(y + _skip(self, x, self.features))


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride), 1x1 to 4 features, and the same skip."""

    features: int
    stride: int = 1
    norm: str = "group"
    activation: str = "relu"
    trained: bool = True
    standardise: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        act, conv, norm = _pieces(self)
        wide = 4 * self.features
        y = act(norm(self.features, "bn1")(conv(self.features, 1, name="conv1")(x)))
        y = conv(self.features, 3, stride=self.stride, padding=1, name="conv2")(y)
        y = act(norm(self.features, "bn2")(y))
        y = norm(wide, "bn3")(conv(wide, 1, name="conv3")(y))
        return act(y + _skip(self, x, wide))


class ResNet(nn.Module):
    """Images (b, *spatial, c) with two or three spatial axes -> pooled features (b, width).

    Modules are named as in torchvision (conv1, bn1, layer1_0, ...), whatever the norm.
    `depth` is a key of DEPTHS, `norm` one of `norms.KINDS` (32 groups at every width);
    `channels` are the stem's, to which a grey image counts as repeated (`layers.Conv`). Without
    `pooled` it gives the maps (b, *spatial', width) of the last block. With `standardise` every
    convolution has a standardised kernel (`norms.standardised`).
    Source: He et al. 2016; ResNet9 as in Ziller et al. 2023 (arXiv 2302.01622).
    """

    depth: str = "resnet9"
    norm: str = "group"
    activation: str = "relu"
    channels: int | None = None
    pooled: bool = True
    standardise: bool = False

    @property
    def width(self) -> int:
        """Number of pooled features."""
        return 512 if DEPTHS[self.depth][0] == "basic" else 2048

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kind, counts = DEPTHS[self.depth]
        block = functools.partial(
            BasicBlock if kind == "basic" else Bottleneck,
            norm=self.norm,
            activation=self.activation,
            standardise=self.standardise,
        )
        x = layers.Conv(
            64, 7, stride=2, padding=3, kernel_init=layers.he_normal, channels=self.channels,
            standardise=self.standardise, name="conv1",
        )(x)  # fmt: skip
        x = ACTIVATIONS[self.activation](make_norm(self.norm, 64, "bn1")(x))
        x = layers.max_pool(x)
        for stage, count in enumerate(counts):
            for i in range(count):
                stride = 2 if stage > 0 and i == 0 else 1
                x = block(64 * 2**stage, stride, name=f"layer{stage + 1}_{i}")(x)
        wide = jnp.promote_types(x.dtype, jnp.float32)  # features of bfloat16 maps are not rounded
        return jnp.mean(x, axis=range(1, x.ndim - 1), dtype=wide) if self.pooled else x


def _pieces(block: nn.Module) -> tuple:
    conv = functools.partial(
        layers.Conv,
        kernel_init=layers.he_normal,
        trained=block.trained,
        standardise=block.standardise,
    )
    return ACTIVATIONS[block.activation], conv, functools.partial(make_norm, block.norm)


def _skip(block: nn.Module, x: jax.Array, features: int) -> jax.Array:
    if block.stride == 1 and x.shape[-1] == features:
        return x
    _, conv, norm = _pieces(block)
    x = conv(features, 1, stride=block.stride, name="downsample_0")(x)
    return norm(features, "downsample_1")(x)
