"""One function over many items, in several processes, with a progress bar."""

import collections
import concurrent.futures
import contextlib
import multiprocessing
import os
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import tqdm

__all__ = ["parallel"]

Item = TypeVar("Item")
Result = TypeVar("Result")
CHUNK = 16
FEW = 64
"""Fewer items than this are done here: starting processes takes longer."""

CHILD_VARIABLES = {
    "OPENBLAS_NUM_THREADS": "1",
    # glibc keeps freed images instead of giving them back: drawing takes a third of the time.
    "MALLOC_MMAP_THRESHOLD_": str(2**26),
    "MALLOC_TRIM_THRESHOLD_": str(2**28),
}


def parallel(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    label: str,
    progress: bool = True,
    processes: int | None = None,
) -> Iterator[Result]:
    """Yields `work(item)` in the order of `items`, whatever the number of processes.

    Processes are spawned, never forked (JAX's threads do not survive a fork), and at most a
    few chunks are under way at once, so results may be large and items many.

    Args:
      work: a function of a module of this package (it is sent by name).
      items: what it is called with.
      label: text of the progress bar, which shows rate and time left.
      progress: False draws no bar.
      processes: default is the number of usable cores; 1 works in this process.
    """
    count = processes or len(os.sched_getaffinity(0))
    bar = tqdm.tqdm(total=len(items), desc=label, disable=not progress, unit=" files")
    with bar:
        alone = count == 1 or len(items) < FEW
        for result in map(work, items) if alone else _spawned(work, items, count):
            bar.update()
            yield result


def _spawned(work: Callable[[Item], Result], items: Sequence[Item], count: int) -> Iterator[Result]:
    chunks = (items[i : i + CHUNK] for i in range(0, len(items), CHUNK))
    context = multiprocessing.get_context("spawn")
    pool = concurrent.futures.ProcessPoolExecutor(count, mp_context=context)
    waiting: collections.deque = collections.deque()
    try:
        with _lean_children():
            waiting.extend(pool.submit(_chunk, work, c) for c in _some(chunks, 3 * count))
        while waiting:
            yield from waiting.popleft().result()
            waiting.extend(pool.submit(_chunk, work, c) for c in _some(chunks, 1))
    finally:
        pool.shutdown(cancel_futures=True)


def _some(chunks: Iterator, n: int) -> Iterator:
    return (chunk for _, chunk in zip(range(n), chunks))


def _chunk(work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    return [work(item) for item in items]


@contextlib.contextmanager
def _lean_children() -> Iterator[None]:
    """Children neither run the caller's script again nor inherit a thread per core each."""
    main = sys.modules["__main__"]
    before = {name: os.environ.get(name) for name in CHILD_VARIABLES}
    sys.modules["__main__"] = types.ModuleType("__main__")
    os.environ.update(CHILD_VARIABLES)
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
