"""The gradient of one example as a flat list of equations, of which any part can be run.

Nothing here asks which layer library made the loss: it reads what `jax.grad` wrote down.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
from jax.extend import core

__all__ = [
    "Equation",
    "Graph",
    "Var",
    "bind",
    "evaluate",
    "gradient_graph",
    "has_grouped",
    "is_literal",
    "mixes_rows",
]

Var = Any
Equation = Any

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
        values.update(zip(eqn.outvars, bind(eqn, _read(values, eqn.invars)), strict=True))
    return _read(values, wanted)


def mixes_rows(graph: Graph, given: Iterable[Var], wanted: Iterable[Any]) -> bool:
    """True if `vmap` of `evaluate` could let one example's NaN reach another's row.

    A grouped convolution of two batched operands becomes under vmap one convolution whose
    groups are the examples; XLA on CPU masks them by multiplying with zero, and 0 * NaN is
    NaN in every row. Inside loops and branches every grouped convolution counts.
    """
    known = {*graph.consts, *given}
    for eqn in _needed(graph.equations, wanted, known):
        both = all(not is_literal(v) and v in graph.batched for v in eqn.invars)
        if (_is_grouped(eqn) and both) or _holds_grouped(eqn):
            return True
    return False


def has_grouped(fun: Any, *arguments: Any) -> bool:
    """True if a function has a grouped convolution anywhere, which `vmap` might make mix rows."""
    equations = jax.make_jaxpr(fun)(*arguments).jaxpr.eqns
    return any(_is_grouped(eqn) or _holds_grouped(eqn) for eqn in equations)


def _holds_grouped(eqn: Equation) -> bool:
    inner = core.jaxprs_in_params(eqn.params)
    return any(_is_grouped(e) or _holds_grouped(e) for jaxpr in inner for e in jaxpr.eqns)


def _is_grouped(eqn: Equation) -> bool:
    params = eqn.params
    groups = (params.get("feature_group_count", 1), params.get("batch_group_count", 1))
    return eqn.primitive.name == "conv_general_dilated" and groups != (1, 1)


def _dependants(equations: Iterable[Equation], roots: Iterable[Var]) -> frozenset[Var]:
    found = set(roots)
    for eqn in equations:
        if any(not is_literal(v) and v in found for v in eqn.invars):
            found.update(eqn.outvars)
    return frozenset(found)


def _needed(equations: Iterable[Equation], wanted: Iterable[Any], known: Any) -> list[Equation]:
    missing = {v for v in wanted if not is_literal(v) and v not in known}
    chosen = []
    for eqn in reversed(tuple(equations)):
        if missing.isdisjoint(eqn.outvars):
            continue
        chosen.append(eqn)
        missing.update(v for v in eqn.invars if not is_literal(v) and v not in known)
    return chosen[::-1]


def _inline(jaxpr: Any, consts: Any, args: Any) -> list[Any]:
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))
    for eqn in jaxpr.eqns:
        operands = _read(values, eqn.invars)
        values.update(zip(eqn.outvars, _call_orbind(eqn, operands), strict=True))
    return _read(values, jaxpr.outvars)


def _call_orbind(eqn: Equation, operands: list[Any]) -> list[Any]:
    field = CALLS.get(eqn.primitive.name)
    if field is None:
        return bind(eqn, operands)
    inner = eqn.params[field]
    if eqn.params.get("prevent_cse") and operands:  # keeps a checkpoint from being merged away
        operands = jax.lax.optimization_barrier(operands)
    return _inline(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), operands)


def bind(eqn: Equation, operands: list[Any]) -> list[Any]:
    """Runs one equation; returns its outputs."""
    found = eqn.primitive.get_bind_params(eqn.params)
    functions, params = found if isinstance(found, tuple) else ((), found)  # jax < 0.10 | later
    with eqn.ctx.manager:
        out = eqn.primitive.bind(*functions, *operands, **params)
    return list(out) if eqn.primitive.multiple_results else [out]


def _read(values: Mapping[Var, Any], variables: Iterable[Any]) -> list[Any]:
    return [v.val if is_literal(v) else values[v] for v in variables]


def is_literal(v: Any) -> bool:
    """True for a constant written into an equation."""
    return isinstance(v, core.Literal)
