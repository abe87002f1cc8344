"""The product A^T B of one example's operands, its norm, and by how much float32 may miss it.

Both ways to the norm lose digits where positions cancel. How many is bounded here: a sum of n
products in float32, in whatever order, is off by at most n u sum |x||y| with u = 2^-24
(Higham 2002, section 3.1). Long sums are cut into blocks that are added pairwise, so that n is
a block and a logarithm; a plain sum over two constant rows was seen 2^-15 off.

A is (g, t, p), B (g, t, q): groups, positions, and the two sides of the weight.
"""

import jax
import jax.numpy as jnp
from jax import lax

__all__ = ["blocked_product", "gram_error", "gram_squares", "product", "product_error"]

Array = jax.Array

_EXACT = lax.Precision.HIGHEST

_UNIT = 2.0**-24
"""Relative rounding of one float32 operation."""


def product(a: Array, b: Array) -> Array:
    """Returns A^T B, (g, p, q), accumulated in float32 with no TF32."""
    return jnp.einsum("gtp,gtq->gpq", a, b, precision=_EXACT)


def blocked_product(a: Array, b: Array) -> Array:
    """Returns A^T B, (g, p, q), that is `product_error` off at most."""
    block = _product_block(a.shape[1])
    a, b = _blocks(a, 1, block), _blocks(b, 1, block)
    return _pairwise_sum(jnp.einsum("kgtp,kgtq->kgpq", a, b, precision=_EXACT))


def product_error(positions: int) -> float:
    """Returns e: `blocked_product` is off by at most e sum_t |a_t| |b_t| in norm."""
    return _UNIT * _roundings(positions, _product_block(positions))


def gram_squares(a: Array, b: Array) -> Array:
    """Returns |A^T B|^2 = <A A^T, B B^T>, a scalar, without forming the product.

    It is `gram_error` off at most, and may come out negative.
    """
    return _pairwise_sum((_gram(a) * _gram(b)).reshape(-1))


def gram_error(groups: int, positions: int, rows: int, cols: int) -> float:
    """Returns e: `gram_squares` is off by at most e (sum_t |a_t| |b_t|)^2."""
    block = _gram_block(positions)
    entries = groups * positions**2
    return _UNIT * (_roundings(rows, block) + _roundings(cols, block) + _roundings(entries, 1))


def _gram(a: Array) -> Array:
    parts = _blocks(a, 2, _gram_block(a.shape[1]))
    return _pairwise_sum(jnp.einsum("kgtp,kgup->kgtu", parts, parts, precision=_EXACT))


def _gram_block(positions: int) -> int:
    """Blocks so short that the norm need not be rounded up where positions do not cancel.

    Positions of random signs leave |A^T B|^2 at 1 / t of the bound's square, and `fast.SLACK`
    forgives 2 * SLACK of it: two sums of n roundings pass where 2 n t u < 2 SLACK, n t < 3,800.
    """
    return 2 ** max(3, (3000 // positions).bit_length() - 1)


def _product_block(positions: int) -> int:
    """The same for the product, whose norm is then 1 / sqrt(t) of the bound: n sqrt(t) < 3,800."""
    return 128 if positions <= 512 else 64 if positions <= 2048 else 32


def _roundings(count: int, block: int) -> int:
    """Returns how often an entry is rounded at most in a sum of `count` products by blocks."""
    return min(count, block) + (-(-count // block) - 1).bit_length()


def _blocks(x: Array, axis: int, size: int) -> Array:
    """Returns (k, *shape) with `axis` cut into k blocks of `size` (zeros fill the last)."""
    count = x.shape[axis]
    if count <= size:
        return x[None]
    full = [(0, 0)] * x.ndim
    full[axis] = (0, -count % size)
    x = jnp.pad(x, full)
    x = x.reshape(*x.shape[:axis], -1, size, *x.shape[axis + 1 :])
    return jnp.moveaxis(x, axis, 0)


def _pairwise_sum(x: Array) -> Array:
    """Returns the sum over the first axis, each entry rounded log2 times."""
    while x.shape[0] > 1:
        half = x.shape[0] // 2
        rest = x[2 * half :]
        x = jnp.concatenate([x[:half] + x[half : 2 * half], rest])
    return x[0]
