"""Measuring on a shared machine: interleaved rounds, medians and spread, and the ceilings."""

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["Built", "build", "ceilings", "interleaved", "summary"]


class Built(NamedTuple):
    """A compiled function and what the compiler says about it.

    Attributes:
      call: the compiled function.
      compile_seconds: tracing, lowering and compiling.
      memory_mib: buffers held at once, arguments included, by the compiler's own count.
      flops, bytes_accessed: the compiler's count; the body of a loop counts once.
    """

    call: Callable[..., Any]
    compile_seconds: float
    memory_mib: float
    flops: float
    bytes_accessed: float


def build(fun: Callable[..., Any], *args: Any) -> Built:
    """Compiles `fun` for arrays or `jax.ShapeDtypeStruct`s `args`; nothing is run."""
    start = time.perf_counter()
    compiled = jax.jit(fun).lower(*args).compile()
    seconds = time.perf_counter() - start
    memory: Any = compiled.memory_analysis()
    cost = compiled.cost_analysis() or {}
    held = memory.temp_size_in_bytes + memory.argument_size_in_bytes + memory.output_size_in_bytes
    return Built(
        compiled,
        seconds,
        held / 2**20,
        float(cost.get("flops", 0)),
        float(cost.get("bytes accessed", 0)),
    )


def interleaved(
    calls: Mapping[str, Callable[[], Any]], *, rounds: int, seconds: float
) -> dict[str, np.ndarray]:
    """Returns {name: (r, 2)} wall and CPU seconds of each call, round after round.

    Each round takes every call in turn, so that a neighbour's load falls on all alike. A turn
    is one call that is not counted and one that is: whoever follows a call that gave back
    much memory would otherwise pay for its pages (seen: a ratio of 1.33 that is 1.07).
    Stops after `rounds`, or after `seconds` and 3 rounds.
    """
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    start = time.perf_counter()
    for done in range(rounds):
        if done >= 3 and time.perf_counter() - start > seconds:
            break
        for name, call in calls.items():
            jax.block_until_ready(call())
            wall, cpu = time.perf_counter(), time.process_time()
            jax.block_until_ready(call())
            taken[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {name: np.array(values) for name, values in taken.items()}


def summary(values: np.ndarray) -> dict[str, float]:
    """Returns median, quartiles and extremes of (r,) numbers."""
    points = np.quantile(values, [0.5, 0.25, 0.75, 0, 1])
    names = ("median", "q25", "q75", "min", "max")
    return {name: float(value) for name, value in zip(names, points, strict=True)}


def ceilings(precision: str) -> dict[str, float]:
    """Returns what the machine reaches: `gemm_gflops` of a 2048^3 product, `copy_gbytes` per s.

    Args:
      precision: "bfloat16" multiplies bfloat16; else float32 at jax's current precision.
    """
    dtype = jnp.bfloat16 if precision == "bfloat16" else jnp.float32
    a = jnp.ones((2048, 2048), dtype)
    big = jnp.ones(2**26, jnp.float32)
    product, copy = jax.jit(lambda x: x @ x), jax.jit(lambda x: x + 1)
    calls = {"product": lambda: product(a), "copy": lambda: copy(big)}
    best = {n: t[:, 0].min() for n, t in interleaved(calls, rounds=7, seconds=20).items()}
    return {
        "gemm_gflops": 2 * 2048**3 / best["product"] / 1e9,
        "copy_gbytes": 2 * big.nbytes / best["copy"] / 1e9,
    }
