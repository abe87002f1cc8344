"""Sums of float32 trees that lose next to nothing: a running total held as two float32 numbers.

A plain float32 sum of B clipped gradients rounds at every addition, by up to 2^-24 of the total.
Who is added first shifts all later roundings, so that one unit more was seen to move the sum by
2.0 C (Casacuberta, Shoemate, Vadhan, Wagaman 2022, "Widespread Underestimation of Sensitivity in
Differentially Private Libraries and How to Fix It"). Here the total is `high + low`, and what an
addition rounds off `high` is kept in `low`.

Guarantees, held by tests/privacy/test_rounding.py, with u = 2^-24, where nothing overflows, and
up to what underflows (2^-126 an entry):
  * `add` is off by at most 2 u^2 of the total (Joldes, Muller, Popescu 2017, "Tight and Rigorous
    Error Bounds for Basic Building Blocks of Double-Word Arithmetic", algorithm 4), and `join`
    by 4 u^2 of the sizes of what it adds, together (its low parts are rounded twice, algorithm 5);
  * `high` is the total rounded to float32.

This needs a compiler that neither reorders additions nor takes (a + b) - a for b: XLA does so
unless it is asked for fast maths, and the tests read the result of the compiled step.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

__all__ = ["TwoFloat", "add", "from_float", "join", "two_sum"]

Array = jax.Array
PyTree = Any


class TwoFloat(NamedTuple):
    """A float32 tree and what float32 rounded off it.

    Attributes:
      high: the total, rounded to float32.
      low: the rest, at most half a unit in the last place of `high`.
    """

    high: PyTree
    low: PyTree


def from_float(tree: PyTree) -> TwoFloat:
    """Returns a float32 tree as a total with no rest."""
    return TwoFloat(tree, jax.tree.map(jnp.zeros_like, tree))


def two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """Returns a + b in float32, and exactly what it was rounded by (Knuth, Moller).

    >>> high, low = two_sum(jnp.float32(2**24), jnp.float32(1.0))
    >>> float(high) == 2**24, float(low)
    (True, 1.0)
    """
    total = a + b
    of_b = total - a
    return total, (a - (total - of_b)) + (b - of_b)


def add(total: TwoFloat, tree: PyTree) -> TwoFloat:
    """Returns the total with one more float32 tree."""
    # The barrier rounds the addend once: a product that is fused into one of the additions
    # below, and not into the others, would be lost to the rest.
    tree = lax.optimization_barrier(tree)
    return _leafwise(_add, total.high, total.low, tree)


def join(totals: Sequence[TwoFloat]) -> TwoFloat:
    """Returns the total of totals, added in their order."""
    first, *others = totals
    for other in others:
        first = _leafwise(_join, first.high, first.low, other.high, other.low)
    return first


def _add(high: Array, low: Array, addend: Array) -> tuple[Array, Array]:
    total, rest = _made(two_sum(high, addend))
    return _fast_two_sum(total, low + rest)


def _join(high: Array, low: Array, other: Array, rest: Array) -> tuple[Array, Array]:
    total, lost = _made(two_sum(high, other))
    return _fast_two_sum(total, lost + (low + rest))


def _fast_two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """`two_sum` where |a| is not below |b| (Dekker)."""
    total = a + b
    return total, b - (total - a)


def _made(pair: tuple[Array, Array]) -> tuple[Array, Array]:
    """The pair, computed once: XLA would compute it again for each of its uses, 50 times slower."""
    return lax.optimization_barrier(pair)


def _leafwise(function: Any, *trees: PyTree) -> TwoFloat:
    structure = jax.tree.structure(trees[0])
    pairs = [function(*leaves) for leaves in zip(*map(jax.tree.leaves, trees), strict=True)]
    high, low = zip(*pairs, strict=True) if pairs else ((), ())
    return TwoFloat(jax.tree.unflatten(structure, high), jax.tree.unflatten(structure, low))
