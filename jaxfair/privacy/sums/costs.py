"""What a leaf's share of the clipped sum costs by each way: the static rule of the batched way.

Seconds of one example, from multiplications, bytes and the rates of the machine. All ways but
"vmap" make patches of the operands; what follows is

  ghost    two Gram matrices, t^2 (p + q), written and read; the sum, t p q
  product  the product, t p q, which stays in the cache where it fits; the sum, t p q
  kept     the product, t p q, written, and read for the norm and for the sum

and the sum takes as many passes as `passes` says.
"""

import math
from collections.abc import Sequence

from jaxfair.privacy.sums import formats, products
from jaxfair.privacy.sums.contractions import Contraction
from jaxfair.privacy.sums.formats import Format
from jaxfair.privacy.sums.machines import Machine

__all__ = ["GHOST_POSITIONS", "at_once", "leaf_seconds", "passes", "seconds", "sum_error"]

GHOST_POSITIONS = {"float32": 64, "tf32": 256, "bfloat16": 256}
"""Above so many positions Gram matrices are too rough for the margin of the format."""

ONE_PASS_LOSS = 2.0**-7
"""How far a norm may have to be rounded up, where positions have random signs, for a sum in one
pass: rounding the scaled operand again may cost the square root of t times its rounding."""


def passes(positions: int, form: Format) -> int:
    """Returns in how many products a site is summed: the scaled operand, or it and its rest.

    >>> [passes(t, formats.FORMATS["tf32"]) for t in (256, 257)]
    [1, 2]
    """
    return 1 if form.operand * math.sqrt(positions) <= ONE_PASS_LOSS else 2


def sum_error(positions: int, form: Format) -> float:
    """Returns e: rounding the scaled operand moves a contribution by at most e sum_t |a_t| |b_t|.

    |a_t^T d_t| is at most |a_t| times what the entries of d_t were moved by, and these add up at
    worst. A site of one position is scaled in float32.
    """
    if positions == 1:
        return formats.FLOAT32.operand
    return form.operand ** passes(positions, form) + formats.FLOAT32.operand


def seconds(way: str, sites: Sequence[Contraction], form: Format, machine: Machine) -> float:
    """Returns the seconds of one example's norm and sum by a way, launches left out."""
    return sum(_of_site(way, site, form, machine) for site in sites)


def leaf_seconds(
    way: str,
    sites: Sequence[Contraction],
    entries: int,
    rows: int,
    form: Format,
    machine: Machine,
) -> float:
    """Returns the predicted seconds of a leaf's norms and sum over `rows` examples.

    Args:
      entries: of the leaf; one that is materialised ("vmap") is read for the norm and for the sum,
        and made in the backward pass, which is not counted.
    """
    if way == "vmap":
        return 8 * entries * rows / machine.copy + 2 * machine.launch
    rounds = -(-rows // at_once(way, sites, rows, form, machine))
    return rows * seconds(way, sites, form, machine) + (2 + 4 * rounds) * machine.launch


def _of_site(way: str, site: Contraction, form: Format, machine: Machine) -> float:
    g, t, p, q = site.groups, site.positions, site.rows, site.cols
    width = 2 if form.bits < 8 else 4
    multiplied = g * t * p * q
    patches = 2 * width * g * t * (p + q)
    summed = multiplied * passes(t, form) if way != "kept" else 0
    if way == "ghost":
        blocks = products.gram_blocks(t, p, form) + products.gram_blocks(t, q, form)
        flops = 2 * (g * t * t * (p + q) + summed)
        moved = patches + 8 * g * t * t * blocks
    else:
        made = 4 * g * p * q
        leaves = way == "kept" or made > machine.cache
        flops, moved = 2 * (multiplied + summed), patches + 3 * made * leaves
    return flops / machine.gemm[form.name] + moved / machine.copy


def at_once(
    way: str, sites: Sequence[Contraction], rows: int, form: Format, machine: Machine
) -> int:
    """Returns of how many examples the norms of a leaf are taken at once, at most `rows`.

    Gram matrices of all, as far as there is room; products of as many as the cache holds.
    """
    if way == "ghost":
        held = sum(_gram_bytes(s, form) for s in sites)
        most = int(machine.room // held)
    else:
        held = sum(4 * s.groups * s.rows * s.cols for s in sites)
        most = int((machine.room if way == "kept" else machine.cache) // max(held, 1))
    most = max(1, min(rows, most))
    even = next(n for n in range(most, 0, -1) if rows % n == 0)  # no round of another size
    return even if 2 * even > most else most


def _gram_bytes(site: Contraction, form: Format) -> int:
    t, p, q = site.positions, site.rows, site.cols
    blocks = products.gram_blocks(t, p, form) + products.gram_blocks(t, q, form)
    return 4 * site.groups * t * (t * blocks + p + q)
