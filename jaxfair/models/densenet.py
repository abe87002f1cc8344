"""DenseNet-121, without a norm that looks at the batch."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxfair.models import layers
from jaxfair.models.norms import make_norm

__all__ = ["DenseNet121"]

BLOCKS = (6, 12, 24, 16)
GROWTH = 32


class DenseNet121(nn.Module):
    """Images (b, *spatial, c) -> pooled features (b, 1024). Source: Huang et al. 2017.

    Without `pooled` maps (b, *spatial', 1024), as the last norm leaves them: no ReLU, no mean.

    Modules are named as in torchvision (features_conv0, features_denseblock1_denselayer1, ...).
    `channels` are the stem's, to which a grey image counts as repeated (`layers.Conv`).
    """

    norm: str = "group"
    channels: int | None = None
    width: int = 1024
    pooled: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = layers.Conv(
            64, 7, stride=2, padding=3, kernel_init=_HE, channels=self.channels,
            name="features_conv0",
        )(x)  # fmt: skip
        x = layers.max_pool(nn.relu(make_norm(self.norm, 64, "features_norm0")(x)))
        for i, count in enumerate(BLOCKS, start=1):
            for j in range(1, count + 1):
                new = _DenseLayer(self.norm, name=f"features_denseblock{i}_denselayer{j}")(x)
                x = jnp.concatenate([x, new], axis=-1)
            if i < len(BLOCKS):
                x = _Transition(self.norm, name=f"features_transition{i}")(x)
        x = make_norm(self.norm, x.shape[-1], "features_norm5")(x)
        return jnp.mean(nn.relu(x), axis=range(1, x.ndim - 1)) if self.pooled else x


class _DenseLayer(nn.Module):
    norm: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = nn.relu(make_norm(self.norm, x.shape[-1], "norm1")(x))
        y = layers.Conv(4 * GROWTH, 1, kernel_init=_HE, name="conv1")(y)
        y = nn.relu(make_norm(self.norm, 4 * GROWTH, "norm2")(y))
        return layers.Conv(GROWTH, 3, padding=1, kernel_init=_HE, name="conv2")(y)


class _Transition(nn.Module):
    norm: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = nn.relu(make_norm(self.norm, x.shape[-1], "norm")(x))
        y = layers.Conv(x.shape[-1] // 2, 1, kernel_init=_HE, name="conv")(y)
        n = x.ndim - 2
        return nn.avg_pool(y, (2,) * n, strides=(2,) * n)


_HE = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
