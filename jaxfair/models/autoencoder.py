"""The feature autoencoder: it learns to rebuild the feature maps of normal images."""

import jax
from flax import linen as nn

from jaxfair.models import layers, norms

__all__ = ["FeatureAutoencoder"]


class FeatureAutoencoder(nn.Module):
    """Encoder and decoder over feature maps (b, h, w, c) -> (b, h, w, c), h and w divisible by 2^L.

    Encoder block: 5x5 stride-2 convolution, GroupNorm, LeakyReLU(0.01), channel dropout; then
    one 5x5 convolution that keeps the map. Decoder block: 6x6 stride-2 transposed convolution
    with the same norm, activation and dropout; then a 1x1 convolution. No biases outside the
    norms. With `standardise` every kernel but the last is standardised. Source: Meissen et al. 2022
    (arXiv 2208.10992), BatchNorm replaced by GroupNorm.
    """

    hidden_dims: tuple[int, ...] = (100, 150, 200, 300)
    dropout: float = 0.1
    group_rule: str = "gcd"
    standardise: bool = False

    @nn.compact
    def __call__(self, features: jax.Array, *, train: bool) -> jax.Array:
        channels, x, standardise = features.shape[-1], features, self.standardise
        for i, width in enumerate(self.hidden_dims):
            down = layers.Conv(width, 5, 2, 2, standardise=standardise, name=f"down{i}")
            x = down(x)
            x = self._normalise(x, f"down{i}_norm", train)
        bottleneck = layers.Conv(
            self.hidden_dims[-1], 5, padding=2, standardise=standardise, name="bottleneck"
        )
        x = bottleneck(x)
        for i, width in enumerate((*self.hidden_dims[-2::-1], channels)):
            x = layers.UpConv(width, 6, standardise=standardise, name=f"up{i}")(x)
            x = self._normalise(x, f"up{i}_norm", train)
        return layers.Conv(channels, 1, name="out")(x)

    def _normalise(self, x: jax.Array, name: str, train: bool) -> jax.Array:
        x = norms.group_norm(x.shape[-1], self.group_rule, name=name)(x)
        return layers.dropout_channels(self.dropout, nn.leaky_relu(x, 0.01), train=train)
