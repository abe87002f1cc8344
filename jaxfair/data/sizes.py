"""How large a file may become: what its header declares is asked before memory is taken.

A small file can declare, or unpack to, many gigabytes. A reader calls `check` with the shape that
a header declares, before it decodes; `at_most` sets the limit for all that is read inside it, as
`decimal.localcontext` does for arithmetic, so that no reader has to hand it on.
"""

import contextlib
import contextvars
import gzip
import math
import os
import zipfile
import zlib
from collections.abc import Iterable, Iterator

from jaxfair.errors import InputError

__all__ = [
    "DEFAULT",
    "WORKER",
    "at_most",
    "check",
    "check_archive",
    "check_bytes",
    "check_deflated",
    "check_file",
    "check_gzip",
    "check_zip",
    "limit",
]

DEFAULT = 1024
"""Megabytes where nothing else is said: a CT of 1,024 slices of 512 x 512, as float32."""

WORKER = 8
"""A process for decoding may hold so many times the limit: a picture of the largest size that is
allowed is held as it is stored, as float64 and as float32, a few times on its way."""

VALUE = 4
"""Bytes of a value once it is read: float32."""

_limit: contextvars.ContextVar[int] = contextvars.ContextVar("megabytes", default=DEFAULT)


@contextlib.contextmanager
def at_most(megabytes: int | None) -> Iterator[None]:
    """Holds all that is checked inside to so many megabytes of 2^20 bytes; None leaves them.

    >>> with at_most(1):
    ...     check("film.png", (512, 512))
    ...     check("film.png", (513, 512))
    Traceback (most recent call last):
    jaxfair.errors.InputError: film.png declares 513 x 512 values, ...
    """
    token = _limit.set(limit() if megabytes is None else megabytes)
    try:
        yield
    finally:
        _limit.reset(token)


def limit() -> int:
    """The megabytes that hold here."""
    return _limit.get()


def check(what: str | os.PathLike[str], shape: Iterable[int]) -> None:
    """Raises InputError where a declared shape is none, or as float32 above the limit.

    Args:
      what: the file, for the sentence.
      shape: as the header has it; Python integers, so that a product cannot overflow.
    """
    sizes = [int(size) for size in shape]
    if any(size < 0 for size in sizes):
        raise InputError(f"{what} declares the shape {tuple(sizes)}; replace the file.")
    check_bytes(what, VALUE * math.prod(sizes), f"{' x '.join(map(str, sizes))} values")


def check_bytes(what: str | os.PathLike[str], count: int, described: str = "") -> None:
    """Raises InputError where so many bytes are above the limit."""
    if count > limit() * 2**20:
        raise InputError(
            f"{what} declares {described or 'its contents'}, {count / 2**20:,.0f} MB in memory, "
            f"and data.max_megabytes is {limit()}; raise it if the file is as large as that."
        )


def check_archive(path: str | os.PathLike[str], count: int) -> None:
    """Raises InputError where an archive of many images, read whole, has more than WORKER - 2
    times the limit."""
    if count > (WORKER - 2) * limit() * 2**20:
        raise InputError(
            f"{path} unpacks to {count / 2**20:,.0f} MB, and data.max_megabytes is {limit()}, of "
            f"which an archive may have {WORKER - 2} times as much; raise it, or save the images "
            "as .npy, of which one at a time is read."
        )


def check_file(path: str | os.PathLike[str]) -> None:
    """Raises InputError where a file that is read whole is above the limit as it lies there."""
    check_bytes(path, os.stat(path).st_size, "as many bytes as it has")


def check_gzip(path: str | os.PathLike[str]) -> None:
    """Raises InputError where a .gz file unpacks to more than the limit; nothing is kept of it.

    What is no gzip file passes, as the reader will refuse it better.
    """
    count = 0
    with contextlib.suppress(OSError, EOFError, zlib.error), gzip.open(path) as file:
        while piece := file.read(2**20):
            count += len(piece)
            check_bytes(path, count, "more packed bytes than are wanted")


def check_zip(path: str | os.PathLike[str]) -> None:
    """Raises InputError where a .zip or .xlsx file declares to unpack to more than the limit.

    Nobody reads more of a member than it declares. What is no zip file passes, as above.
    """
    with contextlib.suppress(OSError, zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
        count = sum(member.file_size for member in archive.infolist())
        check_bytes(path, count, "more packed bytes than are wanted")


def check_deflated(path: str | os.PathLike[str], packed: bytes) -> None:
    """Raises InputError where raw deflate data unpack to more than the limit.

    They are unpacked in small pieces that are thrown away; what is no deflate stream passes, as
    the reader will refuse it better.
    """
    unpack, count, rest = zlib.decompressobj(-zlib.MAX_WBITS), 0, packed
    with contextlib.suppress(zlib.error):
        while rest and not unpack.eof:
            count += len(unpack.decompress(rest, 2**20))
            check_bytes(path, count, "more deflated bytes than are wanted")
            rest = unpack.unconsumed_tail
