"""Norms that look at no other image: GroupNorm, BatchNorm with stored statistics, of filters."""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxfair.errors import InputError

__all__ = [
    "KINDS",
    "FrozenNorm",
    "GroupNorm",
    "group_count",
    "group_norm",
    "make_norm",
    "standardised",
]

KINDS = ("group", "unscaled", "frozen")
"""What `make_norm` makes: GroupNorm, the same without a learned scale, stored statistics."""


class FrozenNorm(nn.Module):
    """BatchNorm with stored statistics: y = (x - mean) / sqrt(var + eps) * scale + bias.

    The collection "stats" holds mean and var (c,). They change only in an explicit call with
    `mutable=["stats"]`, which sets them to those of its input: that is how public or
    synthetic images are used to set them, and nothing else can.
    """

    eps: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape, axes = (x.shape[-1],), tuple(range(x.ndim - 1))
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        mean = self.variable("stats", "mean", jnp.zeros, shape)
        var = self.variable("stats", "var", jnp.ones, shape)
        if self.is_mutable_collection("stats"):
            mean.value, var.value = jnp.mean(x, axes), jnp.var(x, axes)
        gain = scale * jax.lax.rsqrt(var.value + self.eps)
        return (x * gain + (bias - mean.value * gain)).astype(x.dtype)


class GroupNorm(nn.Module):
    """torch's GroupNorm (eps 1e-5, biased variance in two passes) on (b, *spatial, c).

    Each channel is summed over its map before the channels of a group are: a sum over both
    at once reads the map with a stride, and takes four times as long on CPU. Statistics are
    at least in float32; the result is as x. Without `scaled` no scale is learned, only the shift.
    Source: Wu and He 2018 (arXiv 1803.08494).
    """

    groups: int
    scaled: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        scale = jnp.ones((), bias.dtype)
        if self.scaled:
            scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        centred = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        centred = centred - self._group_mean(centred)
        gain = jax.lax.rsqrt(self._group_mean(jnp.square(centred)) + 1e-5)
        return (centred * (gain * scale) + bias).astype(x.dtype)

    def _group_mean(self, x: jax.Array) -> jax.Array:
        """Returns (b, 1, ..., 1, c): the mean over space and the channels of one's group."""
        b, *spatial, c = x.shape
        of_channels = x
        for _ in spatial:  # axis by axis: short sums round less
            of_channels = jnp.mean(of_channels, axis=1)
        of_groups = jnp.mean(of_channels.reshape(b, self.groups, -1), axis=-1)
        return jnp.repeat(of_groups, c // self.groups, axis=-1).reshape(b, *(1 for _ in spatial), c)


def make_norm(kind: str, channels: int, name: str | None = None, *, eps: float = 1e-5) -> nn.Module:
    """Returns the norm of that kind, one of KINDS; groups are by gcd, and `eps` is of "frozen"."""
    if kind == "frozen":
        return FrozenNorm(eps, name=name)
    return GroupNorm(group_count(channels), scaled=kind == "group", name=name)


def group_count(channels: int, rule: str = "gcd") -> int:
    """Returns the number of groups: gcd(32, channels), or by the thesis's rule "25/32".

    "25/32" is 32 where it divides the channels, else 25 (or `channels` if fewer), and
    raises InputError where 25 does not divide them.
    """
    if rule == "gcd":
        return math.gcd(32, channels)
    groups = 32 if channels % 32 == 0 else min(25, channels)
    if channels % groups:
        raise InputError(
            f"{channels} channels cannot be split into {groups} groups as the rule {rule!r} "
            "asks; use widths divisible by 25 or 32, or the rule 'gcd'."
        )
    return groups


def group_norm(channels: int, rule: str = "gcd", name: str | None = None) -> GroupNorm:
    """Returns the GroupNorm of `channels` channels by the rule of `group_count`."""
    return GroupNorm(group_count(channels, rule), name=name)


def standardised(kernel: jax.Array) -> jax.Array:
    """Returns the kernel (*window, c, p) with mean 0 and variance 1 / (window x c) of each filter.

    It is a function of the parameters alone, which each example's gradient goes through by itself.
    A filter of variance below 1e-4 / (window x c) is divided by the root of that. Source: Qiao et
    al. 2019 (arXiv 1903.10520), scaled by the fan-in as Brock et al. 2021 (arXiv 2101.08692).

    >>> [round(float(weight), 3) for weight in standardised(jnp.array([[1.0], [3.0]]))[:, 0]]
    [-0.707, 0.707]
    """
    inputs = tuple(range(kernel.ndim - 1))
    exact = kernel.astype(jnp.promote_types(kernel.dtype, jnp.float32))
    centred = exact - jnp.mean(exact, inputs, keepdims=True)
    squares = jnp.sum(jnp.square(centred), inputs, keepdims=True)
    return (centred * jax.lax.rsqrt(jnp.maximum(squares, 1e-4))).astype(kernel.dtype)
