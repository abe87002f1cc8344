"""What one decoding process does: item after item, within a limit of time and one of memory."""

import contextlib
import ctypes
import multiprocessing
import os
import pickle
import resource
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

__all__ = ["READY", "Limits", "fate", "serve"]

READY = b"ready"


class Limits(NamedTuple):
    """What one item may take in its process; None is no limit.

    Attributes:
      seconds: of the wall clock; the kernel ends the process, whatever holds the interpreter.
      megabytes: 2^20 bytes of private memory beyond what the process takes for itself; mapped
        files do not count.
    """

    seconds: float | None = None
    megabytes: int | None = None


def serve(line: Connection, work: Callable[[Any], Any], limits: Limits) -> None:
    """Answers lists of items that come down the line, one message an item, until None comes.

    Says READY first. An answer is the pickle of (True, result) or (False, exception). The process
    ends with its parent, and leaves an interrupt from the keyboard to it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # which ends the process
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    _hold(limits.megabytes)
    with contextlib.suppress(EOFError, OSError):  # of the line: the parent has gone
        line.send_bytes(READY)
        while (items := line.recv()) is not None:
            for item in items:
                with _timed(limits.seconds):
                    answer = _answer(work, item)
                line.send_bytes(answer)


def fate(exitcode: int | None, limits: Limits) -> str:
    """How a process ended while it had an item, as the end of a sentence.

    >>> fate(-6, Limits())
    'it ended the process that read it (SIGABRT)'
    """
    if exitcode == -signal.SIGALRM:
        return f"it took more than {limits.seconds:g} s (data.max_seconds)"
    if exitcode == -signal.SIGKILL:
        return "the process that read it was killed twice (SIGKILL), mostly for want of memory"
    known = {-s.value: s.name for s in signal.Signals}
    return f"it ended the process that read it ({known.get(exitcode or 0, f'status {exitcode}')})"


def _answer(work: Callable[[Any], Any], item: Any) -> bytes:
    try:
        return pickle.dumps((True, work(item)), protocol=5)
    except BaseException as error:
        answer = _failure(error)
        traceback.clear_frames(error.__traceback__)  # what they hold would weigh on the next item
        _trim()
        return answer


def _trim() -> None:
    """Gives back what malloc keeps of memory that was freed: it counts against the limit."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc
    if trim is not None:
        trim(0)


def _failure(error: BaseException) -> bytes:
    """The exception with its traceback as a note, or its text where it survives no pickle."""
    error.add_note("In a process for decoding:\n" + "".join(traceback.format_exception(error)))
    try:
        sent = pickle.dumps((False, error), protocol=5)
        pickle.loads(sent)
    except Exception:
        sent = pickle.dumps((False, RuntimeError(f"{type(error).__name__}: {error}")))
    return sent


@contextlib.contextmanager
def _timed(seconds: float | None) -> Iterator[None]:
    signal.setitimer(signal.ITIMER_REAL, seconds or 0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _hold(megabytes: int | None) -> None:
    """Sets the limit of memory, and lets a process that dies write no core file."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    own = _private_bytes()
    if megabytes is not None and own is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        wanted = own + megabytes * 2**20
        if hard == resource.RLIM_INFINITY or wanted < hard:
            resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))


def _private_bytes() -> int | None:
    """Writable private memory of this process, as RLIMIT_DATA counts it; None if not said."""
    with contextlib.suppress(OSError, ValueError, StopIteration), open("/proc/self/status") as file:
        return 1024 * int(next(line for line in file if line.startswith("VmData")).split()[1])
    return None


def _end_with_the_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
