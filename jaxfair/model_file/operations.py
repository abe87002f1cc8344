"""What a scoring program may be made of: operations that end, and that reach nothing outside it.

A program of an unknown hand could reach into this process by a call, or never end by a loop. So the
operations of StableHLO are named here that it may hold, and all others are refused: loops, calls
that are not linear algebra, random numbers, other devices. Every export of ours passes.
"""

import functools
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from jax.export import Exported
from jax.interpreters import mlir
from jaxlib.mlir import ir

from jaxfair.errors import InputError

__all__ = ["MOST", "SIDE", "check_operations"]

MOST = 200_000
"""Operations of a program, those of a function counted wherever it is called; the largest network
of this package has some 19,000."""
SIDE = 4096
"""The longest side of what linear algebra is asked for; it takes the cube of it."""

_PURE = """
    abs add and atan2 bitcast_convert broadcast broadcast_in_dim case cbrt ceil cholesky clamp
    compare complex concatenate constant convert convolution cosine count_leading_zeros divide dot
    dot_general dynamic_broadcast_in_dim dynamic_conv dynamic_gather dynamic_iota dynamic_pad
    dynamic_reshape dynamic_slice dynamic_update_slice exponential exponential_minus_one fft floor
    gather get_dimension_size get_tuple_element if imag iota is_finite log log_plus_one logistic map
    maximum minimum multiply negate not optimization_barrier or pad popcnt power real
    real_dynamic_slice reduce reduce_precision reduce_window remainder reshape return reverse
    round_nearest_afz round_nearest_even rsqrt scatter select select_and_scatter shift_left
    shift_right_arithmetic shift_right_logical sign sine slice sort sqrt subtract tan tanh transpose
    triangular_solve tuple xor
"""
_CALL, _LIBRARY, _COMPOSITE = "func.call", "stablehlo.custom_call", "stablehlo.composite"
_CALLED = {_CALL: "callee", _COMPOSITE: "decomposition"}
"""Operations that stand for a function of the program, and where they name it."""
_ALLOWED = {f"stablehlo.{name}" for name in _PURE.split()} | {*_CALLED, _LIBRARY, "func.return"}

_CALLS = re.compile(
    r"shape_assertion|Sharding|lapack_[a-z]+_ffi|cusolver_[a-z]+_ffi|cublas_[a-z]+_ffi|"
    r"cu_lu_pivots_to_permutation"
)
"""What a program may call beside its own operations: linear algebra and checks of shapes."""


def check_operations(program: Exported) -> None:
    """Raises InputError where a program may not end, reaches outside of it, or is too long.

    Guarantees, of a program that passes:
      no operation of it is a loop, and no function of it leads back to itself;
      it calls nothing but checks of shapes, and linear algebra on sides of at most SIDE (beside
        those that follow the number of images);
      written out, each function wherever it is called, it has at most MOST operations.

    Nothing of it is run.
    """
    try:
        with mlir.make_ir_context():
            module = ir.Module.parse(program.mlir_module())
            functions = dict(map(_read, module.body.operations))
        length = _length_of(functions)
        longest = max(map(length, functions), default=0)
    except InputError:
        raise
    except (ir.MLIRError, RuntimeError, ValueError, KeyError, AttributeError) as error:
        raise InputError(
            f"its program has operations that cannot be read ({type(error).__name__}); export the "
            "model again."
        ) from error
    if longest > MOST:
        raise InputError(
            f"its program has more than {MOST:,} operations, and no model of jaxfair has."
        )


class _Function(NamedTuple):
    """How many operations lie in a function, and the functions that it calls, each time it does."""

    size: int
    called: list[str]


def _read(function: Any) -> tuple[str, _Function]:
    """Returns a function by its name, after a look at every operation in it."""
    if function.operation.name != "func.func":
        raise InputError(_refusal(function.operation.name))
    found = Counter[str]()
    called: list[str] = []
    faults: list[str] = []

    def look(operation: Any) -> Any:  # which MLIR calls, and must not raise
        found[operation.name] += 1
        if operation.name in _CALLED:
            called.append(_text(operation, _CALLED[operation.name]))
        if operation.name == _LIBRARY:
            faults.extend(_faults_of_call(operation))
        return ir.WalkResult.ADVANCE

    for block in function.regions[0].blocks:
        for operation in block.operations:
            operation.operation.walk(look)
    faults += [_refusal(name) for name in found if name not in _ALLOWED]
    if faults:
        raise InputError(faults[0])
    return _text(function.operation, "sym_name"), _Function(found.total(), called)


def _faults_of_call(operation: Any) -> Iterator[str]:
    called = _text(operation, "call_target_name")
    if not _CALLS.fullmatch(called) or list(operation.attributes.get("called_computations", ())):
        yield f"its program calls {called}, and a model file may call linear algebra only."
    elif called.endswith("_ffi"):
        sides = [side for one in operation.operands for side in ir.ShapedType(one.type).shape]
        if max(sides, default=0) > SIDE:
            yield (
                f"its program calls {called} on an array with a side of {max(sides):,}, and a "
                f"model file may up to {SIDE:,}."
            )


def _refusal(name: str) -> str:
    if name == "stablehlo.while":
        return "its program has a loop, so that it may never end; a model file has none."
    return f"its program has the operation {name}, which no model file has."


def _length_of(functions: Mapping[str, _Function]) -> Callable[[str], int]:
    """Returns name -> operations of a function and of those that it calls, each time it does."""
    begun: set[str] = set()

    @functools.cache
    def length(name: str) -> int:
        if name in begun:
            raise InputError(
                "its program has a function that calls itself, so that it may never end; a model "
                "file has none."
            )
        begun.add(name)
        return functions[name].size + sum(map(length, functions[name].called))

    return length


def _text(operation: Any, name: str) -> str:
    """The text, or the name of a function, that an operation bears."""
    return str(operation.attributes[name].value)
