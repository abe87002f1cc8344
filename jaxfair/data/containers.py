"""Which kind a file is, by its first bytes: names say little about files of hospitals."""

import contextlib
import gzip
import os
import pathlib
import zlib

from jaxfair.errors import InputError

__all__ = ["GZIP", "kind_of", "not_one_of"]

GZIP = b"\x1f\x8b"
_BEGINS = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"\x93NUMPY": "npy",
    b"PK\x03\x04": "npz",
}
_NIFTI = {344: b"n+1\0", 4: b"n+2\0"}
_HEAD = 352


def kind_of(path: str | os.PathLike[str]) -> str:
    """One of DICOM, PNG, JPEG, npy, npz and NIfTI (also gzipped), or "" for anything else.

    Raises:
      InputError: the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}).") from error
    if head[128:132] == b"DICM":
        return "DICOM"
    for begin, kind in _BEGINS.items():
        if head.startswith(begin):
            return kind
    if head.startswith(GZIP):
        head = _unpacked(path)
    return "NIfTI" if any(head[at : at + 4] == name for at, name in _NIFTI.items()) else ""


def _unpacked(path: str | os.PathLike[str]) -> bytes:
    """The first bytes of what is gzipped; b"" where nothing can be unpacked."""
    with contextlib.suppress(OSError, EOFError, zlib.error), gzip.open(path) as packed:
        return packed.read(_HEAD)
    return b""


def not_one_of(path: str | os.PathLike[str], kind: str, what: str) -> InputError:
    """The sentence for a file that is not what is wanted: what it is, and what is."""
    found = f"a {kind} file and " if kind else ""
    if pathlib.PurePath(path).name.startswith("._"):
        found = "a companion file of macOS (AppleDouble) and "
    return InputError(f"{path} is {found}no {what}; replace it.")
