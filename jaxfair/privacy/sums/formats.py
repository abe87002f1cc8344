"""In which format the operands of norm and sum are multiplied, and what rounding that leaves.

A tensor core multiplies numbers of few bits exactly and adds the products with less care. So an
operand is rounded ONCE to the format that the unit multiplies exactly, before the norm and before
the sum: both then see the same numbers, whatever the unit. What is left is bounded by three
constants of the format:

  * `operand`: rounding a number moves it by at most this share of it (nearest, ties to even);
  * `unit`: what one addition may be off by, as a share of the terms added. Tensor cores align the
    terms to the largest and cut the rest off (Fasi, Higham, Mikaitis, Pranesh 2021, "Numerical
    behavior of NVIDIA tensor cores"), which is 2^-23 of each; 2^-22 is assumed, on every backend,
    so that a plan does not depend on the machine;
  * `margin`: the share of C that rounding of one contribution may use. A norm that may be wrong by
    more is rounded up, so the margin decides what a bound costs and never whether it holds.

Numbers below 2^-126 may be flushed to zero.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxfair.errors import InputError

__all__ = ["FLOAT32", "FORMATS", "Format", "format_of", "is_native", "rounded"]

Array = jax.Array


class Format(NamedTuple):
    """A format of operands; all fields are public constants.

    Attributes:
      name: as in `dp.precision`.
      bits: stored bits of the mantissa.
      unit: relative error of one addition.
      margin: share of C below which one contribution is clipped.
      dtype: what operands are held in.
      backends: where a unit takes such operands as they are; elsewhere they are multiplied in
        float32 at full precision, which gives the same products.
    """

    name: str
    bits: int
    unit: float
    margin: float
    dtype: Any
    backends: tuple[str, ...]

    @property
    def operand(self) -> float:
        """Relative error of rounding one number to the format."""
        return 2.0 ** -(self.bits + 1)

    @property
    def slack(self) -> float:
        """What the rounding of a norm may use of the margin before it is rounded up.

        The rest is for the factor itself.
        """
        return self.margin * 15 / 16


FLOAT32 = Format("float32", 23, 2.0**-24, 2.0**-12, jnp.float32, ())
FORMATS = {
    "float32": FLOAT32,
    "tf32": Format("tf32", 10, 2.0**-22, 2.0**-10, jnp.float32, ("gpu",)),
    "bfloat16": Format("bfloat16", 7, 2.0**-22, 2.0**-10, jnp.bfloat16, ("gpu", "tpu")),
}


def format_of(name: str) -> Format:
    """Returns the Format of `dp.precision`; InputError for a name that is none."""
    if name not in FORMATS:
        raise InputError(f"dp.precision is {name!r}; it must be one of {', '.join(FORMATS)}.")
    return FORMATS[name]


def rounded(x: Array, form: Format) -> Array:
    """Returns x rounded to the format: nearest, ties to even; NaN stays, what is too large is inf.

    >>> x = jnp.float32([1 + 2**-11, 1 + 3 * 2**-11, 1 + 2**-7])
    >>> rounded(x, FORMATS["tf32"]).tolist() == [1, 1 + 2**-9, 1 + 2**-7]
    True
    """
    x = x.astype(jnp.float32)
    if form.bits < FLOAT32.bits:  # reduce_precision is never taken out, as a pair of casts may be
        x = lax.reduce_precision(x, exponent_bits=8, mantissa_bits=form.bits)
    return x.astype(form.dtype)


def is_native(form: Format) -> bool:
    """Whether the default backend has a unit for operands of this format."""
    return jax.default_backend() in form.backends
