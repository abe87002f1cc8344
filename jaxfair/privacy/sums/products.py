"""The product A^T B of one example's operands, its norm, and by how much rounding may miss it.

Both ways to the norm lose digits where positions cancel. How many is bounded here: a sum of n
products, in whatever order, is off by at most n u sum |x||y| with u the `unit` of the format
(2^-24 in float32: Higham 2002, section 3.1; tensor cores: see `formats`). Long sums are cut into
blocks that are added pairwise, so that n is a block and a logarithm; a plain sum over two constant
rows was seen 2^-15 off.

A is (g, t, p), B (g, t, q): groups, positions, and the two sides of the weight.
"""

import jax
import jax.numpy as jnp
from jax import lax

from jaxfair.privacy.sums import formats
from jaxfair.privacy.sums.formats import FLOAT32, Format

__all__ = [
    "blocked_product",
    "gram_blocks",
    "gram_error",
    "gram_squares",
    "multiply",
    "product",
    "product_error",
]

Array = jax.Array


def multiply(equation: str, a: Array, b: Array, form: Format = FLOAT32) -> Array:
    """Returns an einsum of two operands of the format, accumulated in float32.

    Where a unit of the backend multiplies the format exactly, it does; elsewhere float32 at full
    precision gives the same products. In float32 there is no TF32 anywhere.
    """
    if formats.is_native(form):
        default, kept = lax.Precision.DEFAULT, jnp.float32
        a, b = a.astype(form.dtype), b.astype(form.dtype)
        return jnp.einsum(equation, a, b, precision=default, preferred_element_type=kept)
    a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    return jnp.einsum(equation, a, b, precision=lax.Precision.HIGHEST)


def product(a: Array, b: Array, form: Format = FLOAT32) -> Array:
    """Returns A^T B, (g, p, q), accumulated in float32."""
    return multiply("gtp,gtq->gpq", a, b, form)


def blocked_product(a: Array, b: Array, form: Format = FLOAT32) -> Array:
    """Returns A^T B, (g, p, q), that is `product_error` off at most."""
    block = _product_block(a.shape[1], form)
    a, b = _blocks(a, 1, block), _blocks(b, 1, block)
    return _pairwise_sum(multiply("kgtp,kgtq->kgpq", a, b, form))


def product_error(positions: int, form: Format = FLOAT32) -> float:
    """Returns e: `blocked_product` is off by at most e sum_t |a_t| |b_t| in norm."""
    return form.unit * _roundings(positions, _product_block(positions, form))


def gram_squares(a: Array, b: Array, form: Format = FLOAT32) -> Array:
    """Returns |A^T B|^2 = <A A^T, B B^T>, a scalar, without forming the product.

    It is `gram_error` off at most, and may come out negative.
    """
    return _pairwise_sum((_gram(a, form) * _gram(b, form)).reshape(-1))


def gram_error(groups: int, positions: int, rows: int, cols: int, form: Format = FLOAT32) -> float:
    """Returns e: `gram_squares` is off by at most e (sum_t |a_t| |b_t|)^2."""
    block = _gram_block(positions, form)
    entries = groups * positions**2
    of_grams = _roundings(rows, block) + _roundings(cols, block)
    return form.unit * of_grams + FLOAT32.unit * _roundings(entries, 1)


def gram_blocks(positions: int, size: int, form: Format = FLOAT32) -> int:
    """Returns in how many blocks a Gram matrix over `size` entries of each position is added."""
    return -(-size // _gram_block(positions, form))


def _gram(a: Array, form: Format) -> Array:
    parts = _blocks(a, 2, _gram_block(a.shape[1], form))
    return _pairwise_sum(multiply("kgtp,kgup->kgtu", parts, parts, form))


def _gram_block(positions: int, form: Format) -> int:
    """Blocks so short that the norm need not be rounded up where positions do not cancel.

    Positions of random signs leave |A^T B|^2 at 1 / t of the bound's square, and the slack
    forgives 2 * slack of it: two sums of n roundings pass where 2 n t u < 2 slack, n t < 3,800 in
    float32. Tensor cores take no shorter ones than 64: there the norm is rounded up, by .4 % at
    256 positions.
    """
    fits = 2 ** max(3, (3000 // positions).bit_length() - 1)
    return fits if form is FLOAT32 else max(64, fits)


def _product_block(positions: int, form: Format) -> int:
    """The same for the product, whose norm is then 1 / sqrt(t) of the bound: n sqrt(t) < 3,800.

    On tensor cores four times as long, so that up to 512 positions one product does: the norm is
    rounded up by at most .3 %.
    """
    block = 128 if positions <= 512 else 64 if positions <= 2048 else 32
    return block if form is FLOAT32 else 4 * block


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
