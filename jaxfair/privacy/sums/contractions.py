"""Filter gradients as matrix products: A (g, t, p) and B (g, t, q) with product A^T B per group.

A weight gradient of one example is a contraction of two activations over t positions.
`dot_general` is one already; a convolution becomes one by slicing patches (slices, because
`conv_general_dilated_patches` is itself a convolution). The squared norm is then either
|A^T B|^2, or <A A^T, B B^T> where t is small and the weight is large (Li et al. 2021,
Rochette et al. 2019, Bu et al. 2022).
"""

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

__all__ = ["Contraction", "contraction_of"]

Array = jax.Array


class Contraction(NamedTuple):
    """One contraction of an example's activations, as matrices.

    Attributes:
      groups, positions, rows, cols: g, t, p, q; the product has shape (g, p, q).
      operands: floats of lhs and rhs together, before any patches.
      matrices: `(lhs, rhs) -> (A (g, t, p), B (g, t, q))` for one example.
      assemble: `(g, p, q) -> output of the contraction`, a rearrangement.
    """

    groups: int
    positions: int
    rows: int
    cols: int
    operands: int
    matrices: Callable[[Array, Array], tuple[Array, Array]]
    assemble: Callable[[Array], Array]


def contraction_of(eqn: Any) -> Contraction:
    """Returns the Contraction of a `dot_general` or `conv_general_dilated` equation."""
    lhs, rhs = (v.aval.shape for v in eqn.invars)
    if eqn.primitive.name == "dot_general":
        return _from_dot(lhs, rhs, eqn.params["dimension_numbers"])
    return _from_conv(lhs, rhs, eqn.outvars[0].aval.shape, eqn.params)


def _from_dot(lhs: tuple[int, ...], rhs: tuple[int, ...], numbers: Any) -> Contraction:
    (lhs_contract, rhs_contract), (lhs_batch, rhs_batch) = numbers
    groups, positions, lhs_free = _split(lhs, lhs_batch, lhs_contract)
    _, _, rhs_free = _split(rhs, rhs_batch, rhs_contract)
    g, t, p, q = (math.prod(s) for s in (groups, positions, lhs_free, rhs_free))
    floats = math.prod(lhs) + math.prod(rhs)

    def matrices(x: Array, y: Array) -> tuple[Array, Array]:
        x = jnp.moveaxis(x, (*lhs_batch, *lhs_contract), range(len(groups + positions)))
        y = jnp.moveaxis(y, (*rhs_batch, *rhs_contract), range(len(groups + positions)))
        return x.reshape(g, t, p), y.reshape(g, t, q)

    return Contraction(
        g, t, p, q, floats, matrices, lambda z: z.reshape(*groups, *lhs_free, *rhs_free)
    )


def _split(shape: tuple[int, ...], batch: Any, contract: Any) -> tuple[tuple[int, ...], ...]:
    free = tuple(n for i, n in enumerate(shape) if i not in (*batch, *contract))
    return tuple(shape[i] for i in batch), tuple(shape[i] for i in contract), free


class _Conv(NamedTuple):
    """A convolution: lhs (g, c, *space, n), rhs (g, c, *kernel, o), out (g, n, o, *out)."""

    lhs: tuple[int, ...]
    rhs: tuple[int, ...]
    out: tuple[int, ...]
    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    lhs_dilation: tuple[int, ...]
    rhs_dilation: tuple[int, ...]


def _from_conv(lhs: Any, rhs: Any, out: Any, params: Any) -> Contraction:
    """out[n, o, r] = sum_{c, k} lhs_padded[n, c, r stride + k dilation] rhs[o, c, k]."""
    numbers = params["dimension_numbers"]
    by_feature, by_batch = params["feature_group_count"], params["batch_group_count"]
    g = by_feature * by_batch
    n, c = lhs[numbers.lhs_spec[0]] // by_batch, rhs[numbers.rhs_spec[1]]
    o = rhs[numbers.rhs_spec[0]] // g
    conv = _Conv(
        tuple(lhs[i] for i in numbers.lhs_spec[2:]),
        tuple(rhs[i] for i in numbers.rhs_spec[2:]),
        tuple(out[i] for i in numbers.out_spec[2:]),
        params["window_strides"],
        params["padding"],
        params["lhs_dilation"],
        params["rhs_dilation"],
    )
    of_lhs = _patches_of_lhs(conv, n, o)
    taps, floats = math.prod(conv.out), math.prod(lhs) + math.prod(rhs)

    def channels_last(x: Array, y: Array) -> tuple[Array, Array]:
        x = jnp.transpose(x, numbers.lhs_spec)
        if by_feature > 1:
            x = jnp.moveaxis(x.reshape(n, g, c, *conv.lhs), 0, -1)
        else:
            x = jnp.moveaxis(x.reshape(g, n, c, *conv.lhs), 1, -1)
        y = jnp.transpose(y, numbers.rhs_spec).reshape(g, o, c, *conv.rhs)
        return x, jnp.moveaxis(y, 1, -1)

    def matrices(x: Array, y: Array) -> tuple[Array, Array]:
        x, y = channels_last(x, y)
        if of_lhs:
            return _lhs_patches(conv, x).reshape(g, -1, taps * n), y.reshape(g, -1, o)
        return x.reshape(g, -1, n), _rhs_patches(conv, y).reshape(g, -1, taps * o)

    def assemble(z: Array) -> Array:
        if of_lhs:
            z = jnp.transpose(z.reshape(g, taps, n, o), (2, 0, 3, 1))
        else:
            z = jnp.transpose(z.reshape(g, n, taps, o), (1, 0, 3, 2))
        z = z.reshape(n, g * o, *conv.out)
        return jnp.transpose(z, _inverse(numbers.out_spec))

    if of_lhs:
        return Contraction(g, c * math.prod(conv.rhs), taps * n, o, floats, matrices, assemble)
    return Contraction(g, c * math.prod(conv.lhs), n, taps * o, floats, matrices, assemble)


def _patches_of_lhs(conv: _Conv, n: int, o: int) -> bool:
    """Patches are cut from the operand for which they are smaller; both are exact."""
    if any(d > 1 for d in conv.rhs_dilation):
        return True
    if any(d > 1 for d in conv.lhs_dilation):
        return False
    return n * math.prod(conv.rhs) <= o * math.prod(conv.lhs)


def _lhs_patches(conv: _Conv, x: Array) -> Array:
    """(g, c, *space, n) -> (g, c, *kernel, taps, n): what each tap of the output sees of lhs."""
    config = [(lo, hi, d - 1) for (lo, hi), d in zip(conv.padding, conv.lhs_dilation, strict=True)]
    x = _pad(x, config)
    sizes = [(k - 1) * d + 1 for k, d in zip(conv.rhs, conv.rhs_dilation, strict=True)]
    return _windows(x, conv.out, conv.strides, sizes, conv.rhs_dilation)


def _rhs_patches(conv: _Conv, y: Array) -> Array:
    """(g, c, *kernel, o) -> (g, c, *space, taps, o): what each tap sees of rhs (dilation 1)."""
    config, sizes = [], []
    for i, (lo, _) in enumerate(conv.padding):
        reach = (conv.out[i] - 1) * conv.strides[i]
        size = (conv.lhs[i] - 1) * conv.lhs_dilation[i] + 1
        config.append((reach - lo, lo + size - conv.rhs[i], 0))
        sizes.append(size)
    back = [-s for s in conv.strides]
    return _windows(_pad(y, config), conv.out, back, sizes, conv.lhs_dilation)


def _windows(x: Array, taps: Any, steps: Any, sizes: Any, strides: Any) -> Array:
    """Slices of `sizes` and `strides` at each tap, stacked before the last axis."""
    slices = []
    for tap in itertools.product(*map(range, taps)):
        start = [
            t * s if s > 0 else (n - 1 - t) * -s for t, s, n in zip(tap, steps, taps, strict=True)
        ]
        stop = [a + size for a, size in zip(start, sizes, strict=True)]
        slices.append(_slice(x, start, stop, strides))
    return jnp.stack(slices, axis=-2)


def _slice(x: Array, start: Any, stop: Any, strides: Any) -> Array:
    return lax.slice(
        x,
        (0, 0, *start, 0),
        (*x.shape[:2], *stop, x.shape[-1]),
        (1, 1, *strides, 1),
    )


def _pad(x: Array, space: Any) -> Array:
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), (0, 0, 0), *space, (0, 0, 0)])


def _inverse(permutation: Any) -> tuple[int, ...]:
    return tuple(sorted(range(len(permutation)), key=lambda i: permutation[i]))
