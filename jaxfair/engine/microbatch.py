"""How many examples per device to hold at once: a quick search on made-up data.

The size changes memory and speed and nothing else. It is sought once, before any data is
read, kept in the run folder and part of the run's fingerprint; a resumed run reads it back.
"""

import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import ShapeDtypeStruct as Struct
from jax.sharding import Mesh

from jaxfair.engine.mesh import AXIS, put_replicated
from jaxfair.engine.step import Randomness, Step
from jaxfair.methods.base import Method, PyTree
from jaxfair.privacy import noise

__all__ = ["CANDIDATES", "fastest", "made_up_call"]

CANDIDATES = (8, 16, 32, 64, 128)
_REPEATS = 3


def fastest(
    make: Callable[[int], Step],
    method: Method,
    mesh: Mesh,
    params: PyTree,
    frozen: PyTree,
    spec: dict[str, Struct],
    *,
    expected_batch_size: int,
) -> int:
    """Returns the microbatch with the most examples per second.

    Args:
      make: `(microbatch) -> Step`.
      spec: of one raw example.
      expected_batch_size: larger microbatches than a device's share of it are not tried,
        since they would mostly hold padding.

    Sizes are tried from small to large until one does not fit or is slower than the best.
    """
    share = -(-expected_batch_size // mesh.size)
    best, best_rate = CANDIDATES[0], 0.0
    for size in CANDIDATES:
        if size > max(share, CANDIDATES[0]):
            break
        try:
            rate = size / _seconds(
                made_up_call(make(size), method, mesh, params, frozen, spec, size)
            )
        except jax.errors.JaxRuntimeError:  # it does not fit
            break
        if rate < best_rate:
            break
        best, best_rate = size, rate
    return best


def made_up_call(
    step: Step,
    method: Method,
    mesh: Mesh,
    params: PyTree,
    frozen: PyTree,
    spec: dict[str, Struct],
    microbatch: int,
) -> Callable[[], None]:
    """Returns a function that runs one update on zeros and waits for it."""
    example = spec if method.prepare is None else jax.eval_shape(method.prepare, frozen, spec)
    rows = microbatch * mesh.size
    chunk = {name: jnp.zeros((rows, *s.shape), s.dtype) for name, s in example.items()}
    chunk |= {"is_padding": jnp.zeros(rows, bool), "unit_id": jnp.zeros(rows, jnp.uint32)}
    chunk = jax.device_put(chunk, jax.NamedSharding(mesh, jax.P(AXIS)))
    leaves = len(jax.tree.leaves(params))
    words = jnp.zeros((leaves, noise.DRAWS_PER_NORMAL, 2), jnp.uint32)
    held = [put_replicated(mesh, step.init(jax.tree.map(jnp.copy, params)))]  # it is given back

    def call() -> None:
        randomness = Randomness(jnp.zeros(2, jnp.uint32), words)
        held[0], _ = step.update(held[0], frozen, chunk, randomness, True)
        jax.block_until_ready(held[0].step)

    return call


def _seconds(call: Callable[[], None]) -> float:
    call()  # compiles
    times = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)
