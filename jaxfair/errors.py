"""The one exception for input that a person can put right."""

import difflib
import errno
import os
from collections.abc import Iterable

__all__ = ["InputError", "nearest", "system_refusal"]

_REFUSED = (
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM,
    errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EIO,
)  # fmt: skip


class InputError(ValueError):
    """Refused input: one sentence with the value, the rule and what to do.

    Commands print the sentence and exit with status 2; any other exception is a
    mistake of ours and keeps its traceback.
    """


def system_refusal(error: BaseException) -> str | None:
    """What the system says where a disk is full, or a place is read-only or none; else None.

    Libraries wrap it: what an error was raised from is looked through, and the text of one that
    is no OSError (array_record and orbax raise RuntimeError and ValueError).

    >>> system_refusal(OSError(errno.ENOSPC, "No space left on device", "runs/a"))
    'No space left on device: runs/a'
    >>> system_refusal(ValueError("a mistake of ours"))
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in _REFUSED:
            words = os.strerror(seen.errno)
            return f"{words}: {seen.filename}" if seen.filename else words
        if not isinstance(seen, OSError):
            found = [number for number in _REFUSED if os.strerror(number) in str(seen)]
            if found:
                return os.strerror(found[0])
        seen = seen.__cause__ or seen.__context__
    return None


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns ' Did you mean X?' for the known name closest to `name`, or ''."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean {found[0]!r}?" if found else ""
