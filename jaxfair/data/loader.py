"""From drawn indices to padded examples, read ahead on another thread.

The loader is handed indices; it has never heard of sampling or privacy.
"""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

import numpy as np

__all__ = ["Fields", "prefetch", "read_rows"]

Fields = Mapping[str, Callable[[np.ndarray], np.ndarray]]
"""Name of an array of one example -> reader of rows: (n,) int -> (n, ...)."""

Item = TypeVar("Item")


def read_rows(fields: Fields, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Reads examples by row.

    Args:
      fields: readers by name.
      rows: (b,) int, the row of each example; -1 stands for padding.

    Returns (b, ...) arrays by name, zero in padding rows.
    """
    is_padding = rows < 0
    return {name: _padded(read(rows[~is_padding]), is_padding) for name, read in fields.items()}


def prefetch(items: Iterable[Item], depth: int = 2) -> Iterator[Item]:
    """Yields `items` in order, made ahead by up to `depth` on a thread of their own.

    An exception in the maker is raised here; a consumer that stops early ends the thread.
    """
    ready: queue.Queue = queue.Queue(maxsize=depth)
    stopped = threading.Event()

    def offer(entry: tuple[str, object]) -> None:
        while not stopped.is_set():
            try:
                return ready.put(entry, timeout=0.1)
            except queue.Full:
                continue

    def work() -> None:
        try:
            for item in items:
                offer(("item", item))
                if stopped.is_set():
                    return
            offer(("end", None))
        except BaseException as error:
            offer(("error", error))

    threading.Thread(target=work, daemon=True).start()
    try:
        while (entry := ready.get())[0] == "item":
            yield entry[1]
        if entry[0] == "error":
            raise entry[1]
    finally:
        stopped.set()


def _padded(values: np.ndarray, is_padding: np.ndarray) -> np.ndarray:
    padded = np.zeros((len(is_padding), *values.shape[1:]), values.dtype)
    padded[~is_padding] = values
    return padded
