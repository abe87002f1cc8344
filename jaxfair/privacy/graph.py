"""The gradient of one example as a flat list of equations, and where each leaf comes from.

`fast.py` cuts this list before the last contraction of each leaf. Nothing here asks which
layer library made the loss: it reads what `jax.grad` wrote down.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core

__all__ = [
    "UNRECOGNISED",
    "Graph",
    "Producer",
    "apply_tail",
    "evaluate",
    "gradient_graph",
    "producer_of",
]

Var = Any
Equation = Any

CONTRACTIONS = frozenset({"dot_general", "conv_general_dilated"})
ISOMETRIC = frozenset(
    {"transpose", "reshape", "rev", "squeeze", "expand_dims", "neg", "copy", "copy_p"}
    | {"convert_element_type"}
)
LINEAR = frozenset({"reduce_sum", "broadcast_in_dim", "slice"})
ADDITIVE = frozenset({"add_any", "add", "sub", "concatenate"})
CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "remat2": "jaxpr",
    "checkpoint": "jaxpr",
}


class Graph(NamedTuple):
    """Equations of `grad(loss)(params, example, key)` without nested calls.

    Attributes:
      equations: in order of execution.
      params, inputs: variables of the leaves of params, and of (example, key).
      consts: values that the loss closes over, by variable.
      leaves: one variable (or literal) per leaf of the gradient.
      batched: variables that depend on the example or the key.
      producers: the equation that writes each variable.
    """

    equations: tuple[Equation, ...]
    params: tuple[Var, ...]
    inputs: tuple[Var, ...]
    consts: dict[Var, Any]
    leaves: tuple[Any, ...]
    batched: frozenset[Var]
    producers: dict[Var, Equation]


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


UNRECOGNISED = Producer((), (), (), False, "")


def gradient_graph(loss_fn: Any, params: Any, example: Any, key: Any) -> Graph:
    """Returns the Graph of `jax.grad(loss_fn)` for one example.

    Args:
      loss_fn: `(params, example, key) -> scalar`.
      params, example, key: arrays or `jax.ShapeDtypeStruct`s, without a batch axis.
    """
    n_params = len(jax.tree.leaves(params))
    closed = jax.make_jaxpr(jax.grad(loss_fn))(params, example, key)
    avals = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in closed.jaxpr.invars]
    flat = jax.make_jaxpr(lambda *args: _inline(closed.jaxpr, closed.consts, args))(*avals)
    jaxpr = flat.jaxpr
    return Graph(
        equations=tuple(jaxpr.eqns),
        params=tuple(jaxpr.invars[:n_params]),
        inputs=tuple(jaxpr.invars[n_params:]),
        consts=dict(zip(jaxpr.constvars, flat.consts, strict=True)),
        leaves=tuple(jaxpr.outvars),
        batched=_dependants(jaxpr.eqns, jaxpr.invars[n_params:]),
        producers={v: eqn for eqn in jaxpr.eqns for v in eqn.outvars},
    )


def evaluate(graph: Graph, given: Mapping[Var, Any], wanted: Iterable[Any]) -> list[Any]:
    """Returns the values of `wanted` variables, running only the equations they need."""
    wanted = list(wanted)
    values: dict[Var, Any] = {**graph.consts, **given}
    for eqn in _needed(graph.equations, wanted, values):
        values.update(zip(eqn.outvars, _bind(eqn, _read(values, eqn.invars)), strict=True))
    return _read(values, wanted)


def producer_of(graph: Graph, leaf: Any) -> Producer:
    """Returns how `leaf` is made; `sites` is empty where the fast way does not apply.

    A contraction of one batched operand with a constant is passed through as a linear map
    (a factor of the weight); if that leads nowhere it is a site itself (a constant cotangent).
    """
    if _is_literal(leaf) or leaf not in graph.batched:
        return UNRECOGNISED._replace(reason="does not depend on the example")
    through = _search(graph, leaf, operands_of_site=2)
    return through if through.sites else _search(graph, leaf, operands_of_site=1)


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
        operands = [_float32(v.val) if _is_literal(v) else values[v] for v in eqn.invars]
        values[eqn.outvars[0]] = _bind_float32(eqn, operands)
    return values[leaf]


def _producer(graph: Graph, sites: list[Equation], tail: list[Equation]) -> Producer:
    order = {id(eqn): i for i, eqn in enumerate(graph.equations)}
    tail = sorted(tail, key=lambda eqn: order[id(eqn)])
    used = {v for eqn in tail for v in eqn.invars if not _is_literal(v)}
    coefficients = tuple(v for v in used if v not in graph.batched)
    names = {eqn.primitive.name for eqn in tail}
    sums = ISOMETRIC | {"add_any", "add", "sub"}
    # A variable read twice by the tail would count twice in a sum of norms.
    reads = [v for eqn in tail for v in eqn.invars if not _is_literal(v)]
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
        return operands == [eqn.invars[0]] and _is_literal(padding) and padding.val == 0
    return False


def _batched_operands(graph: Graph, eqn: Equation) -> list[Var]:
    return [v for v in eqn.invars if not _is_literal(v) and v in graph.batched]


def _dependants(equations: Iterable[Equation], roots: Iterable[Var]) -> frozenset[Var]:
    found = set(roots)
    for eqn in equations:
        if any(not _is_literal(v) and v in found for v in eqn.invars):
            found.update(eqn.outvars)
    return frozenset(found)


def _needed(equations: Iterable[Equation], wanted: Iterable[Any], known: Any) -> list[Equation]:
    missing = {v for v in wanted if not _is_literal(v) and v not in known}
    chosen = []
    for eqn in reversed(tuple(equations)):
        if missing.isdisjoint(eqn.outvars):
            continue
        chosen.append(eqn)
        missing.update(v for v in eqn.invars if not _is_literal(v) and v not in known)
    return chosen[::-1]


def _inline(jaxpr: Any, consts: Any, args: Any) -> list[Any]:
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))
    for eqn in jaxpr.eqns:
        operands = _read(values, eqn.invars)
        values.update(zip(eqn.outvars, _call_or_bind(eqn, operands), strict=True))
    return _read(values, jaxpr.outvars)


def _call_or_bind(eqn: Equation, operands: list[Any]) -> list[Any]:
    field = CALLS.get(eqn.primitive.name)
    if field is None:
        return _bind(eqn, operands)
    inner = eqn.params[field]
    if eqn.params.get("prevent_cse") and operands:  # keeps a checkpoint from being merged away
        operands = jax.lax.optimization_barrier(operands)
    return _inline(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), operands)


def _bind(eqn: Equation, operands: list[Any]) -> list[Any]:
    found = eqn.primitive.get_bind_params(eqn.params)
    functions, params = found if isinstance(found, tuple) else ((), found)  # jax < 0.10 | later
    with eqn.ctx.manager:
        out = eqn.primitive.bind(*functions, *operands, **params)
    return list(out) if eqn.primitive.multiple_results else [out]


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


def _read(values: Mapping[Var, Any], variables: Iterable[Any]) -> list[Any]:
    return [v.val if _is_literal(v) else values[v] for v in variables]


def _is_literal(v: Any) -> bool:
    return isinstance(v, core.Literal)
