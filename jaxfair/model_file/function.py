"""What a Method says of images, as a program: StableHLO by jax.export, for cpu and cuda."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from jaxfair.errors import InputError
from jaxfair.methods.base import Method, PyTree
from jaxfair.model_file.operations import check_operations

__all__ = ["GIVEN", "PLATFORMS", "exported", "named_leaves", "restored"]

PLATFORMS = ("cpu", "cuda")
GIVEN = ("image", "group")
"""Arrays of an example that a prediction may read; labels and weights are zero to it."""

Leaves = dict[str, Any]


def named_leaves(params: PyTree, frozen: PyTree) -> Leaves:
    """Returns name -> array of all that a score may read, such as "params/head/kernel"."""
    trees = {"params": params, "frozen": frozen}
    pairs = jax.tree_util.tree_leaves_with_path(trees)
    found = {jax.tree_util.keystr(at, simple=True, separator="/"): leaf for at, leaf in pairs}
    assert len(found) == len(pairs), "two leaves of one name"
    return found


def exported(method: Method, params: PyTree, frozen: PyTree, spec: Mapping[str, Any]) -> bytes:
    """Returns `(leaves, given) -> method.score` as bytes that jax reads without Python code.

    Args:
      method: whose `prepare` is part of the program.
      params, frozen: arrays, or their shapes; `leaves` are those of `named_leaves`.
      spec: of a raw example; `given` holds its arrays of GIVEN, (b, ...), for any b >= 1.

    Guarantee: no path of this machine is in it, and the same inputs give the same bytes.

    Raises InputError where the method cannot be traced, or the program would hold what
    `check_operations` refuses, as a loop.
    """
    trees = jax.tree.structure({"params": params, "frozen": frozen})
    names = list(named_leaves(params, frozen))

    def score(leaves: Leaves, given: dict[str, Any]) -> dict[str, Any]:
        whole = jax.tree.unflatten(trees, [leaves[name] for name in names])
        rows = given["image"].shape[0]
        raw = {name: jnp.zeros((rows, *a.shape), a.dtype) for name, a in spec.items()} | given
        if method.prepare is not None:
            raw |= jax.vmap(method.prepare, (None, 0))(whole["frozen"], raw)
        return method.score(whole["params"], whole["frozen"], raw)

    (b,) = export.symbolic_shape("b")
    given = {
        name: jax.ShapeDtypeStruct((b, *a.shape), a.dtype)
        for name, a in spec.items()
        if name in GIVEN
    }
    shapes = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(np.shape(a), a.dtype), named_leaves(params, frozen)
    )
    exporter = export.export(jax.jit(score), platforms=PLATFORMS, disabled_checks=_unnamed_calls())
    try:
        with _placeless():
            made = exporter(shapes, given)
        check_operations(made)
    except (ValueError, NotImplementedError) as error:
        raise InputError(
            f"The method {method.name!r} cannot be exported: {' '.join(str(error).split())[:300]}"
        ) from error
    return bytes(made.serialize())


@contextlib.contextmanager
def _placeless() -> Iterator[None]:
    """Leaves out of a program the lines that it was traced from, whose paths name a home folder."""
    wanted = {
        "jax_traceback_in_locations_limit": 0,
        "jax_hlo_source_file_canonicalization_regex": ".*",
    }
    before = {name: getattr(jax.config, name) for name in wanted}
    try:
        for name, value in wanted.items():
            jax.config.update(name, value)
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


def restored(content: bytes) -> Callable[[Leaves, dict[str, Any]], dict[str, Any]]:
    """Returns the program of `exported`, to be called with arrays of any batch size.

    Raises InputError where it cannot be read, and as `check_operations`; nothing of it has been run
    by then.
    """
    try:
        found = export.deserialize(bytearray(content))
    except Exception as error:
        raise InputError(
            f"its program cannot be read by jax {jax.__version__} ({type(error).__name__}); export "
            "the model again."
        ) from error
    check_operations(found)
    return found.call


def _unnamed_calls() -> list[Any]:
    """jax promises less for some calls of linear algebra than for its own operations."""
    names = ("cusolver_getrf_ffi", "cusolver_syevd_ffi", "cusolver_potrf_ffi",
             "lapack_ssyevd_ffi", "lapack_sgetrf_ffi", "lapack_strsm_ffi", "lapack_spotrf_ffi",
             "cu_lu_pivots_to_permutation")  # fmt: skip
    return [export.DisabledSafetyCheck.custom_call(name) for name in names]
