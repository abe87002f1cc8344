"""A backbone and its linear head."""

import jax
from flax import linen as nn

from jaxfair.models import layers
from jaxfair.models.densenet import DenseNet121
from jaxfair.models.lite import VARIANTS, Lite
from jaxfair.models.resnet import DEPTHS, ResNet
from jaxfair.models.slices import SliceNet

__all__ = ["BACKBONES", "MLP", "Network", "make_network"]

BACKBONES = (*DEPTHS, "densenet121", *VARIANTS, "slices")


class MLP(nn.Module):
    """Linear, ReLU, linear: (b, fan_in) -> (b, outputs); parameters under "inner" and "outer"."""

    hidden: int
    outputs: int
    fan_in: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.relu(layers.dense(self.hidden, self.fan_in, name="inner")(x))
        return layers.dense(self.outputs, self.hidden, name="outer")(x)


class Network(nn.Module):
    """Images (b, *spatial, c) -> logits (b, l); parameters under "backbone" and "head"."""

    backbone: nn.Module
    labels: int

    def setup(self) -> None:
        self.head = layers.dense(self.labels, self.backbone.width)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(self.backbone(x))

    def features(self, x: jax.Array) -> jax.Array:
        """Returns the pooled features (b, width) that the head reads."""
        return self.backbone(x)

    def classify(self, features: jax.Array) -> jax.Array:
        """Returns logits (b, l) of pooled features (b, width)."""
        return self.head(features)


def make_network(
    backbone: str,
    labels: int,
    *,
    norm: str = "group",
    activation: str = "relu",
    channels: int | None = None,
    pooled: bool = True,
    standardise: bool = False,
    reader: str = "resnet18",
) -> Network:
    """Returns the network of that backbone (one of BACKBONES) with `labels` outputs.

    With `channels` it reads images of so many, or grey ones as if repeated to so many; without,
    the channels of the images that it is made with. "slices" reads grey volumes alone. `labels`
    may be 0 where nothing but `features` is asked for; without `pooled` these are the maps before
    they are pooled (not of "slices"). `standardise` is of residual networks (DEPTHS) alone, and
    `reader` of "slices": the 2D network that reads each (`slices.READERS`).
    """
    if backbone in DEPTHS:
        return Network(ResNet(backbone, norm, activation, channels, pooled, standardise), labels)
    if backbone in VARIANTS:
        gives = "pooled" if pooled else "maps"
        return Network(Lite(backbone, norm, channels, gives), labels)
    if backbone == "slices":
        return Network(SliceNet(norm, activation, reader), labels)
    return Network(DenseNet121(norm, channels, pooled=pooled), labels)
