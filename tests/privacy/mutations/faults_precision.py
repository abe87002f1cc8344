"""Faults of a model whose convolutions multiply in bfloat16 (`methods/precision.py`)."""

import jax
import jax.numpy as jnp

from jaxfair.methods import precision
from jaxfair.privacy.sums import fast
from tests.privacy.mutations.putting import replaced, wrapped


def fault_380_the_parameters_are_kept_in_bfloat16():
    """A model of half precision: small updates are rounded away, and gradients come as they are."""

    def in_precision(original, method, name):
        def init(*given):
            params, frozen = method.init(*given)
            return precision.rounded_kernels(params), frozen

        return original(method, name)._replace(init=init)

    return wrapped(precision, "in_precision", in_precision)


def fault_381_the_maps_are_not_rounded_with_the_kernels():
    """Kernels of fewer bits, multiplied in float32 by maps that have all of theirs."""
    widened = lambda p: p.astype(jnp.bfloat16).astype(p.dtype)
    return replaced(precision, "rounded_kernels", lambda params: jax.tree.map(widened, params))


def fault_382_the_scaled_operand_is_of_the_precision_of_the_model():
    """A margin of float32 for a sum whose operand the model's own format rounds again."""

    def product(original, leaf, scales, pairs, coefficients):
        ones = jnp.where(scales > 0, 1.0, 0.0)

        def low(b):
            factor = scales.reshape(-1, *[1] * (b.ndim - 1))
            return (b.astype(jnp.float32) * factor).astype(b.dtype)

        return original(leaf, ones, [(a, low(b)) for a, b in pairs], coefficients)

    return wrapped(fast, "_weighted_product", product)


def fault_383_a_leaf_of_low_precision_is_left_out_of_the_norm():
    """A rule for norms that knows float32 alone."""

    def norm(original, leaf, pairs, coefficients):
        found, held = original(leaf, pairs, coefficients)
        low = any(x.dtype == jnp.bfloat16 for pair in pairs for x in pair)
        return (jnp.zeros_like(found) if low else found), held

    return wrapped(fast, "_example_norm", norm)
