"""Which way each leaf of the gradient goes: the static cost rule of fast clipping."""

import math
from typing import Any, NamedTuple

import jax

from jaxfair.privacy.sums import contractions, graph, producers

__all__ = ["Leaf", "Ways", "choose_ways", "reason"]

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


def choose_ways(loss_fn: Any, params: PyTree, example: PyTree, key: Any) -> Ways:
    """Returns the Ways of `jax.grad(loss_fn)` for one example; arguments as `fast.explain`."""
    equations = graph.gradient_graph(loss_fn, params, example, key)
    shapes = [p.shape for p in jax.tree.leaves(params)]
    leaves = [_make_leaf(equations, v, s) for v, s in zip(equations.leaves, shapes, strict=True)]
    return Ways(equations, _keep_products(leaves))


def _make_leaf(equations: graph.Graph, var: Any, shape: tuple[int, ...]) -> Leaf:
    producer = producers.producer_of(equations, var)
    operands = [[producers.operand_of(equations, v) for v in e.invars] for e in producer.sites]
    sites = tuple(_site(eqn, *pair) for eqn, pair in zip(producer.sites, operands, strict=True))
    way = _choose_way(producer, sites, shape)
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
) -> str:
    """The static cost rule of one leaf, in multiplications."""
    if not sites or _held(sites) > 4 * math.prod(shape):  # the tail sums what the sites make
        return "vmap"
    if not producer.isometric:
        return "kept"
    site = sites[0]
    cheaper = site.positions * (site.rows + site.cols + 1) < site.rows * site.cols
    ghost = cheaper and len(sites) == 1 and site.positions <= GHOST_POSITIONS
    return "ghost" if ghost else "product"


def _keep_products(leaves: list[Leaf]) -> tuple[Leaf, ...]:
    """Keeps the products that save most per float held, within KEPT_SHARE of the activations.

    A kept product makes the second contraction needless; it saves 2 t multiplications per
    float, so the leaves with most positions come first.
    """
    room = KEPT_SHARE * sum(s.operands for leaf in leaves for s in leaf.sites)
    ways = [leaf.way for leaf in leaves]
    order = sorted(
        (i for i, leaf in enumerate(leaves) if leaf.sites),
        key=lambda i: -leaves[i].sites[0].positions,
    )
    for i in order:
        held = _held(leaves[i].sites)
        many = leaves[i].sites[0].positions >= KEPT_POSITIONS
        if ways[i] == "kept" or (many and held <= room):
            ways[i], room = "kept", room - held
    return tuple(leaf._replace(way=way) for leaf, way in zip(leaves, ways, strict=True))


def _held(sites: tuple[contractions.Contraction, ...]) -> int:
    return sum(s.groups * s.rows * s.cols for s in sites)


def reason(leaf: Leaf) -> str:
    """Returns in words why a leaf goes its way, for `fast.explain`."""
    sizes = ", ".join(f"g={s.groups} t={s.positions} p={s.rows} q={s.cols}" for s in leaf.sites)
    return f"{leaf.producer.reason}{': ' if sizes else ''}{sizes}"
