"""Mixed precision: a Method whose convolutions multiply in bfloat16, with parameters in float32.

What is rounded is the kernels of convolutions, and with them what they are multiplied by: each
layer of `models` multiplies in the dtype of its kernel, and gives maps of it. Statistics of norms,
their scales and shifts, means over space, heads, SSIM and losses stay float32, and so do the
parameters, what the optimiser and the clip see, checkpoints, scores and exports. Frozen kernels are
not rounded. Source: Micikevicius et al. 2018 (arXiv 1710.03740), without a scale of the loss, since
bfloat16 has the exponents of float32.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxfair.errors import InputError, nearest
from jaxfair.methods.base import Method, PyTree

__all__ = ["MODEL_PRECISIONS", "in_precision", "refuse_unknown_precision", "rounded_kernels"]

MODEL_PRECISIONS = ("float32", "bfloat16")
"""`method.precision`: "float32" is jax's own, TF32 where `jax_default_matmul_precision` says so."""


def in_precision(method: Method, precision: str) -> Method:
    """Returns the Method whose `loss` multiplies in one of MODEL_PRECISIONS.

    Guarantee: the loss of an example stays a function of this example alone, and its gradient by
    the float32 parameters is float32, so that it is clipped as any other.
    """
    if precision == "float32":
        return method
    return method._replace(loss=functools.partial(_rounded_loss, method.loss))


def rounded_kernels(params: PyTree) -> PyTree:
    """Returns the parameters with kernels of convolutions (three axes or more) in bfloat16."""
    return jax.tree.map(lambda p: p.astype(jnp.bfloat16) if p.ndim > 2 else p, params)


def refuse_unknown_precision(precision: str) -> None:
    """Raises InputError for what is none of MODEL_PRECISIONS."""
    if precision not in MODEL_PRECISIONS:
        raise InputError(
            f"precision = {precision!r} is none of {', '.join(map(repr, MODEL_PRECISIONS))}."
            + nearest(str(precision), MODEL_PRECISIONS)
        )


def _rounded_loss(loss: Any, params: PyTree, *given: Any) -> Any:
    return loss(rounded_kernels(params), *given)
