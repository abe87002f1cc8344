"""The sum over examples of a leaf's contractions, in one call of the library.

sum_i conv(x_i, y_i) is ONE convolution: the axis of examples is merged into the feature axis over
which a convolution contracts anyway, so that the library's own filter gradient runs. With groups
the features of lhs are (g, c): the examples go between. What is no convolution, or is made of
moved data (`producers.operand_of`), is one batched product.

Rows that contribute nothing are zero in both operands when they come here.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxfair.privacy.sums import formats, products, rounding, ways
from jaxfair.privacy.sums.formats import Format

__all__ = ["is_convolution", "merged_convolution", "summed_site"]

Array = jax.Array


def summed_site(leaf: ways.Leaf, number: int, a: Array, b: Array, form: Format) -> Array:
    """Returns the sum over examples of one site of a leaf, in float32, shaped as its output.

    Args:
      leaf, number: the site is `leaf.sites[number]`.
      a, b: (rows, ...) operands of the format, as `leaf.cuts[number]` holds them.
    """
    site = leaf.sites[number]
    if site.positions > 1 and is_convolution(leaf, number):
        return merged_convolution(leaf.producer.sites[number], a, b, form)
    a, b = jax.vmap(site.matrices)(a, b)
    if site.positions == 1:  # few multiplications, whose sum over examples has a proved rounding
        a, b = a.astype(jnp.float32), b.astype(jnp.float32)
        return site.assemble(rounding.summed("kbgtp,kbgtq->kgpq", a, b))
    return site.assemble(products.multiply("bgtp,bgtq->gpq", a, b, form))


def is_convolution(leaf: ways.Leaf, number: int) -> bool:
    """Whether a site is a convolution of the very variables that are held."""
    eqn = leaf.producer.sites[number]
    held = all(x is y for x, y in zip(leaf.cuts[number], eqn.invars, strict=True))
    return eqn.primitive.name == "conv_general_dilated" and held


def merged_convolution(eqn: Any, a: Array, b: Array, form: Format) -> Array:
    """Returns the sum over the leading axis of `a` and `b` of an equation's convolution.

    Args:
      eqn: a `conv_general_dilated` of one example.
      a, b: (rows, *lhs) and (rows, *rhs).
    """
    given = eqn.params
    numbers, groups = given["dimension_numbers"], given["feature_group_count"]
    a = _merged(a, numbers.lhs_spec[1], groups)
    b = _merged(b, numbers.rhs_spec[1], 1)
    native = formats.is_native(form)
    if not native:
        a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    return lax.conv_general_dilated(
        a,
        b,
        window_strides=given["window_strides"],
        padding=given["padding"],
        lhs_dilation=given["lhs_dilation"],
        rhs_dilation=given["rhs_dilation"],
        dimension_numbers=numbers,
        feature_group_count=groups,
        batch_group_count=given["batch_group_count"],
        precision=lax.Precision.DEFAULT if native else lax.Precision.HIGHEST,
        preferred_element_type=jnp.float32,
    )


def _merged(x: Array, axis: int, groups: int) -> Array:
    """(rows, ..., g c, ...) -> (..., g rows c, ...), the examples inside each group."""
    shape = x.shape[1:]
    x = x.reshape(-1, *shape[:axis], groups, shape[axis] // groups, *shape[axis + 1 :])
    x = jnp.moveaxis(x, 0, axis + 1)
    return x.reshape(*shape[:axis], -1, *shape[axis + 1 :])
