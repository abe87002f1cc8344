"""Files that are written whole or not at all, and what json holds: read, named by a digest."""

import contextlib
import hashlib
import json
import os
import pathlib
import re
import tempfile
from collections.abc import Iterator
from typing import Any

import pandas as pd

from jaxfair.errors import InputError

__all__ = [
    "json_digest",
    "read_json",
    "slug",
    "whole",
    "write_bytes",
    "write_json",
    "write_table",
    "write_text",
]


@contextlib.contextmanager
def whole(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """Gives a temporary path beside `path` that takes its place when the block ends well.

    The bytes are on disk (fsync) before the rename, so that a full disk, an exception
    or a kill leaves the old file as it was. Readers see the old file or the new one.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with whole(f"{folder}/a.txt") as draft:
    ...         _ = draft.write_text("done")
    ...     pathlib.Path(f"{folder}/a.txt").read_text()
    'done'
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    draft = pathlib.Path(name)
    try:
        yield draft
        _sync(draft)
        os.chmod(draft, 0o666 & ~_umask())
        os.replace(draft, path)
        _sync(path.parent)
    finally:
        draft.unlink(missing_ok=True)


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Writes `content`, whole or not at all."""
    with whole(path) as draft:
        draft.write_bytes(content)


def write_text(path: str | os.PathLike[str], content: str) -> None:
    """Writes `content` as UTF-8, whole or not at all."""
    write_bytes(path, content.encode())


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Writes `content` as indented JSON with sorted keys; NaN and Infinity are refused."""
    write_text(path, json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a JSON object. Raises InputError where it is missing, cut off or something else."""
    try:
        return dict(json.loads(pathlib.Path(path).read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path} cannot be read ({error}); put it back.") from error


def slug(*names: str) -> str:
    """Returns a name for a file or an HTML id, made of names that anybody may have chosen.

    Different names never share one, on systems that take "A" for "a" neither: a name of small
    Latin letters, digits, "_" and "-" stands as it is, any other as what is readable of it with
    64 bits of its SHA-256, and dots part the names.

    >>> slug("run-1", "mass"), slug("mass+")
    ('run-1.mass', 'mass__5879c0f249bdc526')
    """
    return ".".join(map(_safe, names))


_PLAIN = re.compile(r"[a-z0-9][a-z0-9_-]{0,59}")
_MARKED = re.compile(r".*__[0-9a-f]{16}")


def _safe(name: str) -> str:
    if _PLAIN.fullmatch(name) and not _MARKED.fullmatch(name) and name not in _TAKEN:
        return name
    readable = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")[:40] or "x"
    return f"{readable}__{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"


_TAKEN = {"con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in range(10))}
"""Names that Windows has for itself, with any ending."""


def json_digest(content: Any) -> str:
    """Returns the SHA-256, in hex, of `content` as canonical JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def write_table(path: str | os.PathLike[str], table: pd.DataFrame) -> None:
    """Writes `table` without its index, as .parquet or .csv by the suffix of `path`."""
    suffix = pathlib.Path(path).suffix
    if suffix not in (".parquet", ".csv"):
        raise ValueError(f"A table is written as .parquet or .csv, got {path}.")
    with whole(path) as draft:
        if suffix == ".parquet":
            table.to_parquet(draft, index=False)
        else:
            table.to_csv(draft, index=False)


def _sync(path: pathlib.Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
