"""Norms that never look at another image: GroupNorm, and BatchNorm with stored statistics."""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxfair.errors import InputError

__all__ = ["FrozenNorm", "group_count", "group_norm", "make_norm"]


class FrozenNorm(nn.Module):
    """BatchNorm with stored statistics (eps 1e-5): y = (x - mean) / sqrt(var + eps) * scale + bias.

    The collection "stats" holds mean and var (c,). They change only in an explicit call with
    `mutable=["stats"]`, which sets them to those of its input: that is how public or
    synthetic images are used to set them, and nothing else can.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape, axes = (x.shape[-1],), tuple(range(x.ndim - 1))
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        mean = self.variable("stats", "mean", jnp.zeros, shape)
        var = self.variable("stats", "var", jnp.ones, shape)
        if self.is_mutable_collection("stats"):
            mean.value, var.value = jnp.mean(x, axes), jnp.var(x, axes)
        gain = scale * jax.lax.rsqrt(var.value + 1e-5)
        return x * gain + (bias - mean.value * gain)


def make_norm(kind: str, channels: int, name: str | None = None) -> nn.Module:
    """Returns the norm "group" (GroupNorm by gcd) or "frozen" (BatchNorm, stored statistics)."""
    return group_norm(channels, name=name) if kind == "group" else FrozenNorm(name=name)


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


def group_norm(channels: int, rule: str = "gcd", name: str | None = None) -> nn.GroupNorm:
    """GroupNorm as torch has it (eps 1e-5, biased variance in two passes)."""
    groups = group_count(channels, rule)
    return nn.GroupNorm(groups, epsilon=1e-5, use_fast_variance=False, name=name)
