"""One function over many items, in several processes, with a progress bar."""

import collections
import contextlib
import dataclasses
import errno
import multiprocessing
import os
import pickle
import signal
import sys
import types
from collections.abc import Callable, Generator, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

import tqdm

from jaxfair.data.worker import READY, Limits, fate, serve

__all__ = ["Limits", "parallel"]

Item = TypeVar("Item")
Result = TypeVar("Result")
CHUNK = 16
FEW = 64
"""Fewer items than this get one process, or none: starting more takes longer."""

AHEAD = 3
"""Chunks by process that may be begun before the oldest one is done."""

DYING = 10
"""Seconds that a process has from the end of its line to its own."""

NO_LIMITS = Limits()
PRELOADED = "jaxfair.data.reading"
"""What the server imports before it forks."""

CHILD_VARIABLES = {
    "OPENBLAS_NUM_THREADS": "1",
    # glibc keeps freed images instead of giving them back: drawing takes a third of the time.
    "MALLOC_MMAP_THRESHOLD_": str(2**26),
    "MALLOC_TRIM_THRESHOLD_": str(2**28),
}
_FULL = (errno.ENOSPC, errno.EDQUOT)


def parallel(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    label: str,
    progress: bool = True,
    processes: int | None = None,
    lost: Callable[[Item, str], Result] | None = None,
    limits: Limits = NO_LIMITS,
) -> Iterator[Result]:
    """Yields `work(item)` in the order of `items`, whatever the number of processes.

    Processes are forked by a lean server and never by this process (JAX's threads do not survive
    a fork), so that a new one costs milliseconds. At most a few chunks are under way at once, so
    results may be large and items many. All of them end with this process, however it ends.

    With `lost`, every item is worked on in a process of its own kind, never in this one: an item
    that raises, ends its process, or takes more than `limits` costs only itself, and a new process
    goes on behind it. A process that was killed from outside gets its item a second time. Raised
    all the same are a full disk and an interrupt, which are no fault of an item, and a process
    that ends before its first item.

    Args:
      work: a function of a module of this package (it is sent by name).
      items: what it is called with.
      label: text of the progress bar, which shows rate and time left.
      progress: False draws no bar.
      processes: default is the number of usable cores; 1 works in this process, unless `lost`.
      lost: (item, reason) -> what is yielded for it; None raises instead.
      limits: of one item, where it is worked on in another process.
    """
    count = processes or len(os.sched_getaffinity(0))
    bar = tqdm.tqdm(total=len(items), desc=label, disable=not progress, unit=" files")
    with bar, contextlib.ExitStack() as stack:
        results: Iterator[Result] = map(work, items)
        if lost is not None or (count > 1 and len(items) >= FEW):
            crew = _Crew(work, items, 1 if len(items) < FEW else count, lost, limits)
            results = stack.enter_context(contextlib.closing(crew.results()))
        for result in results:
            bar.update()
            yield result


@dataclasses.dataclass(eq=False)
class _Worker:
    """A process, the line to it, and the places of the items that it has not answered."""

    process: BaseProcess
    line: Connection
    todo: collections.deque[int] = dataclasses.field(default_factory=collections.deque)
    ready: bool = False


class _Crew(Generic[Item, Result]):
    """Hands chunks of items to processes, gathers what they answer, and replaces the dead."""

    def __init__(
        self,
        work: Callable[[Item], Result],
        items: Sequence[Item],
        count: int,
        lost: Callable[[Item, str], Result] | None,
        limits: Limits,
    ) -> None:
        self._work, self._items, self._lost, self._limits = work, items, lost, limits
        self._chunks = collections.deque(
            list(range(i, min(i + CHUNK, len(items)))) for i in range(0, len(items), CHUNK)
        )
        self._count = min(count, len(self._chunks))
        self._workers: list[_Worker] = []
        self._done: dict[int, Result] = {}
        self._again: set[int] = set()

    def results(self) -> Generator[Result, None, None]:
        """Yields what is done in the order of the items."""
        try:
            for place in range(len(self._items)):
                while place not in self._done:
                    self._hand_out(place)
                    self._gather()
                yield self._done.pop(place)
        finally:
            for worker in self._workers:
                self._end(worker)

    def _hand_out(self, place: int) -> None:
        """Gives every idle worker a chunk, if it is not too far ahead of `place`."""
        while len(self._workers) < self._count:
            self._workers.append(self._started())
        far = place + AHEAD * CHUNK * self._count
        for worker in self._workers:
            if not worker.todo and self._chunks and self._chunks[0][0] < far:
                worker.todo.extend(self._chunks.popleft())
                with contextlib.suppress(OSError):  # it has died, which `_gather` will see
                    worker.line.send([self._items[i] for i in worker.todo])

    def _gather(self) -> None:
        """Waits for at least one message and takes all that are there."""
        lines = {worker.line: worker for worker in self._workers}
        for line in wait(list(lines)):
            worker = lines[line]  # type: ignore[index]
            try:
                message = worker.line.recv_bytes()
            except (EOFError, OSError):
                self._bury(worker)
            else:
                self._take(worker, message)

    def _take(self, worker: _Worker, message: bytes) -> None:
        if message == READY:
            worker.ready = True
            return
        place = worker.todo.popleft()
        good, answer = pickle.loads(message)
        self._done[place] = answer if good else self._without(place, error=answer)

    def _without(self, place: int, error: BaseException) -> Result:
        """What stands for an item that raised."""
        full = isinstance(error, OSError) and error.errno in _FULL
        if self._lost is None or full or isinstance(error, KeyboardInterrupt):
            raise error
        return self._lost(self._items[place], _said(error))

    def _bury(self, worker: _Worker) -> None:
        """Sets aside the item that a worker died of and gives the others back."""
        self._workers.remove(worker)
        worker.process.join(DYING)
        code = worker.process.exitcode
        self._end(worker)
        if not worker.ready:
            raise RuntimeError(f"A process for decoding could not start (exit code {code}).")
        rest = list(worker.todo)
        if rest and code in (None, -signal.SIGKILL) and rest[0] not in self._again:
            self._again.add(rest[0])
        elif rest:
            place, *rest = rest
            reason = fate(code, self._limits)
            if self._lost is None:
                raise RuntimeError(f"{self._items[place]} cannot be worked on: {reason}.")
            self._done[place] = self._lost(self._items[place], reason)
        if rest:
            self._chunks.appendleft(rest)

    def _started(self) -> _Worker:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([PRELOADED])
        ours, theirs = context.Pipe()
        process = context.Process(
            target=serve, args=(theirs, self._work, self._limits), daemon=True
        )
        with theirs, _lean_children():
            process.start()
        return _Worker(process, ours)

    def _end(self, worker: _Worker) -> None:
        worker.line.close()
        worker.process.kill()
        worker.process.join()
        worker.process.close()


def _said(error: BaseException) -> str:
    """An exception as a reason.

    >>> _said(KeyError("spacing"))
    "KeyError: 'spacing'"
    """
    if isinstance(error, MemoryError):
        return "it takes more memory than a process for decoding may have (data.max_megabytes)"
    text = " ".join(str(error).split())[:160]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


@contextlib.contextmanager
def _lean_children() -> Iterator[None]:
    """Children neither run the caller's script again nor inherit a thread per core each."""
    main = sys.modules["__main__"]
    before: dict[str, Any] = {name: os.environ.get(name) for name in CHILD_VARIABLES}
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
