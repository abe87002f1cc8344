"""What a Method says of images, as a program: StableHLO by jax.export, for cpu and cuda."""

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from jaxfair.errors import InputError
from jaxfair.methods.base import Method, PyTree

__all__ = ["GIVEN", "PLATFORMS", "exported", "named_leaves", "restored"]

PLATFORMS = ("cpu", "cuda")
GIVEN = ("image", "group")
"""Arrays of an example that a prediction may read; labels and weights are zero to it."""

_CALLS = re.compile(
    r"shape_assertion|Sharding|lapack_[a-z]+_ffi|cusolver_[a-z]+_ffi|cublas_[a-z]+_ffi|"
    r"cu_lu_pivots_to_permutation"
)
"""What a program may call beside its own operations: linear algebra and checks of shapes."""

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

    Raises InputError where the program would call what `restored` refuses.
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
    except (ValueError, NotImplementedError) as error:
        raise InputError(
            f"The method {method.name!r} cannot be exported: {' '.join(str(error).split())[:300]}"
        ) from error
    _check_calls(made)
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

    Raises InputError where it cannot be read, or calls anything but linear algebra: a program of
    an unknown hand could reach into this process by a call.
    """
    try:
        found = export.deserialize(bytearray(content))
    except Exception as error:
        raise InputError(
            f"its program cannot be read by jax {jax.__version__} ({type(error).__name__}); export "
            "the model again."
        ) from error
    _check_calls(found)
    return found.call


def _unnamed_calls() -> list[Any]:
    """jax promises less for some calls of linear algebra than for its own operations."""
    names = ("cusolver_getrf_ffi", "cusolver_syevd_ffi", "cusolver_potrf_ffi",
             "lapack_ssyevd_ffi", "lapack_sgetrf_ffi", "lapack_strsm_ffi", "lapack_spotrf_ffi",
             "cu_lu_pivots_to_permutation")  # fmt: skip
    return [export.DisabledSafetyCheck.custom_call(name) for name in names]


def _check_calls(program: export.Exported) -> None:
    """Every `custom_call` in the text of the program has a name that is known."""
    text = program.mlir_module()
    named = re.findall(r"custom_call @([\w.$]+)\(", text)
    strange = [name for name in named if not _CALLS.fullmatch(name)]
    if strange or len(named) != text.count("custom_call"):
        what = strange[0] if strange else "something that it does not name"
        raise InputError(
            f"its program calls {what}, and a model file may call linear algebra only."
        )
