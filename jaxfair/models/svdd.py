"""The network of DeepSVDD: bias-free, so that no constant can be its answer to every image."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxfair.models import layers

__all__ = ["SVDDNetwork", "instance_norm"]


class SVDDNetwork(nn.Module):
    """Images (b, h, w, c) -> (b, dims), h and w divisible by 2^(L - 1) and at least 2^L.

    3x3 convolutions of the given widths, each with a norm per image and channel (no affine) and a
    ReLU; all but the last with a 2x2 max-pool; the mean over space, a linear layer; no biases.
    Widths 32 to 512 with 256 dims: 1,698,080 parameters on grey images.
    Source: Ruff et al. 2018 (ICML), in the form of Meissen et al. 2023 (arXiv 2309.14198).
    """

    widths: tuple[int, ...] = (32, 64, 128, 256, 512)
    dims: int = 256

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for i, width in enumerate(self.widths):
            x = layers.Conv(width, 3, padding=1, name=f"conv{i}")(x)
            x = nn.relu(instance_norm(x))
            if i < len(self.widths) - 1:
                b, h, w, c = x.shape
                x = jnp.max(x.reshape(b, h // 2, 2, w // 2, 2, c), axis=(2, 4))
        x = jnp.mean(x, axis=(1, 2))
        init = layers.torch_uniform(x.shape[-1])
        return nn.Dense(self.dims, use_bias=False, kernel_init=init, name="out")(x)


def instance_norm(x: jax.Array) -> jax.Array:
    """torch's InstanceNorm2d without affine (eps 1e-5): each channel of each image by itself."""
    centred = x - jnp.mean(x, axis=(1, 2), keepdims=True)
    return centred * jax.lax.rsqrt(jnp.mean(jnp.square(centred), axis=(1, 2), keepdims=True) + 1e-5)
