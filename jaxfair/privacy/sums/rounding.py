"""What rounding adds to the sensitivity of a float32 sum, and the margin of the clip that pays it.

Let u = 2^-24, c_i the clipped contribution of unit i and B a public bound on the units of a draw.
A microbatch adds n numbers to an entry, so its sum is off by at most n u sum_i |c_i| in norm, in
whatever order (Higham 2002, section 3.1). Microbatches, devices and chunks are added as in
`twofloat`, which is off by less than u B C / 4 in all (2^18 additions at 8 u^2 each), and the
total is rounded once, by u B C. Neighbouring draws hold other units at other places, so both are
off, each in its own way: the released sum moves by at most

    max |c_i| + 2 (n + 2) u B max |c_i|.

Units are clipped to C (1 - margin) with margin = 2 (n + 2) u B, so that this is at most C: what
is priced stays C, and the plan's noise is that of C. Noise comes after the last rounding, and
rounding the noisy sum is post-processing. (1 % on top for terms in u^2, and n at its largest for
all microbatches, so that the clip does not depend on the microbatch.)

Proved so: the vmap way, and in the fast way leaves that are held per example or whose example
has one position. Not proved: the fast way's sum over examples and positions at once, whose bound
is (rows x positions) u sum_i sum_t |a_it| |b_it| and not a multiple of C; see
jaxfair/privacy/README.md.

Assumed of the backend: float32 sums in which each addition is rounded to nearest (u), in any
order; no TF32 (`Precision.HIGHEST`). Numbers below 2^-126 may be flushed to zero.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxfair.errors import InputError

__all__ = ["LARGEST_MARGIN", "ROUNDINGS", "UNIT", "bound", "margin", "summed", "weighted_sum"]

Array = jax.Array

UNIT = 2.0**-24
"""Relative rounding of one float32 operation."""

BLOCK = 32
"""Examples whose contributions are added one after the other; the sums of blocks go pairwise."""

ROUNDINGS = 40
"""How often an entry is rounded at most within a microbatch of 2^13 examples: a block and 8."""

LARGEST_MARGIN = 0.25
"""Above this share of the clip a draw is refused: its sum would be mostly margin."""


def margin(units: int, unit: float = UNIT) -> float:
    """Returns which share of C goes to rounding where a draw has at most `units` units.

    Args:
      unit: what one addition is off by; that of the format in which the sum is made (`formats`).

    >>> round(margin(690), 4)
    0.0035
    """
    return 1.01 * 2 * (ROUNDINGS + 2) * unit * units


def bound(l2_clip_norm: float, units: int, unit: float = UNIT) -> float:
    """Returns what one unit's contribution is clipped to, so that a sum moves by at most C.

    Args:
      l2_clip_norm: C.
      units: a public bound on the units of a draw; 0 for no margin.
      unit: as of `margin`.

    Raises InputError for draws so large that float32 cannot hold their sum to C.
    """
    share = margin(units, unit)
    if share > LARGEST_MARGIN:
        raise InputError(
            f"A draw of up to {units} units cannot be added in float32 so that one unit moves it "
            f"by a clip norm only: rounding would take {share:.0%} of it. Lower "
            "train.expected_batch_size."
        )
    return l2_clip_norm * (1 - share)


def weighted_sum(scales: Array, held: Array) -> Array:
    """Returns sum_i scales_i held_i over the first axis, an entry rounded ROUNDINGS times at most.

    Args:
      scales: (b,) float32, b at most 2^13.
      held: (b, ...) float32, finite.
    """
    return summed("kb,kb...->k...", scales, held)


def summed(equation: str, left: Array, right: Array) -> Array:
    """Returns an einsum that sums over examples (b) by blocks (k), and the blocks pairwise.

    Args:
      equation: has k and b first in both operands and k first in the result.
      left, right: arrays with the leading axis b, without k.
    """
    left, right = _blocks(left), _blocks(right)
    parts = jnp.einsum(equation, left, right, precision=lax.Precision.HIGHEST)
    while len(parts) > 1:
        half = len(parts) // 2
        parts = jnp.concatenate([parts[:half] + parts[half : 2 * half], parts[2 * half :]])
    return parts[0]


def _blocks(x: Array) -> Array:
    """(b, ...) -> (k, block, ...), zeros in what is left over."""
    rows = len(x)
    if rows > BLOCK * 2 ** (ROUNDINGS - BLOCK):
        raise InputError(
            f"A microbatch of {rows} examples is above {BLOCK * 2 ** (ROUNDINGS - BLOCK)}, up to "
            "which the rounding of its sum is bounded: give dp.microbatch a smaller number."
        )
    if rows <= BLOCK:
        return x[None]
    count = math.ceil(rows / BLOCK)
    filled: Any = jnp.pad(x, [(0, count * BLOCK - rows), *[(0, 0)] * (x.ndim - 1)])
    return filled.reshape(count, BLOCK, *x.shape[1:])
