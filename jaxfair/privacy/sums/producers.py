"""Where a leaf of the gradient comes from: a linear tail behind the last contractions."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxfair.privacy.sums.graph import Equation, Graph, Var, is_literal

__all__ = [
    "UNRECOGNISED",
    "Operand",
    "Producer",
    "apply_moves",
    "apply_tail",
    "operand_of",
    "producer_of",
]

CONTRACTIONS = frozenset({"dot_general", "conv_general_dilated"})
ISOMETRIC = frozenset(
    {"transpose", "reshape", "rev", "squeeze", "expand_dims", "neg", "copy", "copy_p"}
    | {"convert_element_type"}
)
LINEAR = frozenset({"reduce_sum", "broadcast_in_dim", "slice"})
ADDITIVE = frozenset({"add_any", "add", "sub", "concatenate"})
MOVES = frozenset({"concatenate", "copy", "pad", "reshape", "slice", "squeeze", "transpose"})
"""What rearranges entries, repeats them or sets zeros between them: patches are made of these."""


class Producer(NamedTuple):
    """How one leaf is made: a linear tail applied to the outputs of contractions.

    Attributes:
      sites: equations of the contractions; empty if the leaf is not recognised.
      tail: equations between the sites and the leaf, in order of execution.
      coefficients: example-independent variables that the tail reads.
      isometric: True if each site reaches the leaf with its l2 norm unchanged.
      reason: in words, for `fast.explain`.
    """

    sites: tuple[Equation, ...]
    tail: tuple[Equation, ...]
    coefficients: tuple[Var, ...]
    isometric: bool
    reason: str


class Operand(NamedTuple):
    """An operand of a contraction: the variable to hold, and the moves that make it of that."""

    source: Any
    moves: tuple[Equation, ...]


UNRECOGNISED = Producer((), (), (), False, "")


def producer_of(graph: Graph, leaf: Any) -> Producer:
    """Returns how `leaf` is made; `sites` is empty where the fast way does not apply.

    A contraction of one batched operand with a constant is passed through as a linear map
    (a factor of the weight); if that leads nowhere it is a site itself (a constant cotangent).
    """
    if is_literal(leaf) or leaf not in graph.batched:
        return UNRECOGNISED._replace(reason="does not depend on the example")
    through = _search(graph, leaf, operands_of_site=2)
    if through.sites:
        return through
    direct = _search(graph, leaf, operands_of_site=1)
    constants = [v for eqn in direct.sites for v in eqn.invars if v not in graph.batched]
    if any(math.prod(v.aval.shape) > 4 * math.prod(leaf.aval.shape) for v in constants):
        return UNRECOGNISED._replace(reason="made by a product with a larger constant")
    return direct


def _search(graph: Graph, leaf: Var, operands_of_site: int) -> Producer:
    sites: list[Equation] = []
    tail: list[Equation] = []
    pending, seen = [leaf], set()
    while pending:
        var = pending.pop()
        if var in seen:
            continue
        seen.add(var)
        eqn = graph.producers.get(var)
        operands = [] if eqn is None else _batched_operands(graph, eqn)
        if eqn is not None and _is_site(eqn, len(operands) >= operands_of_site):
            sites.append(eqn)
        elif eqn is not None and _is_linear(eqn, operands):
            tail.append(eqn)
            pending.extend(operands)
        else:
            name = "an input" if eqn is None else eqn.primitive.name
            return UNRECOGNISED._replace(reason=f"made by {name}")
    return _producer(graph, sites, tail)


def apply_tail(producer: Producer, sites: list[Any], coefficients: list[Any], leaf: Any) -> Any:
    """Returns the leaf, in float32, from the values of its sites (each float32)."""
    values = {eqn.outvars[0]: value for eqn, value in zip(producer.sites, sites, strict=True)}
    values.update(zip(producer.coefficients, map(_float32, coefficients), strict=True))
    for eqn in producer.tail:
        operands = [_float32(v.val) if is_literal(v) else values[v] for v in eqn.invars]
        values[eqn.outvars[0]] = _bind_float32(eqn, operands)
    return values[leaf]


def operand_of(graph: Graph, var: Any) -> Operand:
    """Returns what `var` is made of by MOVES alone, where that is at most half its size.

    Patches are thus not held for every example, but made anew from the map where they are used.
    """
    best = Operand(var, ())
    if is_literal(var):
        return best
    pending, moves = {var}, []
    for eqn in reversed(graph.equations):  # the latest first: one that is no move ends the search
        if pending.isdisjoint(eqn.outvars):
            continue
        operands = _batched_operands(graph, eqn)
        if not _moves_data(eqn, operands):
            break
        moves.append(eqn)
        pending = (pending - set(eqn.outvars)) | set(operands)
        if len(pending) == 1:
            (source,) = pending
            if 2 * source.aval.size <= var.aval.size and source.aval.size < best.source.aval.size:
                best = Operand(source, tuple(moves[::-1]))
    return best


def apply_moves(operand: Operand, var: Any, value: Any) -> Any:
    """Returns `var` in float32 from the value of `operand.source`."""
    values = {operand.source: _float32(value)}
    for eqn in operand.moves:
        operands = [_float32(v.val) if is_literal(v) else values[v] for v in eqn.invars]
        values[eqn.outvars[0]] = _bind_float32(eqn, operands)
    return values[var]


def _producer(graph: Graph, sites: list[Equation], tail: list[Equation]) -> Producer:
    order = {id(eqn): i for i, eqn in enumerate(graph.equations)}
    tail = sorted(tail, key=lambda eqn: order[id(eqn)])
    used = dict.fromkeys(v for eqn in tail for v in eqn.invars if not is_literal(v))
    coefficients = tuple(v for v in used if v not in graph.batched)
    names = {eqn.primitive.name for eqn in tail}
    sums = ISOMETRIC | {"add_any", "add", "sub"}
    # A variable read twice by the tail would count twice in a sum of norms.
    reads = [v for eqn in tail for v in eqn.invars if not is_literal(v)]
    isometric = names <= sums and len(reads) == len(set(reads))
    return Producer(
        tuple(sites), tuple(tail), coefficients, isometric, f"{len(sites)} contraction(s)"
    )


def _is_site(eqn: Equation, enough_operands: bool) -> bool:
    return eqn.primitive.name in CONTRACTIONS and enough_operands


def _is_linear(eqn: Equation, operands: list[Var]) -> bool:
    """True if the equation is linear in its batched operands, jointly, with no constant term."""
    name, n = eqn.primitive.name, len(eqn.invars)
    floating = all(jnp.issubdtype(v.aval.dtype, jnp.floating) for v in eqn.invars)
    if not floating or len(eqn.outvars) != 1:
        return False
    if name in ISOMETRIC | LINEAR:
        return n == 1 and len(operands) == 1
    if name in ADDITIVE:
        return len(operands) == n
    if name == "mul" or name == "dot_general":
        return len(operands) == 1
    if name == "div":
        return len(operands) == 1 and eqn.invars[0] is operands[0]
    if name == "pad":
        padding = eqn.invars[1]
        return operands == [eqn.invars[0]] and is_literal(padding) and padding.val == 0
    return False


def _moves_data(eqn: Equation, operands: list[Var]) -> bool:
    if eqn.primitive.name == "pad":
        return _is_linear(eqn, operands)
    return eqn.primitive.name in MOVES and len(operands) == len(eqn.invars)


def _batched_operands(graph: Graph, eqn: Equation) -> list[Var]:
    return [v for v in eqn.invars if not is_literal(v) and v in graph.batched]


def _bind_float32(eqn: Equation, operands: list[Any]) -> Any:
    """The tail in float32: what a low-precision gradient would round is not rounded here."""
    if eqn.primitive.name == "convert_element_type":
        return operands[0]
    params = dict(eqn.params)
    if eqn.primitive.name == "dot_general":
        params.update(
            precision=jax.lax.Precision.HIGHEST, preferred_element_type=jnp.dtype("float32")
        )
    return eqn.primitive.bind(*operands, **params)


def _float32(x: Any) -> jax.Array:
    return jnp.asarray(x, jnp.float32)
