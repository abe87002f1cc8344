"""How many examples per device to hold at once: a quick search on made-up data.

The size changes memory and speed and nothing else, but for a Method with a `batch_loss`, which
sees one microbatch at a time. It is sought once, before any data is read, kept in the run folder
and part of the run's fingerprint; a resumed run reads it back.
"""

import time
from collections.abc import Callable

import jax

from jaxfair.engine.assembly import Assembly

__all__ = ["CANDIDATES", "batch_share", "fastest"]

CANDIDATES = (8, 16, 32, 64, 128)
_REPEATS = 3


def fastest(assembly: Assembly) -> int:
    """Returns the microbatch with which a training makes the most steps per second.

    A step sums what its draws are padded to, or the expected batch, in whole chunks.

    Sizes are tried from small to large until one does not fit or is slower than the best.
    Larger ones than a device's share of the expected batch are not tried, since they would
    mostly hold padding. Where a loss sees the batch it is `batch_share`, and nothing is sought.
    """
    whole = batch_share(assembly)
    if whole is not None:
        return whole
    share = _share(assembly)
    rows = assembly.plan.padded_to or assembly.plan.expected_batch_size
    best, best_rate = CANDIDATES[0], 0.0
    for size in CANDIDATES:
        if size > max(share, CANDIDATES[0]):
            break
        try:
            chunks = -(-rows // (size * assembly.mesh.size))
            rate = 1 / (chunks * _seconds(assembly.with_microbatch(size).made_up_update()))
        except jax.errors.JaxRuntimeError:  # it does not fit
            break
        if rate < best_rate:
            break
        best, best_rate = size, rate
    return best


def batch_share(assembly: Assembly) -> int | None:
    """Returns a device's share of the expected batch if a stage has a `batch_loss`; else None.

    Such a loss gets a microbatch, so that what is trained must not depend on a clock, or on what
    is usual for other Methods.
    """
    methods = [assembly.method, *(stage.method for stage in assembly.method.stages)]
    coupled = any(method.batch_loss is not None for method in methods)
    return _share(assembly) if coupled else None


def _share(assembly: Assembly) -> int:
    return -(-assembly.plan.expected_batch_size // assembly.mesh.size)


def _seconds(call: Callable[[], None]) -> float:
    call()  # compiles
    times = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)
