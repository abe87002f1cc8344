"""Arrays by name as safetensors: a header of JSON, then the bytes; nothing in it is executed.

The format: https://huggingface.co/docs/safetensors (8 bytes of length, the header, the data).
"""

import json
import math
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np

from jaxfair.errors import InputError

__all__ = ["tensors_from_bytes", "tensors_to_bytes"]

_TYPES: dict[str, Any] = {
    "F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype(ml_dtypes.bfloat16),
    "F64": np.dtype("<f8"), "I64": np.dtype("<i8"), "I32": np.dtype("<i4"),
    "U32": np.dtype("<u4"), "I8": np.dtype("i1"), "U8": np.dtype("u1"), "BOOL": np.dtype("?"),
}  # fmt: skip
_NAMES = {dtype: name for name, dtype in _TYPES.items()}


def tensors_to_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Returns the arrays as safetensors, in the order of their names.

    Raises InputError where an array holds a number that is not finite: it would score nothing.

    >>> tensors_from_bytes(tensors_to_bytes({"a": np.arange(3, dtype=np.int32)}))["a"].tolist()
    [0, 1, 2]
    """
    header, at, body = {}, 0, []
    for name in sorted(arrays):
        array = np.asarray(arrays[name])
        if array.dtype not in _NAMES:
            raise ValueError(f"{name} has the type {array.dtype}, which safetensors does not have.")
        _check_finite(name, array)
        raw = array.tobytes()
        header[name] = {
            "dtype": _NAMES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [at, at + len(raw)],
        }
        at += len(raw)
        body.append(raw)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *body])


def tensors_from_bytes(content: bytes) -> dict[str, np.ndarray]:
    """Returns name -> array, of bytes that are nothing but arrays, one behind the other.

    Raises InputError where they are anything else: no byte is read twice, or left over, and every
    number is finite.
    """
    try:
        length = int.from_bytes(content[:8], "little")
        if length > len(content) - 8:
            raise InputError("the header of its parameters is longer than they are.")
        header, body = json.loads(content[8 : 8 + length]), content[8 + length :]
        found, at = {}, 0
        for name, entry in header.items():
            found[name], at = _array(name, entry, body, at)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"its parameters are no safetensors ({type(error).__name__}).") from error
    if at != len(body):
        raise InputError("its parameters hold bytes that belong to no array.")
    return found


def _array(name: str, entry: Any, body: bytes, at: int) -> tuple[np.ndarray, int]:
    dtype, shape, (begin, end) = _TYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
    whole = all(type(n) is int and n >= 0 for n in (*shape, begin, end))
    if not whole or begin != at or end - begin != math.prod(shape) * dtype.itemsize:
        raise InputError(f"its array {name!r} does not lie where its shape says.")
    if end > len(body):
        raise InputError(f"its array {name!r} is cut off.")
    array = np.frombuffer(body[begin:end], dtype).reshape(shape)
    _check_finite(name, array)
    return array, end


def _check_finite(name: str, array: np.ndarray) -> None:
    if array.dtype != bool and not np.isfinite(array).all():
        raise InputError(
            f"its array {name!r} holds numbers that are not finite, by which nothing is scored; "
            "train again, and export that."
        )
