"""What the benchmark runs: a Method, its parameters, and a made-up batch of examples."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxfair.engine.chunk import Chunk, made_up_chunk
from jaxfair.errors import InputError
from jaxfair.methods.base import Method, PyTree, carrying
from jaxfair.methods.catalog import METHODS, make_method
from jaxfair.methods.precision import in_precision

__all__ = ["PRECISIONS", "Workload", "make_workload"]

PRECISIONS = {"float32": "highest", "tf32": "tensorfloat32", "bfloat16": "default"}
"""Precision of a workload -> jax's matmul precision; "bfloat16" also multiplies
convolutions so, as `method.precision` does in training."""


class Workload(NamedTuple):
    """One model and one chunk of examples.

    Attributes:
      method: its loss takes examples as they stand in the chunk.
      params, frozen: float32 leaves.
      chunk: as the training step receives it; nobody in it is padding.
      words: key material of its examples.
      precision: as it was asked for.
    """

    method: Method
    params: PyTree
    frozen: PyTree
    chunk: Chunk
    words: jax.Array
    precision: str = "float32"


def make_workload(work: Any, *, rows: int, precision: str) -> Workload:
    """Returns the Workload of `work`, one entry of `config.works`, with `rows` examples.

    Args:
      work: has `method`, `options` (fields of the Method's config), `image` (shape of one
        example) and `prepared` (True: the batch holds what the frozen part computed once).
      precision: a key of PRECISIONS.

    Raises InputError for a precision that is none of them.
    """
    if precision not in PRECISIONS:
        raise InputError(f"precision {precision!r} is none of {', '.join(PRECISIONS)}.")
    method = _method(work)
    image = jax.ShapeDtypeStruct(tuple(work.image), jnp.float32)
    params, frozen = method.init(jax.random.key(0), {"image": image})
    if method.schedule is not None:
        frozen = method.schedule(frozen, jnp.float32(0.5))
    batch = _batch(work, method, frozen, rows)

    def loss(params: PyTree, frozen: PyTree, example: PyTree, key: jax.Array) -> Any:
        if method.prepare is not None and not work.prepared:
            example = {**example, **method.prepare(frozen, example)}
        return method.loss(params, frozen, example, key)[0].astype(jnp.float32), {}

    measured = method._replace(loss=loss, prepare=None)
    measured = in_precision(measured, "bfloat16" if precision == "bfloat16" else "float32")
    words = jax.random.key_data(jax.random.key(1))
    return Workload(measured, params, frozen, made_up_chunk(batch), words, precision)


def _method(work: Any) -> Any:
    return make_method(work.method, METHODS[work.method].config(**work.options.to_dict()))


def _batch(work: Any, method: Any, frozen: PyTree, rows: int) -> PyTree:
    rng = np.random.default_rng(0)
    raw = {"image": rng.random((rows, *work.image), np.float32)}
    labels = len(work.options.get("labels", ()))
    if labels:
        raw["label"] = (rng.random((rows, labels)) < 0.5).astype(np.float32)
        raw["label_mask"] = np.ones((rows, labels), bool)
    sizes = list(work.options.get("attributes", {}).values())
    if sizes:
        raw["group"] = rng.integers(0, sizes, (rows, len(sizes))).astype(np.int32)
    if method.prepare is None or not work.prepared:
        return jax.tree.map(jnp.asarray, raw)
    handing_on: Any = carrying(method, raw).prepare
    prepare = jax.jit(handing_on)
    rows_of = [prepare(frozen, {k: v[i] for k, v in raw.items()}) for i in range(rows)]
    return jax.tree.map(lambda *xs: jnp.stack(xs), *rows_of)
