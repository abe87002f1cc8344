"""The isolation check: does any example of a batch reach the loss of another?

Per-example clipping bounds what a person changes only if the person changes one term of the
sum. Under `vmap` most losses keep to their example by construction, but not all: a collective
over the mesh axis, a function with a batching rule of its own, a callback that sees the whole
batch or remembers the last one. The check looks before any data is touched.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxfair.errors import InputError

__all__ = ["ROWS", "check", "coupled_rows", "foreign_operations", "refuse_unknown_operations"]

PyTree = Any
Fun = Callable[[PyTree, PyTree, jax.Array], PyTree]

ROWS = 3
"""Examples of the made-up batch: in any ranking of three, somebody is first."""

TOLERANCE = 1e-5
"""Relative change of an output that counts as rounding; derivatives must be exactly zero."""

_ROWWISE_NAMES = """
abs acos acosh add add_any and argmax argmin argsort asin asinh atan atan2 atanh
bitcast_convert_type broadcast broadcast_in_dim cbrt ceil checkpoint clamp concatenate cond
conv_general_dilated convert_element_type copy copy_p cos cosh cummax cummin cumprod cumsum
custom_jvp_call custom_vjp_call digamma div dot_general dynamic_slice
dynamic_update_slice eq erf erf_inv erfc exp exp2 expand_dims expm1 floor gather ge gt
imag integer_pow iota is_finite jit le lgamma log log1p logistic lt max min mul ne neg
nextafter not or pad pjit population_count pow random_bits random_fold_in random_seed
random_split random_unwrap random_wrap real reduce_and reduce_max reduce_min reduce_or
reduce_prod reduce_sum reduce_window reduce_window_max reduce_window_min
reduce_window_sum rem remat reshape rev round rsqrt scan scatter scatter-add scatter-mul
select_and_gather_add select_and_scatter_add select_n shift_left
shift_right_arithmetic shift_right_logical sign sin sinh slice sort split sqrt square
squeeze stop_gradient sub tan tanh threefry2x32 top_k transpose while xor
"""
_TELLS = frozenset({"debug_callback", "debug_print", "io_callback"})
"""Operations that hand what they see to Python, and give nothing back that could be clipped."""

_ROWWISE = frozenset(_ROWWISE_NAMES.split())
"""Operations of jax.lax that vmap carries out row by row, whatever they are given."""


def check(
    name: str,
    loss: Callable[..., tuple[jax.Array, Any]],
    prepare: Callable[..., PyTree] | None,
    params: PyTree,
    frozen: PyTree,
    spec: Mapping[str, jax.ShapeDtypeStruct],
    *,
    probe: bool = False,
) -> None:
    """Refuses a Method whose examples can see each other; returns nothing if they cannot.

    First the equations of `prepare` and of the loss's gradient are read: where every
    operation is one that vmap carries out row by row, nothing can pass between rows. Where
    one is not, or if `probe` asks for it, the vmapped function is run as the step runs it,
    on ROWS made-up examples, and asked of every row j: is the derivative of the other
    rows' outputs in the direction of row j exactly zero (forward mode), and do they stay
    as they are when row j becomes another example, or NaN, with another key?

    Args:
      name: of the Method, for the sentence.
      loss: `(params, frozen, example, key) -> (scalar, aux)` of one example.
      prepare: `(frozen, raw example) -> example`, or None.
      params, frozen: as `Method.init` gives them, or their shapes; a probe makes up the rest.
      spec: shape and dtype of each array of a raw example.
      probe: run the probes in any case (two compilations of each function).

    Raises InputError, in one sentence. Source: the Jacobian test of sharp edges 9 and 10.
    """
    example = dict(spec)
    if prepare is not None:
        fun = lambda operands, one, key: prepare(operands, one)
        _refuse(name, "prepare", fun, fun, frozen, example, lambda: _made_up(spec), probe)
        example = jax.eval_shape(prepare, frozen, example)

    def made_up() -> PyTree:
        rows = _made_up(spec)
        if prepare is not None:
            shared = _with_values(frozen)
            rows = jax.jit(jax.vmap(jax.vmap(prepare, (None, 0)), (None, 0)))(shared, rows)
        return rows

    scalar = lambda both, one, key: loss(*both, one, key)[0]
    grad = lambda both, *row: jax.grad(lambda p: loss(p, both[1], *row)[0])(both[0])
    _refuse(name, "loss", scalar, grad, (params, frozen), example, made_up, probe)


def foreign_operations(fun: Fun, operands: PyTree, example: PyTree) -> set[str]:
    """Returns the operations of `fun` that are not known to keep to their row under vmap.

    Args:
      fun: `(operands, example, key) -> pytree` of one example; it is traced, not run.
    """
    try:
        jaxpr = jax.make_jaxpr(fun)(operands, example, jax.random.key(0)).jaxpr
    except (TypeError, ValueError, NotImplementedError) as error:
        return {f"cannot be traced: {error}"}
    return set(_operations(jaxpr)) - _ROWWISE


def refuse_unknown_operations(fun: Fun, operands: PyTree, example: PyTree) -> None:
    """Refuses a function with operations that might carry one row into another; runs nothing.

    Stricter than `check`, which asks unknown operations by probes what they do.

    Args:
      fun: `(operands, example, key) -> pytree` of one example.

    Raises InputError, in one sentence.
    """
    try:
        found = sorted(foreign_operations(fun, operands, example))
    except NameError as error:
        if "axis name" not in str(error):
            raise
        found = [f"a collective ({error})"]
    if found:
        raise InputError(
            f"The loss uses {', '.join(found)}, by which one example of a batch may reach "
            "another's gradient, so clipping would bound nobody's influence: write it with "
            "row-wise operations of jax.lax, or train by jaxfair.fit_private, which probes it."
        )


def _operations(jaxpr: Any) -> Iterator[str]:
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for value in equation.params.values():
            for part in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(part, "jaxpr", part)
                if hasattr(inner, "eqns"):
                    yield from _operations(inner)


def coupled_rows(fun: Fun, operands: PyTree, rows: PyTree) -> list[tuple[int, int]]:
    """Returns the pairs (i, j) for which row j changes the output of row i; [] if none does.

    Args:
      fun: `(operands, example, key) -> pytree` of one example.
      operands: what all examples share.
      rows: leaves (2, ROWS, ...): a batch, and the rows that take the places of its rows.
    """
    changes = _changes_by_replacement(fun, operands, rows)
    # custom_vjp and callbacks have no forward mode; replacement has seen them
    with contextlib.suppress(TypeError, ValueError, NotImplementedError):
        changes |= _changes_by_derivative(fun, operands, rows)
    pairs = np.argwhere(changes & ~np.eye(ROWS, dtype=bool))
    return [(int(i), int(j)) for j, i in pairs]


def _refuse(
    name: str,
    part: str,
    fun: Fun,
    equations: Fun,
    operands: PyTree,
    example: PyTree,
    made_up: Callable[[], PyTree],
    probe: bool,
) -> None:
    try:
        foreign = foreign_operations(equations, operands, example)
        if foreign & _TELLS:
            raise InputError(
                f"The {part} of Method {name!r} has {', '.join(sorted(foreign & _TELLS))}, which "
                "takes single examples out of the step without noise (a jax.debug.print, most "
                "likely): take it out, or train with dp.enabled=False."
            )
        if not probe and not foreign:
            return
        pairs = coupled_rows(fun, _with_values(operands), made_up())
    except NameError as error:
        if "axis name" not in str(error):
            raise
        raise InputError(
            f"The {part} of Method {name!r} talks to other examples over a mesh axis, so "
            "clipping would bound nobody's influence: compute it from one example alone, or "
            "train with dp.enabled=False."
        ) from error
    if pairs:
        i, j = pairs[0]
        raise InputError(
            f"The {part} of Method {name!r} couples the examples of a batch (example {j} changes "
            f"what example {i} gives), so clipping would bound nobody's influence: compute it "
            "from one example alone, or train with dp.enabled=False."
        )


def _changes_by_replacement(fun: Fun, operands: PyTree, rows: PyTree) -> np.ndarray:
    """(j, i) bool: does row i of the output change when row j of the batch is replaced?"""
    batch, others = (jax.tree.map(lambda a, k=k: a[k], rows) for k in (0, 1))
    keys, other_keys = jax.random.split(jax.random.key(0), (2, ROWS))
    spoilt = jax.tree.map(_as_nan, batch)
    variants = [(batch, keys)]
    for others_now in (others, spoilt):
        for j in range(ROWS):
            swap = lambda a, b, j=j: a.at[j].set(b[j])
            variants.append(jax.tree.map(swap, (batch, keys), (others_now, other_keys)))
    outputs = jax.jit(jax.vmap(fun, in_axes=(None, 0, 0)))
    found = [jax.tree.leaves(outputs(operands, *variant)) for variant in variants]
    changed = np.zeros((2 * ROWS, ROWS), bool)
    for leaf in zip(*found):
        changed |= _differs(np.stack([np.asarray(a.astype(jnp.float32)) for a in leaf]))
    return changed[:ROWS] | changed[ROWS:]


def _differs(outputs: np.ndarray) -> np.ndarray:
    """(1 + v, rows, ...) -> (v, rows) bool: does a row of a variant differ from the first one?"""
    flat = outputs.reshape(*outputs.shape[:2], -1)
    base, variants = flat[:1], flat[1:]
    scale = np.max(np.abs(base), initial=0, where=np.isfinite(base))
    near = np.abs(variants - base) <= TOLERANCE * scale
    same = near | (variants == base) | (np.isnan(variants) & np.isnan(base))
    return np.any(~same, axis=-1)


def _changes_by_derivative(fun: Fun, operands: PyTree, rows: PyTree) -> np.ndarray:
    """(j, i) bool: has row i of the output a derivative in the direction of row j?"""
    batch, others = (jax.tree.map(lambda a, k=k: a[k], rows) for k in (0, 1))
    leaves, structure = jax.tree.flatten(batch)
    moving = [jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves]
    keys = jax.random.split(jax.random.key(0), ROWS)

    def outputs(floats: list[jax.Array], shared: PyTree) -> list[jax.Array]:
        floats = list(floats)
        mixed = [floats.pop(0) if moves else leaf for moves, leaf in zip(moving, leaves)]
        batched = jax.vmap(fun, in_axes=(None, 0, 0))
        return jax.tree.leaves(batched(shared, jax.tree.unflatten(structure, mixed), keys))

    floats = [leaf for moves, leaf in zip(moving, leaves) if moves]
    directions = [b for moves, b in zip(moving, jax.tree.leaves(others)) if moves]
    derivative = jax.jit(
        lambda shared, t: jax.jvp(lambda x: outputs(x, shared), (floats,), (t,))[1]
    )
    changed = np.zeros((ROWS, ROWS), bool)
    for j in range(ROWS):
        tangents = [jnp.zeros_like(b).at[j].set(b[j]) for b in directions]
        for leaf in derivative(operands, tangents):
            if leaf.dtype != jax.dtypes.float0:
                changed[j] |= np.any(np.asarray(leaf.reshape(ROWS, -1)) != 0, axis=-1)
    return changed


def _made_up(spec: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, jax.Array]:
    """Returns leaves (2, ROWS, ...): uniform in [0, 1], the second batch in [0, 3]; 0/1 else."""
    generator = np.random.default_rng(0)
    rows = {}
    for name, leaf in spec.items():
        shape = (2, ROWS, *leaf.shape)
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            values = generator.random(shape) * np.array([1, 3]).reshape(2, *[1] * (len(shape) - 1))
        else:
            values = generator.integers(0, 2, shape)
        rows[name] = jnp.asarray(values).astype(leaf.dtype)
    return rows


def _with_values(tree: PyTree) -> PyTree:
    """Fills shapes with values in [0, 1); values stay as they are."""
    generator = np.random.default_rng(0)

    def filled(leaf: Any) -> Any:
        if not isinstance(leaf, jax.ShapeDtypeStruct):
            return leaf
        return jnp.asarray(generator.random(leaf.shape)).astype(leaf.dtype)

    return jax.tree.map(filled, tree)


def _as_nan(leaf: jax.Array) -> jax.Array:
    floating = jnp.issubdtype(leaf.dtype, jnp.floating)
    return jnp.full_like(leaf, jnp.nan) if floating else leaf
