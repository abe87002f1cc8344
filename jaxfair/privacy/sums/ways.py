"""Which way each leaf of the gradient goes: the static cost rule of fast clipping."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from jaxfair.privacy.sums import contractions, costs, graph, producers
from jaxfair.privacy.sums.formats import Format
from jaxfair.privacy.sums.machines import Machine

__all__ = ["Leaf", "Rule", "Ways", "choose_ways", "cost_rule", "reason"]

PyTree = Any

KEPT_SHARE = 0.75
"""Floats of kept products, at most, per float of the activations that make all products."""

KEPT_POSITIONS = 24
"""Below this many positions a product is cheaper to make again than to keep."""

GHOST_POSITIONS = 64
"""Above this many positions Gram matrices in float32 are too rough for the clip's margin."""


class Leaf(NamedTuple):
    """One leaf of the gradient and the way its clipped sum is taken.

    cuts: the two variables that are held for each site; `sites` read these.
    way: "ghost" (norm from Gram matrices), "product" (norm from the example's product,
    thrown away), "kept" (the product is small, so it is kept and summed) or "vmap".
    """

    var: Any
    shape: tuple[int, ...]
    producer: producers.Producer
    sites: tuple[contractions.Contraction, ...]
    cuts: tuple[tuple[Any, Any], ...]
    way: str


class Ways(NamedTuple):
    """The equations of one example's gradient, and a Leaf for each leaf of params."""

    graph: graph.Graph
    leaves: tuple[Leaf, ...]


class Rule(NamedTuple):
    """A static cost rule.

    Attributes:
      cheapest: `(sites) -> "ghost" or "product"`, for a leaf whose norm may be had of either.
      saved: `(sites, way) -> how much keeping the product saves` for each float held; 0 or less
        where making it again is cheaper.
    """

    cheapest: Callable[[Sequence[contractions.Contraction]], str]
    saved: Callable[[Sequence[contractions.Contraction], str], float]


def cost_rule(form: Format, machine: Machine) -> Rule:
    """Returns the rule by predicted seconds on a machine, see `costs`."""
    took = lambda sites, way: costs.seconds(way, sites, form, machine)

    def cheapest(sites: Sequence[contractions.Contraction]) -> str:
        rough = sites[0].positions > costs.GHOST_POSITIONS[form.name]
        ghost = len(sites) == 1 and not rough and took(sites, "ghost") < took(sites, "product")
        return "ghost" if ghost else "product"

    def saved(sites: Sequence[contractions.Contraction], way: str) -> float:
        if sites[0].positions == 1:  # summed from the operands without rounding them again
            return 0.0
        return (took(sites, way) - took(sites, "kept")) / _held(sites)

    return Rule(cheapest, saved)


def choose_ways(
    loss_fn: Any, params: PyTree, example: PyTree, key: Any, rule: Rule | None = None
) -> Ways:
    """Returns the Ways of `jax.grad(loss_fn)` for one example; arguments as `fast.explain`.

    Args:
      rule: of the batched way; None for that of the loop, which counts multiplications.
    """
    rule = rule or Rule(_by_multiplications, _saved_multiplications)
    equations = graph.gradient_graph(loss_fn, params, example, key)
    shapes = [p.shape for p in jax.tree.leaves(params)]
    each = zip(equations.leaves, shapes, strict=True)
    leaves = [_make_leaf(equations, v, s, rule) for v, s in each]
    return Ways(equations, _keep_products(leaves, rule))


def _make_leaf(equations: graph.Graph, var: Any, shape: tuple[int, ...], rule: Rule) -> Leaf:
    producer = producers.producer_of(equations, var)
    operands = [[producers.operand_of(equations, v) for v in e.invars] for e in producer.sites]
    sites = tuple(_site(eqn, *pair) for eqn, pair in zip(producer.sites, operands, strict=True))
    way = _choose_way(producer, sites, shape, rule)
    if way == "vmap":
        producer = producers.UNRECOGNISED._replace(reason=producer.reason)
        sites, operands = (), []
    cuts = tuple((lhs.source, rhs.source) for lhs, rhs in operands)
    return Leaf(var, shape, producer, sites, cuts, way)


def _site(
    eqn: graph.Equation, lhs: producers.Operand, rhs: producers.Operand
) -> contractions.Contraction:
    """The contraction as one of the variables that its operands are made of."""
    site = contractions.contraction_of(eqn)
    if not lhs.moves and not rhs.moves:
        return site

    def matrices(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = producers.apply_moves(lhs, eqn.invars[0], x)
        return site.matrices(x, producers.apply_moves(rhs, eqn.invars[1], y))

    held = math.prod(lhs.source.aval.shape) + math.prod(rhs.source.aval.shape)
    return site._replace(matrices=matrices, operands=held)


def _choose_way(
    producer: producers.Producer,
    sites: tuple[contractions.Contraction, ...],
    shape: tuple[int, ...],
    rule: Rule,
) -> str:
    """The way of one leaf, before products are kept."""
    if not sites or _held(sites) > 4 * math.prod(shape):  # the tail sums what the sites make
        return "vmap"
    if not producer.isometric:
        return "kept"
    return rule.cheapest(sites)


def _by_multiplications(sites: Sequence[contractions.Contraction]) -> str:
    site = sites[0]
    cheaper = site.positions * (site.rows + site.cols + 1) < site.rows * site.cols
    ghost = cheaper and len(sites) == 1 and site.positions <= GHOST_POSITIONS
    return "ghost" if ghost else "product"


def _saved_multiplications(sites: Sequence[contractions.Contraction], way: str) -> float:
    """A kept product makes the second contraction needless: 2 t multiplications per float."""
    return sites[0].positions if sites[0].positions >= KEPT_POSITIONS else 0


def _keep_products(leaves: list[Leaf], rule: Rule) -> tuple[Leaf, ...]:
    """Keeps the products that save most per float, within KEPT_SHARE of the activations."""
    room = KEPT_SHARE * sum(s.operands for leaf in leaves for s in leaf.sites)
    ways = [leaf.way for leaf in leaves]
    saved = {i: rule.saved(leaf.sites, leaf.way) for i, leaf in enumerate(leaves) if leaf.sites}
    for i in sorted(saved, key=lambda i: -saved[i]):
        held = _held(leaves[i].sites)
        if ways[i] == "kept" or (saved[i] > 0 and held <= room):
            ways[i], room = "kept", room - held
    return tuple(leaf._replace(way=way) for leaf, way in zip(leaves, ways, strict=True))


def _held(sites: Sequence[contractions.Contraction]) -> int:
    return sum(s.groups * s.rows * s.cols for s in sites)


def reason(leaf: Leaf) -> str:
    """Returns in words why a leaf goes its way, for `fast.explain`."""
    sizes = ", ".join(f"g={s.groups} t={s.positions} p={s.rows} q={s.cols}" for s in leaf.sites)
    return f"{leaf.producer.reason}{': ' if sizes else ''}{sizes}"
