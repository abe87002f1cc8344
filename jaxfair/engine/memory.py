"""What a step needs to hold at once, read from its equations; nothing is compiled.

The equations are walked in their order. A value lives from the equation that makes it to the last
one that reads it. What a compiler merges into its only reader (elementwise arithmetic, and what
only broadcasts or reshapes) is never held. It is an estimate: the compiler chooses the order, and
a convolution may need room of its own. `Assembly.compiled().memory_analysis()` is exact.
"""

import collections
import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

__all__ = ["held_at_most"]

_MERGED_NAMES = """
abs add add_any and broadcast_in_dim ceil clamp convert_element_type copy cos div eq erf exp expm1
floor ge gt integer_pow iota is_finite le log log1p logistic lt max min mul ne neg not
or pad pow reduce_precision rem reshape round rsqrt select_n sign sin
shift_left shift_right_logical slice sqrt square squeeze stop_gradient sub tan tanh xor
"""
_MERGED = frozenset(_MERGED_NAMES.split())
"""Operations that a compiler computes inside the one that reads them."""

_REDUCES = frozenset({"reduce_sum", "reduce_max", "reduce_min", "reduce_and", "reduce_or"})


def held_at_most(step: Any, *arguments: Any) -> int:
    """Returns the estimated bytes that a jitted function holds at once, its arguments included.

    Args:
      step: from `jax.jit`; an argument that it gives back its memory (donation) is held until it
        is last read.
      arguments: of the call, or their shapes.

    >>> import jax.numpy as jnp
    >>> held_at_most(jax.jit(lambda x: jnp.tanh(x @ x)), jnp.zeros((100, 100)))
    120000
    """
    traced = step.trace(*arguments)
    given = jax.tree.leaves(traced.args_info)
    owned = [info.donated for info in given]
    jaxpr = traced.jaxpr.jaxpr
    kept = sum(_bytes(v) for v, own in zip(jaxpr.invars, owned, strict=True) if not own)
    own = [v for v, own in zip(jaxpr.invars, owned, strict=True) if own]
    return kept + sum(map(_bytes, jaxpr.constvars)) + _peak(jaxpr, own)


def _peak(jaxpr: Any, owned: Sequence[Any] = ()) -> int:
    """Bytes of what the equations make and of `owned` inputs, where they are the most."""
    merged = _merged(jaxpr)
    last = _last_reads(jaxpr, merged)
    ends = collections.defaultdict(list)
    for var, at in last.items():
        ends[at].append(var)
    held = {var: _bytes(var) for var in owned}
    peak = live = sum(held.values())
    for at, eqn in enumerate(jaxpr.eqns):
        made = {v: 0 if v in merged else _bytes(v) for v in eqn.outvars if v in last}
        inside = max((_peak(inner) for inner in _called(eqn)), default=0)
        out = sum(made.values())
        repeated = eqn.primitive.name in ("scan", "while")
        if eqn.primitive.name != "optimization_barrier":  # hands on what is held already
            peak = max(peak, live + (out + inside if repeated else max(out, inside)))
        held |= made
        live += out - sum(held.pop(v, 0) for v in ends[at])
        peak = max(peak, live)
    return peak


def _merged(jaxpr: Any) -> set[Any]:
    """The variables that are never held: made by arithmetic, and read once, by arithmetic."""
    readers = collections.defaultdict(list)
    for eqn in jaxpr.eqns:
        for var in _variables(eqn.invars):
            readers[var].append(eqn.primitive.name)
    for var in _variables(jaxpr.outvars):
        readers[var] += ["output", "output"]
    return {
        var
        for eqn in jaxpr.eqns
        if eqn.primitive.name in _MERGED
        for var in eqn.outvars
        if len(readers[var]) == 1 and readers[var][0] in _MERGED | _REDUCES
    }


def _last_reads(jaxpr: Any, merged: set[Any]) -> dict[Any, int]:
    """The number of the last equation that reads a variable, itself or by what is merged."""
    last = dict.fromkeys(_variables(jaxpr.outvars), len(jaxpr.eqns))
    for at, eqn in reversed(list(enumerate(jaxpr.eqns))):
        behind = [last[v] for v in eqn.outvars if v in merged and v in last]
        for var in _variables(eqn.invars):
            last[var] = max(last.get(var, 0), at, *behind)
    for at, eqn in enumerate(jaxpr.eqns):
        for var in eqn.outvars:
            last.setdefault(var, at)
    return last


def _called(eqn: Any) -> Iterator[Any]:
    """The jaxprs that an equation calls."""
    for value in eqn.params.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            inner = getattr(part, "jaxpr", part)
            if hasattr(inner, "eqns"):
                yield inner


def _variables(atoms: Any) -> Iterator[Any]:
    return (atom for atom in atoms if not hasattr(atom, "val"))


def _bytes(var: Any) -> int:
    aval = var.aval
    shape = getattr(aval, "shape", ())
    if jax.dtypes.issubdtype(aval.dtype, jax.dtypes.extended):
        return 8 * math.prod(shape)
    return math.prod(shape) * np.dtype(aval.dtype).itemsize
